"""What the step thread sends becomes the events of one answer, on the event loop.

Turning bytes into text, looking for stop strings, thinking and tool calls is
done here, so that the step thread has only tokens to think of. Where tokens
came faster than they were read, they leave as one event.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from engines.chat.output import ChatOutput
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
    """The model ended the answer, or its tokens were used up."""

    reason: FinishReason
    timing: Timing


Item = Admitted | Generated | Ended


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
    def mailbox(self) -> Items:
        """Where the step thread posts to."""
        ...

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        ...

    def timing(self, now: float) -> Timing:
        """Seconds in each phase so far."""
        ...


class Answer:
    """One request's way out. Iterate `events` once."""

    def __init__(
        self,
        sequence: Running,
        output: ChatOutput,
        pieces: Sequence[bytes],
        *,
        on_admitted: Callable[[], None],
        loading_seconds: float = 0.0,
    ) -> None:
        self._sequence = sequence
        self._output = output
        self._pieces = pieces
        self._on_admitted = on_admitted
        self._loading_seconds = loading_seconds
        self._num_tokens = 0
        self._cached_tokens = 0
        self._ended: Ended | None = None

    async def events(self) -> AsyncGenerator[Event, None]:
        """Everything from `Started` to `Finished`; raises what the step thread posted."""
        mailbox = self._sequence.mailbox
        while True:
            items = [await mailbox.get()]
            failure: BaseException | None = None
            try:
                while (more := mailbox.get_nowait()) is not None:
                    items.append(more)
            # Whatever was posted goes to the reader, after what came before it.
            except BaseException as error:  # noqa: BLE001
                failure = error
            first = items[0]
            if isinstance(first, Admitted):
                del items[0]
                self._on_admitted()
                self._cached_tokens = first.cached_tokens
                yield Started(
                    prompt_tokens=self._sequence.num_prompt_tokens,
                    cached_tokens=self._cached_tokens,
                )
            for event in merged(self._outputs(items)):
                yield event
            if self._ended is not None:
                yield self._finished(self._ended)
                return
            if failure is not None:
                raise failure

    def _outputs(self, items: Sequence[Item]) -> list[Output]:
        outputs: list[Output] = []
        for item in items:
            if isinstance(item, Generated):
                self._num_tokens += 1
                outputs += self._output.feed(self._pieces[item.token], item.logprob)
                if self._output.is_finished:
                    now = time.monotonic()
                    self._ended = Ended(FinishReason.STOP, self._sequence.timing(now))
                    break
            elif isinstance(item, Ended):
                self._ended = item
        if self._ended is not None:
            outputs += self._output.finish()
        return outputs

    def _finished(self, ended: Ended) -> Finished:
        reason = ended.reason
        if reason is FinishReason.STOP and self._output.called_tools:
            reason = FinishReason.TOOL_CALLS
        usage = Usage(
            prompt_tokens=self._sequence.num_prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._num_tokens,
            reasoning_tokens=self._output.num_reasoning_tokens,
        )
        timing = msgspec.structs.replace(ended.timing, loading=self._loading_seconds)
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
