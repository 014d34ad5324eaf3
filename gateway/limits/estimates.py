"""How many tokens a call will use, as far as that can be known before it is admitted.

The prompt is counted by the engine that will serve it. The answer's length is what
the client allowed; if it said nothing, what 95 of 100 answers of this model stayed
under lately.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from engines.errors import EngineError
from engines.protocol import Engine, GenerateRequest, Text
from gateway.call import Call
from gateway.within import within

COUNT_SECONDS = 2.0  # a model that is still loading would keep the call from its queue
BYTES_PER_TOKEN = 3  # of text that nobody could count; few tokenizers need more tokens
TOKENS_PER_MESSAGE = 8
TOKENS_PER_IMAGE = 1000
SAMPLES = 256
MIN_SAMPLES = 20
RECOUNT_AFTER = 16
MAX_MODELS = 1000


class Estimate(Struct, frozen=True, kw_only=True):
    """What to reserve; `output_tokens` is for each sequence."""

    prompt_tokens: int = 0
    output_tokens: int = 0
    num_sequences: int = 1
    is_explicit: bool = False  # the client itself named the output


class Estimates:
    """Learns answers' lengths from calls that ended well. Owned by the event loop."""

    def __init__(self, *, default_output_tokens: int) -> None:
        self._default = default_output_tokens
        self._lengths: OrderedDict[str, _Lengths] = OrderedDict()

    def learn(self, model: str, output_tokens: int) -> None:
        """Note how long an answer was."""
        lengths = self._lengths.get(model)
        if lengths is None:
            lengths = self._lengths[model] = _Lengths()
            if len(self._lengths) > MAX_MODELS:
                self._lengths.popitem(last=False)
        lengths.add(output_tokens)

    def output_tokens(self, model: str) -> int:
        """What an answer of this model will probably stay under."""
        lengths = self._lengths.get(model)
        return self._default if lengths is None or lengths.most is None else lengths.most

    def of_call(self, call: Call, prompt_tokens: int) -> Estimate:
        """The whole estimate; an embedding has no answer."""
        if not call.requests:
            return Estimate(prompt_tokens=prompt_tokens)
        allowed = call.requests[0].max_tokens  # by client, model or team
        is_explicit = call.asked_max_tokens is not None
        if allowed is not None and is_explicit:
            output = allowed
        else:
            learned = self.output_tokens(call.model.name if call.model else "-")
            output = learned if allowed is None else min(allowed, learned)
        return Estimate(
            prompt_tokens=prompt_tokens,
            output_tokens=output,
            num_sequences=len(call.requests) * call.answers_per_request,
            is_explicit=is_explicit,
        )


class _Lengths:
    """The last answers' lengths of one model."""

    def __init__(self) -> None:
        self.most: int | None = None  # 95 of 100 were at most this
        self._samples: deque[int] = deque(maxlen=SAMPLES)
        self._num_new = 0

    def add(self, length: int) -> None:
        self._samples.append(length)
        self._num_new += 1
        if len(self._samples) >= MIN_SAMPLES and (
            self.most is None or self._num_new >= RECOUNT_AFTER
        ):
            self._num_new = 0
            ordered = sorted(self._samples)
            self.most = max(1, ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)])


async def count_prompt(call: Call, engines: Mapping[str, Engine]) -> int:
    """The prompt's tokens, once for each prompt, by the engine of the first target.

    What cannot be counted soon, or at all, is estimated from its bytes: whether the
    engine takes the call is for dispatch to find out.
    """
    prompts = _prompts(call)
    target = call.route.targets[0] if call.route and call.route.targets else None
    if target is None or target.engine not in engines:
        return sum(map(estimated_tokens, prompts))
    counts: list[int] = []
    try:
        await within(COUNT_SECONDS, _count(engines[target.engine], target.model, prompts, counts))
    except (EngineError, TimeoutError):
        counts += map(estimated_tokens, prompts[len(counts) :])
    return sum(counts)


async def _count(
    engine: Engine, model: str, prompts: Sequence[GenerateRequest], counts: list[int]
) -> None:
    """Add each prompt's tokens to `counts`, where they stay if there is no time for all."""
    for prompt in prompts:
        counts.append(await engine.count_tokens(msgspec.structs.replace(prompt, model=model)))


def _prompts(call: Call) -> list[GenerateRequest]:
    """One request for each prompt: choices share theirs, each input of an embedding is one.

    To be reranked, each document is read together with the query.
    """
    if (own := call.embed_request) is not None:
        return [GenerateRequest(id=own.id, model=own.model, prompt=text) for text in own.inputs]
    if (asked := call.rerank_request) is not None:
        return [
            GenerateRequest(id=asked.id, model=asked.model, prompt=f"{asked.query}\n{document}")
            for document in asked.documents
        ]
    return list(call.requests[:: call.choices_per_prompt])


def estimated_tokens(request: GenerateRequest) -> int:
    """Tokens of a prompt that no tokenizer has seen; rather too many."""
    if request.prompt is not None:
        if not isinstance(request.prompt, str):
            return len(request.prompt)
        return _tokens_in(len(request.prompt.encode()))
    tokens = _tokens_in(len(msgspec.json.encode(request.tools))) if request.tools else 0
    for message in request.messages:
        num_bytes = 0
        for part in message.parts:
            if isinstance(part, Text):
                num_bytes += len(part.text.encode())
            else:
                tokens += TOKENS_PER_IMAGE
        tokens += TOKENS_PER_MESSAGE + _tokens_in(num_bytes)
    return tokens


def _tokens_in(num_bytes: int) -> int:
    return -(-num_bytes // BYTES_PER_TOKEN)
