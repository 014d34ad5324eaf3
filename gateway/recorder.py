"""Notes on a call what the events of one answer tell of it, for observers and limits."""

import time

from engines.protocol import (
    Event,
    Finished,
    GenerateRequest,
    Output,
    Started,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from engines.wire import Relayed
from gateway.call import Call
from gateway.limits.estimates import estimated_tokens

LONG_TOKEN = 8  # characters; a piece of text with more of them is several tokens

_UNKNOWN = Usage()


class Recorder:
    """One sequence's. Tokens are noted as they pass: a client that hangs up has used them, and
    then nobody says how many there were."""

    __slots__ = ("_call", "_guesses_prompt", "_request", "_tally")

    def __init__(self, call: Call, request: GenerateRequest, sequence: int) -> None:
        self._call = call
        self._request = request
        self._tally = call.tally(sequence)
        self._guesses_prompt = False

    def note(self, event: Event) -> None:
        """An event is on its way to the client."""
        call, tally = self._call, self._tally
        if isinstance(event, Started):
            # An upstream tells it at the end, if it gets there.
            self._guesses_prompt = event.prompt_tokens is None
            tally.prompt_tokens = event.prompt_tokens or 0
            tally.cached_tokens = event.cached_tokens
            return
        if call.first_output_at is None:
            call.first_output_at = time.monotonic()
        if isinstance(event, Finished):
            if event.usage != _UNKNOWN:  # an engine that knows nothing says nothing
                tally.set(event.usage)
            call.timing = event.timing
            call.finish_reason = event.reason
        else:
            tally.completion_tokens += _tokens_in(event)

    def end(self) -> None:
        """No more events: charge a call that was broken off for a prompt that nobody counted."""
        if self._guesses_prompt and not self._tally.prompt_tokens:
            self._tally.prompt_tokens = estimated_tokens(self._request)


def _tokens_in(event: Output) -> int:
    """Tokens in one piece of output: one, as engines send them, unless it is a long piece."""
    if isinstance(event, Relayed):
        return 1 if event.num_tokens is None else event.num_tokens
    if isinstance(event, TextDelta) and event.logprobs:
        return len(event.logprobs)
    text = event.arguments if isinstance(event, ToolCallDelta) else event.text
    return max(1, len(text) // LONG_TOKEN)
