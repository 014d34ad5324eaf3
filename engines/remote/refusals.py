"""What an upstream's refusal means to a caller of ours.

A caller hears the upstream's own status and words where it can act on them: its
request was wrong. Anything that is between this gateway and the upstream (keys,
money, redirects, bugs) is `Unavailable` and says no more. docs/routing.md has the
table.
"""

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, cast

import msgspec
from msgspec import Struct

from engines.errors import (
    ContextTooLong,
    DoubtfullyUnavailable,
    EngineError,
    ModelNotFound,
    Overloaded,
    RequestRefused,
    Unavailable,
    UpstreamAnswer,
)

MAX_RETRY_AFTER_SECONDS = 3600.0
MAX_MESSAGE = 500

# Ours to mend: keys, permissions, bills, proxies.
_OUR_FAULT = frozenset({401, 402, 403, 407})
# Of the moment, or of the way here; the same request may succeed elsewhere.
_PASSING = frozenset({408, 409, 421, 425, 426, 428, 499})
_CONTEXT = re.compile(
    r"context_length_exceeded|exceed_context_size|context (?:length|size|window|limit)"
    r"|(?:prompt|input) is too long"
    r"|`inputs` (?:tokens \+ `max_new_tokens` must be <=|must have less than)"  # TGI
    r"|input token count .{0,40}exceeds the maximum|maximum prompt length is",  # Gemini, xAI
    re.IGNORECASE,
)
# A server that calls it its own failure has to say that much, too.
_EXCEEDS = re.compile(r"exceed|too (?:long|large)|longer than|larger than", re.IGNORECASE)
_NO_MODEL = re.compile(r"\bmodel\b.{0,300}\bnot (?:exist|found)\b", re.IGNORECASE | re.DOTALL)
_BUSY_CODES = frozenset(
    {"server_is_overloaded", "overloaded", "overloaded_error", "rate_limit_exceeded", "slow_down"}
)
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


class Said(Struct, frozen=True, kw_only=True):
    """The error that an upstream wrote, as far as it has one."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str | None = None
    status: int | None = None  # some write it there, in a 200


class Refused(Struct, frozen=True, kw_only=True):
    """An answer that is no answer: what came, and what the caller knows the model as."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    model: str  # the upstream's name for it
    public_model: str | None = None
    with_words: bool = False  # may the caller read what the upstream says?
    relay: bool = False  # and read it in the upstream's own shape?


def error_of(refused: Refused) -> EngineError:
    """The error that stands for a refusal."""
    said = said_in(refused.body) or Said()
    status = _status_of(refused, said)
    error = _meaning(refused, said, status)
    if isinstance(error, RequestRefused) and 400 <= status < 500:
        may_be_read = refused.with_words and refused.relay and is_object(refused.body)
        error.answer = UpstreamAnswer(status, _with_public_name(refused) if may_be_read else None)
    return error


def said_in(body: bytes) -> Said | None:
    """The error in a body: OpenAI's shape, or the flat ones of others; None without one."""
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(tree, list) and tree:  # Gemini's
        tree = cast(list[Any], tree)[0]
    return said_of(cast(Mapping[str, Any], tree)) if isinstance(tree, dict) else None


def said_of(tree: Mapping[str, Any]) -> Said | None:
    """The error in a decoded body."""
    found: Any = tree.get("error") or (tree if tree.get("object") == "error" else None)
    if not found:
        found = tree.get("detail") or tree.get("message")
        return Said(message=_text(found)) if found else None
    if not isinstance(found, dict):
        return Said(message=_text(found))
    fields = cast(Mapping[str, object], found)
    code = fields.get("code")
    status = code if isinstance(code, int) and not isinstance(code, bool) else None
    param = fields.get("param")
    return Said(
        message=_text(fields.get("message")),
        type=_text(fields.get("type")),
        code=_text(code),
        param=param if isinstance(param, str) else None,
        status=status if status is not None and 400 <= status <= 599 else None,
    )


def is_object(body: bytes) -> bool:
    """Is this JSON that a client of the dialect reads as an error or an answer?"""
    try:
        body.decode()  # what is in a `Raw` is not looked at
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def retry_after_of(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds of `Retry-After` (a number or a date, RFC 9110 10.2.3), within reason."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - (
                time.time() if now is None else now
            )
        except (ValueError, OverflowError):
            return None
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return min(seconds, MAX_RETRY_AFTER_SECONDS)


def _status_of(refused: Refused, said: Said) -> int:
    """The answer's status; of an error that came in a 200, the one that it should have had."""
    if refused.status >= 400:
        return refused.status
    return said.status or (400 if said.type == "invalid_request_error" else 502)


def _meaning(refused: Refused, said: Said, status: int) -> EngineError:
    retry_after = retry_after_of(refused.headers)
    if said.code in _NO_MONEY or said.type in _NO_MONEY or status in _OUR_FAULT:
        return Unavailable("the upstream does not take this gateway's requests at the moment")
    if status == 429 or status == 529 or said.code in _BUSY_CODES:
        return Overloaded("the upstream has too much to do", retry_after=retry_after)
    if _is_about_context(said, status):
        return ContextTooLong(
            prompt_tokens=0,
            context_tokens=0,
            param=said.param or "messages",
            message=_message(refused, said),
        )
    if status == 404 and (said.code == "model_not_found" or _NO_MODEL.search(said.message)):
        return ModelNotFound(refused.model)
    if status == 500 or (status > 500 and 200 <= refused.status < 300):
        words = "the upstream failed on this request"
        return DoubtfullyUnavailable(words, retry_after=retry_after)
    if status in _PASSING or status >= 500:
        return Unavailable("the upstream failed on this request", retry_after=retry_after)
    return RequestRefused(_message(refused, said), param=said.param)


def _is_about_context(said: Said, status: int) -> bool:
    words = f"{said.code} {said.type} {said.message}"
    if status not in (400, 413, 422, 500) or not _CONTEXT.search(words):
        return False
    return status != 500 or _EXCEEDS.search(words) is not None


def _message(refused: Refused, said: Said) -> str:
    if not refused.with_words or not said.message:
        return f"the upstream refused the request ({refused.status})"
    return _named_publicly(said.message[:MAX_MESSAGE], refused)


def _with_public_name(refused: Refused) -> bytes:
    return _named_publicly(refused.body.decode(), refused).encode()


def _named_publicly(text: str, refused: Refused) -> str:
    # The upstream's name for a model is not the caller's business, nor of use to it.
    public = refused.public_model or "the model"
    if not refused.model or public == refused.model:
        return text
    whole_name = rf"(?<![\w./:-]){re.escape(refused.model)}(?![\w/:-])"
    return re.sub(whole_name, lambda _: _in_json(public), text)


def _in_json(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()[:MAX_MESSAGE]
