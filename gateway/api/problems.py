"""Turns any failure into an answer in the shape of the dialect that was asked.

The dialect comes from the matched endpoint; where nothing matched, from the
path, so that a client that mistypes a URL still reads an error it can parse.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from litestar.connection import Request
from litestar.exceptions import HTTPException

from gateway.api.bodies import ClientGone
from gateway.api.framing import ndjson, sse
from gateway.api.ollama.problem import ollama_problem
from gateway.api.openai.problem import openai_problem
from gateway.api.replies import SECURITY_HEADERS, JsonReply
from gateway.call import Call, new_call_id
from gateway.errors import (
    BadRequest,
    BodyTooLarge,
    MediaTypeUnknown,
    MethodNotAllowed,
    NotFound,
    Problem,
    problem_of,
)

log = structlog.get_logger()

SHAPES: Mapping[str, Callable[[Problem], bytes]] = {
    "openai": openai_problem,
    "ollama": ollama_problem,
}


def problem_reply(problem: Problem, *, dialect: str) -> JsonReply:
    """The answer that tells a client of `dialect` about `problem`."""
    headers = {"x-penstock-error-source": problem.source, **problem.headers}
    if (seconds := problem.retry_after_seconds) is not None:
        headers["retry-after"] = str(seconds)
    if problem.status < 500 and problem.status not in (408, 409, 429):
        headers["x-should-retry"] = "false"
    shape = SHAPES.get(dialect, openai_problem)
    # An engine has an upstream's words only for a call of the upstream's own dialect.
    body = shape(problem) if problem.answer is None else problem.answer
    return JsonReply(body, status=problem.status, headers=headers)


def problem_frame(problem: Problem, *, dialect: str) -> bytes:
    """The event that ends a stream of `dialect` from outside of its handler."""
    framed = ndjson if dialect == "ollama" else sse
    return framed(SHAPES.get(dialect, openai_problem)(problem))


def respond_to_error(request: Request[Any, Any, Any], error: Exception) -> Any:
    """Litestar's exception handler for everything a handler or the router raises."""
    call = call_in(request.scope)
    if isinstance(error, ClientGone):
        # There is nobody to answer; the middleware, which sees this go by, notes it.
        raise error
    problem = problem_of_any(error, request.scope)
    if problem.code == "internal":
        log.error("call_failed", call=call.id if call else None, exc_info=error)
    if call is None:
        # The router refused, so the middleware that names calls was not reached.
        headers = {**SECURITY_HEADERS, **problem.headers, "x-request-id": new_call_id()}
        problem = msgspec.structs.replace(problem, headers=headers)
    elif call.error is None:
        call.error = problem
    return problem_reply(problem, dialect=call.dialect if call else _dialect_of(request.scope))


def problem_of_any(error: BaseException, scope: Any) -> Problem:
    """`problem_of`, and Litestar's own exceptions in our words."""
    if not isinstance(error, HTTPException):
        return problem_of(error)
    asked = f"{scope.get('method', '')} {scope.get('path', '')[:200]}"
    match error.status_code:
        case 404:
            return problem_of(NotFound(f"there is no {asked}; docs/api.md lists the endpoints"))
        case 405:
            problem = f"{asked}: this path does not take this method"
            return problem_of(MethodNotAllowed(problem, headers=error.headers))  # with `allow`
        case 413:
            return problem_of(BodyTooLarge(error.detail))
        case 415:
            return problem_of(MediaTypeUnknown(error.detail))
        case status if status < 500:
            return problem_of(BadRequest(error.detail))
        case _:
            return problem_of(error)


def _dialect_of(scope: Any) -> str:
    return "ollama" if str(scope.get("path", "")).startswith("/api/") else "openai"


def call_in(scope: Any) -> Call | None:
    """The call that the middleware opened for this request, if it got that far."""
    return scope.get("state", {}).get("call")
