"""Why a call was refused, and the one table from error code to HTTP status.

    Refusal
    ├── BadRequest          the request itself is wrong; `param` names the field
    ├── Unauthenticated     nobody we know is calling
    ├── Forbidden           known, but not allowed
    ├── NotFound            no such path
    ├── MethodNotAllowed    the path exists, the method does not
    ├── ModelUnknown        no such model, or not for this caller: the two look the same
    ├── NotFetched          a model cannot be pulled, for a reason that admins may read
    ├── RequestTimeout      the client takes too long to send its request
    ├── BodyTooLarge        more bytes than the settings allow
    ├── HeaderTooLarge      a request line or headers beyond what any client needs
    ├── MediaTypeUnknown    the body is not what the endpoint reads
    ├── RateLimited         a limit is reached; try again in `retry_after` seconds
    ├── BudgetSpent         a day's or a month's allowance is used up; trying again is no use
    ├── LimitsUnavailable   the shared counts do not answer, and the policy says to refuse then
    ├── Cancelled           an administrator ended the call
    ├── PolicyRefused       the policy on disk cannot be taken, so the old one stays
    ├── LedgerUnavailable   the durable records do not answer, so nobody new can be identified
    └── IssuerUnavailable   an issuer's keys are not there, so its tokens cannot be verified

Engines have errors of their own (engines/errors.py) and know no HTTP. Both
become a `Problem` here, and each dialect has one function that writes a
`Problem` in the shape that its clients expect.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

from msgspec import Struct

from engines.errors import (
    EngineError,
    ModelNotFound,
    Overloaded,
    RequestRefused,
    Unavailable,
)

STATUS: Mapping[str, int] = {
    "bad_request": 400,
    "request_refused": 400,
    "context_too_long": 400,
    "unsupported": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "model_unknown": 404,
    "model_not_found": 404,
    "not_fetched": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "policy_refused": 409,
    "cancelled": 410,
    "body_too_large": 413,
    "media_type_unknown": 415,
    "rate_limited": 429,
    "budget_spent": 429,
    "header_too_large": 431,
    "client_closed": 499,
    "internal": 500,
    "engine_error": 502,
    "overloaded": 503,
    "unavailable": 503,
}


class Refusal(Exception):
    """Why the gateway itself refused a call; `message` is meant for the caller."""

    code: ClassVar[str] = "bad_request"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.headers = dict(headers or {})


class BadRequest(Refusal):
    """The request itself is wrong; `param` names the field."""

    code: ClassVar[str] = "bad_request"


class Unauthenticated(Refusal):
    """Nobody we know is calling. The message never says which part was wrong."""

    code: ClassVar[str] = "unauthenticated"


class Forbidden(Refusal):
    """The caller is known and may not do this."""

    code: ClassVar[str] = "forbidden"


class NotFound(Refusal):
    """No such path."""

    code: ClassVar[str] = "not_found"


class MethodNotAllowed(Refusal):
    """The path exists, the method does not."""

    code: ClassVar[str] = "method_not_allowed"


class ModelUnknown(Refusal):
    """No such model, or not for this caller: the two look the same on purpose."""

    code: ClassVar[str] = "model_unknown"

    def __init__(self, model: str) -> None:
        shown = model if len(model) <= 200 else model[:200] + "…"
        super().__init__(
            f"the model {shown!r} does not exist or you do not have access to it; "
            "GET /v1/models lists the models that you may use",
            param="model",
        )
        self.model = model


class NotFetched(Refusal):
    """A model that is not where it was to be pulled from, as its engine says it.

    For administrators alone: such a message may name what is not for everyone."""

    code: ClassVar[str] = "not_fetched"


@contextmanager
def unknown_as(name: str) -> Generator[None, None, None]:
    """A model that its engine does not have looks like one that the caller may not use."""
    try:
        yield
    except ModelNotFound as error:
        raise ModelUnknown(name) from error


class RequestTimeout(Refusal):
    """The client takes too long to send its request. The connection is closed after the answer."""

    code: ClassVar[str] = "request_timeout"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"connection": "close"})


class HeaderTooLarge(Refusal):
    """A request line or headers beyond what any client needs."""

    code: ClassVar[str] = "header_too_large"


class BodyTooLarge(Refusal):
    """More bytes than the settings allow."""

    code: ClassVar[str] = "body_too_large"


class MediaTypeUnknown(Refusal):
    """The body is not what the endpoint reads."""

    code: ClassVar[str] = "media_type_unknown"


class RateLimited(Refusal):
    """A limit is reached; `retry_after` says when to try again, in seconds.

    None: this request can never fit, so the client is told not to try again.
    """

    code: ClassVar[str] = "rate_limited"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        hint = (
            {"x-should-retry": "false"}
            if retry_after is None
            else {"retry-after-ms": str(max(1, math.ceil(retry_after * 1000)))}
        )
        super().__init__(
            message, param=param, retry_after=retry_after, headers={**hint, **(headers or {})}
        )


class BudgetSpent(Refusal):
    """The allowance of a day or a month is used up. Clients must not try again."""

    code: ClassVar[str] = "budget_spent"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})


class LimitsUnavailable(Refusal):
    """The store of limits does not answer. Not the caller's fault, so never a 429."""

    code: ClassVar[str] = "unavailable"

    def __init__(self) -> None:
        super().__init__(
            "the gateway cannot count this call against its limits at the moment; try again",
            retry_after=1.0,
        )


