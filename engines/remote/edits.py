"""Writes into a client's own body what policy changed, and nothing else.

The body is taken apart at its first level only; every value that is not
replaced is put back as the bytes that came.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from engines.errors import RequestRefused
from engines.protocol import GenerateRequest, Sampling
from engines.wire import WireRequest

# Paths whose requests are for text: they have samplings, caps and streams that are understood.
GENERATING = frozenset({"chat/completions", "completions"})

# Every name that some server has for it: one that is overlooked would be a way round a limit.
_CAPS = (
    "max_completion_tokens",
    "max_tokens",
    "max_output_tokens",
    "max_new_tokens",
    "n_predict",
)
# Where a cap is written when the client set none.
_CAP_OF = {"completions": "max_tokens", "responses": "max_output_tokens", "messages": "max_tokens"}
# Our word -> the dialect's.
SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
}
_NULL = b"null"
_NOTHING = Sampling()

Fields = dict[str, Raw]

_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_options = msgspec.json.Decoder(Fields | None).decode
_encode = msgspec.json.Encoder().encode


class Edited(Struct, frozen=True, kw_only=True):
    """A body as the upstream gets it."""

    body: bytes
    public_model: str | None  # what the client called the model
    streams: bool
    hides_usage: bool  # the counts were asked for by us, so the client is not to see them


class Edits(Struct, frozen=True, kw_only=True):
    """How one upstream wants things said."""

    ask_for_usage: bool = True
    cap_field: str = "max_tokens"  # of chat


def edited(request: GenerateRequest, wire: WireRequest, edits: Edits) -> Edited:
    """The client's body with the target's model and what policy changed.

    Raises `RequestRefused` for a `stream` or `stream_options` that cannot be understood: how the
    answer is read and counted follows from them, so no upstream's own reading of them will do.
    """
    if not wire.body:
        return Edited(body=b"", public_model=None, streams=False, hides_usage=False)
    fields = _decode_fields(wire.body)
    public_model = _text(fields, "model")
    if public_model is not None:
        fields["model"] = Raw(_encode(request.model))
    _cap(fields, request.max_tokens, _CAP_OF.get(wire.path) or _chat_cap(wire.path, edits))
    streams = _is(fields, "stream", b"true")
    hides_usage = False
    if wire.path in GENERATING:
        if not (streams or _is(fields, "stream", b"false") or _is_missing(fields, "stream")):
            raise RequestRefused("stream must be true or false", param="stream")
        _fill(fields, request)
        if streams and edits.ask_for_usage:
            hides_usage = _ask_for_usage(fields)
    return Edited(
        body=_encode(fields), public_model=public_model, streams=streams, hides_usage=hides_usage
    )


def with_model(body: bytes, model: str) -> tuple[bytes, str | None]:
    """The body with another model in it, and the one that it had."""
    fields = _decode_fields(body)
    had = _text(fields, "model")
    fields["model"] = Raw(_encode(model))
    return _encode(fields), had


def _cap(fields: Fields, max_tokens: int | None, where: str | None) -> None:
    """Let the body allow no more tokens than policy does."""
    if max_tokens is None:
        return
    cap = b"%d" % max_tokens
    present = [name for name in _CAPS if not _is_missing(fields, name)]
    for name in present:
        # Zero, or a negative number, is some servers' word for "no limit". A number with more
        # digits is larger; Python makes no number of very many.
        number = bytes(fields[name])
        is_short = number.isdigit() and len(number) <= len(cap)
        if not is_short or not 1 <= int(number) <= max_tokens:
            fields[name] = Raw(cap)
    if not present and where is not None:
        fields[where] = Raw(cap)


def _chat_cap(path: str, edits: Edits) -> str | None:
    return edits.cap_field if path == "chat/completions" else None


def _fill(fields: Fields, request: GenerateRequest) -> None:
    """Write the defaults that the model's policy has for what the client left open."""
    sampling = request.sampling
    if sampling == _NOTHING:
        return
    for ours, theirs in SAMPLING.items():
        value = getattr(sampling, ours)
        if value is not None and _is_missing(fields, theirs):
            fields[theirs] = Raw(_encode(value))


def _ask_for_usage(fields: Fields) -> bool:
    """Ask for token counts at the end of the stream; False if the client already has."""
    options: Mapping[str, Raw] = {}
    if "stream_options" in fields:
        try:
            options = _decode_options(fields["stream_options"]) or {}
        except msgspec.ValidationError:
            words = "stream_options must be an object or null"
            raise RequestRefused(words, param="stream_options") from None
    if _is(options, "include_usage", b"true"):
        return False
    fields["stream_options"] = Raw(_encode({**options, "include_usage": True}))
    return True


def _is(fields: Mapping[str, Raw], name: str, value: bytes) -> bool:
    return name in fields and bytes(fields[name]) == value


def _is_missing(fields: Mapping[str, Raw], name: str) -> bool:
    return name not in fields or bytes(fields[name]) == _NULL


def _text(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    return msgspec.json.decode(value, type=str) if value is not None else None
