"""The workload `sharegpt`: a chat log's mix of short and long, made up or from a file.

Made up (`Mix`): lengths are log-normal, prompts about 160 tokens on average and
answers about 340, most much shorter and a few much longer, none above 1,024. The
parameters are our choice; the mix is like ShareGPT in kind, not drawn from it.

From a file (`ChatLog`): a JSON list of conversations in ShareGPT's form. A
conversation's first question is asked, and its answer is let grow to the length
of the one in the log. A token is taken for four characters there, because which
tokens they are depends on the model; the report tells how many they were.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from gateway.bench.question import Conversation, Question
from gateway.bench.workloads import WorkloadInvalid
from gateway.bench.workloads.words import token_ids, words

SHORTEST = 4  # tokens of a prompt or an answer
LONGEST = 1024
CHARACTERS_PER_TOKEN = 4


class LogNormal(Struct, frozen=True):
    """Lengths whose logarithms are normal; drawn again when out of bounds."""

    median: float
    sigma: float

    def draw(self, random: Random) -> int:
        """One length."""
        while True:
            length = round(random.lognormvariate(math.log(self.median), self.sigma))
            if SHORTEST <= length <= LONGEST:
                return length


PROMPTS = LogNormal(median=100, sigma=1.15)
ANSWERS = LogNormal(median=310, sigma=0.9)


class Mix(Struct, frozen=True, kw_only=True):
    """A synthetic log; the same lengths at every place, other words."""

    num_requests: int
    uses_token_ids: bool = False
    vocab_size: int = 10_000
    temperature: float = 0.0
    ignore_eos: bool = True

    def conversations(self, place: int) -> Sequence[Conversation]:
        """As many as requests; see `Workload`."""
        lengths, content = Random(0), Random(f"sharegpt {place}")
        return [
            Conversation(questions=[self._question(lengths, content)])
            for _ in range(self.num_requests)
        ]

    def _question(self, lengths: Random, content: Random) -> Question:
        prompt_tokens, max_tokens = PROMPTS.draw(lengths), ANSWERS.draw(lengths)
        ids: Sequence[int] = ()
        if self.uses_token_ids:
            ids = token_ids(content, prompt_tokens, vocab_size=self.vocab_size)
        return Question(
            text="" if ids else words(content, prompt_tokens),
            token_ids=ids,
            max_tokens=max_tokens,
            temperature=self.temperature,
            ignore_eos=self.ignore_eos,
        )


class _Said(Struct):
    speaker: str = msgspec.field(name="from")
    value: str


class _Logged(Struct):
    conversations: Sequence[_Said] = ()


class ChatLog(Struct, frozen=True, kw_only=True):
    """First questions of a log, and how long their answers were."""

    pairs: Sequence[tuple[str, int]]
    num_requests: int
    temperature: float = 0.0
    ignore_eos: bool = True

    def conversations(self, place: int) -> Sequence[Conversation]:
        """A random choice of the log for each place."""
        random = Random(f"sharegpt {place}")
        return [
            Conversation(
                questions=[
                    Question(
                        text=text,
                        max_tokens=max_tokens,
                        temperature=self.temperature,
                        ignore_eos=self.ignore_eos,
                    )
                ]
            )
            for text, max_tokens in random.sample(self.pairs, self.num_requests)
        ]


def read_log(path: Path, *, num_requests: int) -> Sequence[tuple[str, int]]:
    """Question and answer length of each usable conversation. Raises `WorkloadInvalid`."""
    try:
        logged = msgspec.json.decode(path.read_bytes(), type=list[_Logged])
    except OSError as error:
        raise WorkloadInvalid(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise WorkloadInvalid(
            f"{path} is not a ShareGPT file (a list of objects with `conversations` of "
            f"`from` and `value`): {error}"
        ) from None
    pairs: list[tuple[str, int]] = []
    for conversation in logged:
        said = conversation.conversations
        if len(said) >= 2 and said[0].speaker in ("human", "user"):
            prompt_tokens, answer_tokens = (_tokens_of(turn.value) for turn in said[:2])
            if SHORTEST <= prompt_tokens <= LONGEST and SHORTEST <= answer_tokens <= LONGEST:
                pairs.append((said[0].value, answer_tokens))
    if len(pairs) < num_requests:
        raise WorkloadInvalid(
            f"{path} has {len(pairs)} usable conversations (question and answer of {SHORTEST} to "
            f"{LONGEST} tokens each), fewer than the {num_requests} to be asked; see --requests"
        )
    return pairs


def _tokens_of(text: str) -> int:
    return round(len(text) / CHARACTERS_PER_TOKEN)