class Cancelled(Refusal):
    """An administrator ended the call; trying again is not what they meant."""

    code: ClassVar[str] = "cancelled"

    def __init__(self) -> None:
        super().__init__("the call was ended by whoever runs this gateway")


class PolicyRefused(Refusal):
    """The policy directory cannot be served as it is; the one in use stays in use."""

    code: ClassVar[str] = "policy_refused"

    def __init__(self, problems: Sequence[str]) -> None:
        shown = "; ".join(problems[:20])
        more = f" (and {len(problems) - 20} more)" if len(problems) > 20 else ""
        super().__init__(
            f"the policy stays as it is: {shown}{more}", headers={"x-should-retry": "false"}
        )
        self.problems = tuple(problems)


class LedgerUnavailable(Refusal):
    """The durable records do not answer. Not the caller's fault, so never a 401."""

    code: ClassVar[str] = "unavailable"

    def __init__(self) -> None:
        super().__init__(
            "the gateway cannot reach its records at the moment; try again", retry_after=1.0
        )


class IssuerUnavailable(Refusal):
    """There are no keys of the token's issuer to go by. Not the caller's fault, so never a 401."""

    code: ClassVar[str] = "unavailable"

    def __init__(self) -> None:
        super().__init__(
            "the gateway cannot reach the issuer of your token at the moment; try again",
            retry_after=5.0,
        )


class Problem(Struct, frozen=True, kw_only=True):
    """A failure as every dialect can write it. Holds nothing that a caller may not see."""

    code: str
    status: int
    message: str
    source: str  # "gateway", "engine" or "upstream"
    param: str | None = None
    retry_after: float | None = None
    headers: Mapping[str, str] = {}
    answer: bytes | None = None  # the same in an upstream's own words

    @property
    def retry_after_seconds(self) -> int | None:
        """The `Retry-After` header's value: whole seconds, rounded up, at least 1."""
        if self.retry_after is None:
            return None
        return max(1, math.ceil(self.retry_after))


def problem_of(error: BaseException) -> Problem:
    """What a caller may know about `error`; anything unexpected is `internal`."""
    if isinstance(error, Refusal):
        return Problem(
            code=error.code,
            status=STATUS[error.code],
            message=error.message,
            source="gateway",
            param=error.param,
            retry_after=error.retry_after,
            headers=error.headers,
        )
    if isinstance(error, EngineError):
        return _problem_of_engine(error)
    return Problem(
        code="internal",
        status=500,
        message="the gateway failed on this request; its log has the details under the request id",
        source="gateway",
    )


def _problem_of_engine(error: EngineError) -> Problem:
    retry_after = error.retry_after if isinstance(error, Overloaded | Unavailable) else None
    if isinstance(error, Overloaded) and retry_after is None:
        retry_after = 1.0
    param = error.param if isinstance(error, RequestRefused) else None
    message = error.message
    if isinstance(error, ModelNotFound):
        param = "model"
        if error.answer is None:  # an engine's hint names models that may not be this caller's
            message = ModelUnknown(error.model).message
    return Problem(
        code=error.code,
        status=STATUS[error.code] if error.answer is None else error.answer.status,
        message=message,
        source="engine" if error.answer is None else "upstream",
        param=param,
        retry_after=retry_after,
        answer=None if error.answer is None else error.answer.body,
    )
