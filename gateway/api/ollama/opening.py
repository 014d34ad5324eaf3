"""The beginning of every handler of this dialect: the call, and a body as Ollama reads it.

Unlike OpenAI's dialect this one lets fields pass that it does not know: clients of
every version of Ollama send what theirs understood. They are told, in a header, which
fields had no effect.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

import msgspec

from gateway.api.bodies import LARGE_BYTES, Incoming, decode_body, read_raw
from gateway.call import Call
from gateway.errors import MediaTypeUnknown
from gateway.gateway import Gateway

Body = TypeVar("Body")

IGNORED_HEADER = "x-penstock-ignored"
# What curl calls a body if it is not told, and what the documentation's examples send.
_CURLS_TYPE = "application/x-www-form-urlencoded"
_MAX_TOLD = 20
_TELLABLE = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_NAMES = msgspec.json.Decoder(dict[str, msgspec.Raw])


def opened(request: Incoming) -> tuple[Gateway, Call]:
    """The gateway and the call of a request."""
    state = request.scope["state"]
    return cast(Gateway, state["gateway"]), cast(Call, state["call"])


async def read(
    request: Incoming, decoder: msgspec.json.Decoder[Body], *, empty: bytes = b""
) -> Body:
    """The JSON body; `empty` is read in the place of none.

    Raises `BadRequest`, `BodyTooLarge`, `MediaTypeUnknown`."""
    gateway, call = opened(request)
    _check_type(call.headers)
    raw = await read_raw(request, max_bytes=gateway.settings.max_body_bytes)
    raw = raw if raw.strip() else empty
    if len(raw) > LARGE_BYTES:
        body = await asyncio.to_thread(decode_body, raw, decoder)
    else:
        body = decode_body(raw, decoder)
    known = {field.encode_name for field in msgspec.structs.fields(cast(Any, decoder.type))}
    tell_ignored(call, (name for name in _NAMES.decode(raw) if name not in known))
    return body


def tell_ignored(call: Call, fields: Iterable[str]) -> None:
    """Name fields that had no effect in the answer's headers, beside those that were named."""
    told = call.response_headers.get(IGNORED_HEADER, "")
    names = [*filter(None, told.split(", ")), *filter(_TELLABLE.fullmatch, fields)]
    if names:
        call.response_headers[IGNORED_HEADER] = ", ".join(names[:_MAX_TOLD])


def _check_type(headers: Mapping[str, str]) -> None:
    given = headers.get("content-type", "")
    media_type = given.partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        return
    # A web page may send these two across origins without asking first, so from a
    # browser they are not read; it says itself that it is one.
    is_browser = "origin" in headers or any(name.startswith("sec-fetch-") for name in headers)
    if media_type in ("", _CURLS_TYPE) and not is_browser:
        return
    raise MediaTypeUnknown(f"the body's content-type is {given[:100]!r}; send application/json")
