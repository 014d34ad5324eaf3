"""What the step thread sends becomes the events of one answer, on the event loop.

Turning bytes into text, looking for stop strings, thinking and tool calls is
done here, so that the step thread has only tokens to think of. Where tokens
came faster than they were read, they leave as one event.
"""

import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from engines.chat.output import ChatOutput
from engines.metrics import RecordedRequest
from engines.protocol import (
    Event,
    Finished,
    FinishReason,
    Output,
    ReasoningDelta,
    Started,
    TextDelta,
    Timing,
    TokenLogprob,
    Usage,
)


class Admitted(NamedTuple):
    """The request runs; `cached_tokens` of its prompt are already computed."""

    cached_tokens: int


class Generated(NamedTuple):
    """One more token of the answer."""

    token: int
    logprob: TokenLogprob | None


class Ended(NamedTuple):
    """The model ended the answer, or its tokens were used up.

    The token by which a model ended it is in no `Generated`.
    """

    reason: FinishReason
    timing: Timing
    stop_token: int | None = None


class PromptScored(NamedTuple):
    """Log-probabilities of the prompt's tokens after token `start`; see `Answer`.

    A prompt that is computed again is scored again, from its first token.
    """

    start: int
    logprobs: Sequence[TokenLogprob]


Item = Admitted | PromptScored | Generated | Ended


class Items(Protocol):
    """Where an answer's items come from: an `engines.outbox.Mailbox`."""

    async def get(self) -> Item:
        """The next item; raises what was posted as an error."""
        ...

    def get_nowait(self) -> Item | None:
        """The next item if one is here."""
        ...


class Running(Protocol):
    """The request as its step thread has it."""

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        ...

    def timing(self, now: float) -> Timing:
        """Seconds in each phase so far."""
        ...


class Answer:
    """One request's way out, told to `record` as it goes. Iterate `events` once.

    With `scores_prompt` the start is held back until all of the prompt is scored.
    """

    def __init__(
        self,
        sequence: Running,
        items: Items,
        output: ChatOutput,
        pieces: Sequence[bytes],
        *,
        record: RecordedRequest,
        scores_prompt: bool = False,
    ) -> None:
        self._sequence = sequence
        self._items = items
        self._scores_prompt = scores_prompt
        self._prompt_logprobs: list[TokenLogprob] = []
        self._is_admitted = False
        self._output = output
        self._pieces = pieces
        self._record = record
        self._num_tokens = 0
        self._cached_tokens = 0
        self._ended: Ended | None = None

    async def events(self) -> AsyncGenerator[Event, None]:
        """Everything from `Started` to `Finished`; raises what the step thread posted."""
        while True:
            items = [await self._items.get()]
            failure: BaseException | None = None
            try:
                while (more := self._items.get_nowait()) is not None:
                    items.append(more)
            # Whatever was posted goes to the reader, after what came before it.
            except BaseException as error:  # noqa: BLE001
                failure = error
            outputs = merged(self._outputs(items))
            if self._is_admitted and (outputs or self._ended or not self._scores_prompt):
                self._is_admitted = False  # said once
                yield Started(
                    prompt_tokens=self._sequence.num_prompt_tokens,
                    cached_tokens=self._cached_tokens,
                    prompt_logprobs=self._prompt_logprobs if self._scores_prompt else None,
                )
            for event in outputs:
                yield event
            if self._ended is not None:
                yield self._finished(self._ended)
                return
            if failure is not None:
                raise failure

    def _outputs(self, items: Sequence[Item]) -> list[Output]:
        outputs: list[Output] = []
        for item in items:
            if isinstance(item, Admitted):
                self._cached_tokens = item.cached_tokens
                self._is_admitted = True
                self._record.admitted(item.cached_tokens)
            elif isinstance(item, PromptScored):
                del self._prompt_logprobs[item.start :]
                self._prompt_logprobs += item.logprobs
            elif isinstance(item, Generated):
                self._num_tokens += 1
                outputs += self._output.feed(self._pieces[item.token], item.logprob)
                if self._output.is_finished:
                    now = time.monotonic()
                    self._ended = Ended(FinishReason.STOP, self._sequence.timing(now))
                    break
            else:
                self._ended = item
        if self._ended is not None:
            is_cut = self._ended.reason is FinishReason.LENGTH
            outputs += self._output.finish(is_cut=is_cut)
        self._record.reached(self._num_tokens)
        return outputs

    def _finished(self, ended: Ended) -> Finished:
        reason, timing = ended.reason, ended.timing
        self._record.finished(
            reason.value, queued=timing.queued, prefill=timing.prefill, decode=timing.decode
        )
        if reason is FinishReason.STOP and self._output.called_tools:
            reason = FinishReason.TOOL_CALLS
        usage = Usage(
            prompt_tokens=self._sequence.num_prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._num_tokens,
            reasoning_tokens=self._output.num_reasoning_tokens,
        )
        timing = msgspec.structs.replace(timing, loading=self._record.loading_seconds)
        return Finished(reason=reason, usage=usage, timing=timing, stop=self._output.stopped)


def merged(outputs: Iterable[Output]) -> list[Output]:
    """The same outputs with neighbours of one kind joined."""
    joined: list[Output] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if isinstance(output, TextDelta) and isinstance(last, TextDelta):
            joined[-1] = TextDelta(last.text + output.text, (*last.logprobs, *output.logprobs))
        elif isinstance(output, ReasoningDelta) and isinstance(last, ReasoningDelta):
            joined[-1] = ReasoningDelta(last.text + output.text)
        else:
            joined.append(output)
    return joined
