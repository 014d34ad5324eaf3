"""Errors in OpenAI's shape: four required keys, null where nothing is known.

Codes and types are those that OpenAI's own clients look at
(`ErrorResponse` of the OpenAI API specification).
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from gateway.errors import Problem

# Our code -> OpenAI's type and code.
_WORDS: Mapping[str, tuple[str, str | None]] = {
    "bad_request": ("invalid_request_error", "invalid_value"),
    "request_refused": ("invalid_request_error", "invalid_value"),
    "unsupported": ("invalid_request_error", "unsupported_parameter"),
    "context_too_long": ("invalid_request_error", "context_length_exceeded"),
    "unauthenticated": ("invalid_request_error", "invalid_api_key"),
    "forbidden": ("permission_error", "permission_denied"),
    "not_found": ("invalid_request_error", "unknown_url"),
    "method_not_allowed": ("invalid_request_error", "method_not_allowed"),
    "model_unknown": ("invalid_request_error", "model_not_found"),
    "model_not_found": ("invalid_request_error", "model_not_found"),
    "request_timeout": ("invalid_request_error", "request_timeout"),
    "header_too_large": ("invalid_request_error", "headers_too_large"),
    "body_too_large": ("invalid_request_error", "request_too_large"),
    "media_type_unknown": ("invalid_request_error", "unsupported_media_type"),
    "rate_limited": ("rate_limit_error", "rate_limit_exceeded"),
    "budget_spent": ("insufficient_quota", "insufficient_quota"),
    "overloaded": ("service_unavailable_error", "server_is_overloaded"),
    "unavailable": ("service_unavailable_error", "engine_unavailable"),
}


class _Error(Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class _ErrorBody(Struct):
    error: _Error


def openai_problem(problem: Problem) -> bytes:
    """The JSON body of an error answer, and of an error event in a stream."""
    kind, code = _WORDS.get(problem.code, ("server_error", problem.code))
    error = _Error(message=problem.message, type=kind, param=problem.param, code=code)
    return msgspec.json.encode(_ErrorBody(error))
