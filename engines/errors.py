"""Why an engine could not answer.

    EngineError
    ├── RequestRefused      this request can never succeed here
    │   ├── ContextTooLong  its prompt does not fit the model's context
    │   └── Unsupported     it asks for what this model or engine cannot do
    ├── ModelNotFound       the engine has no model of that name
    ├── Overloaded          a full queue; try again in `retry_after` seconds
    │   └── EngineOverloaded  the queue is this engine's own, so asking it again costs nothing
    └── Unavailable         the engine, the model load or the upstream failed
        └── DoubtfullyUnavailable  on this request, which may be why

`code` is the word used everywhere: in policy files (`on = ["overloaded"]`), in
logs and in metrics. A dialect may have a word of its own for its clients
(OpenAI's for `context_too_long` is `context_length_exceeded`).
"""

from typing import ClassVar

from msgspec import Struct


class UpstreamAnswer(Struct, frozen=True):
    """A refusal as an upstream gave it."""

    status: int
    body: bytes | None = None  # JSON for clients of its dialect; None: no words that may be read


class EngineError(Exception):
    """Why an engine could not answer; `message` is meant for the caller.

    `answer` is what an upstream said, where the caller may hear that instead.
    """

    code: ClassVar[str] = "engine_error"
    answer: UpstreamAnswer | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestRefused(EngineError):
    """This request can never succeed here; `param` names the field to change, if one does."""

    code: ClassVar[str] = "request_refused"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextTooLong(RequestRefused):
    """The prompt, counted by the model's own tokenizer, does not fit its context.

    An upstream says so in words of its own (`message`), and often without the numbers: then 0.
    `is_at_least`: a prompt that cannot fit is not counted to its end.
    """

    code: ClassVar[str] = "context_too_long"

    def __init__(
        self,
        *,
        prompt_tokens: int,
        context_tokens: int,
        param: str = "messages",
        message: str | None = None,
        is_at_least: bool = False,
    ) -> None:
        at_least = "at least " if is_at_least else ""
        super().__init__(
            message
            or f"this model's context is {context_tokens} tokens; the prompt has {at_least}"
            f"{prompt_tokens} and at least 1 is needed for the answer: shorten the prompt or "
            "choose a model with a longer context",
            param=param,
        )
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens


class Unsupported(RequestRefused):
    """The request asks for what this model or engine cannot do."""

    code: ClassVar[str] = "unsupported"


class ModelNotFound(EngineError):
    """The engine has no model of that name."""

    code: ClassVar[str] = "model_not_found"

    def __init__(self, model: str, message: str | None = None) -> None:
        super().__init__(message or f"there is no model {model!r}")
        self.model = model


class Overloaded(EngineError):
    """A full queue; `retry_after` is in seconds, None when nothing is known."""

    code: ClassVar[str] = "overloaded"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineOverloaded(Overloaded):
    """A full queue of the engine's own, in this machine; nothing was sent anywhere.

    It knows at each moment whether there is room, and what is too much for one request may not
    be for another, so no call is kept from asking. Another server's word is plain `Overloaded`.
    """


class Unavailable(EngineError):
    """The engine, the model load or the upstream failed; not the caller's fault."""

    code: ClassVar[str] = "unavailable"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DoubtfullyUnavailable(Unavailable):
    """The upstream is there, and what it answered to this request is a failure.

    The upstream may be broken, or may have met a request that it cannot cope with: a 500, or an
    answer that nobody can read. So it is not held against the upstream as a lost connection is.
    """
