"""`context` of /api/generate: the conversation so far, as a list of integers.

At Ollama these are token ids, good for one model. Here they are the conversation's
own text in another form, three bytes to a number: it goes on with any model, is
rendered by the model's template like any chat, and needs nothing to be kept here.
A client hands the list back as it came.
"""

import zlib
from collections.abc import Sequence

import msgspec

from engines.protocol import Message, Text
from gateway.errors import BadRequest

MAX_CONTEXT = 2_000_000  # numbers; three bytes each
_MARK = 0x50454E  # what a list of ours begins with
_STEP = 3
_MAX_NUMBER = 1 << 24
_TURNS = msgspec.json.Decoder(list[tuple[str, str]])


def to_context(messages: Sequence[Message], answer: str) -> list[int]:
    """The numbers for a conversation and the answer that it got; pictures are left out."""
    turns = [*((message.role, message.text) for message in messages), ("assistant", answer)]
    content = msgspec.json.encode(turns)
    padded = content + b" " * (-len(content) % _STEP)
    numbers = [
        int.from_bytes(padded[at : at + _STEP], "big") for at in range(0, len(padded), _STEP)
    ]
    return [_MARK, zlib.crc32(padded) % _MAX_NUMBER, *numbers]


def from_context(numbers: Sequence[int]) -> list[Message]:
    """The conversation. Raises `BadRequest` for a list that is not one of ours."""
    if len(numbers) > MAX_CONTEXT:
        raise BadRequest(f"context has over {MAX_CONTEXT} numbers", param="context")
    if len(numbers) < 3 or numbers[0] != _MARK or not all(0 <= n < _MAX_NUMBER for n in numbers):
        raise _unknown()
    content = b"".join(number.to_bytes(_STEP, "big") for number in numbers[2:])
    if zlib.crc32(content) % _MAX_NUMBER != numbers[1]:
        raise _unknown()
    try:
        turns = _TURNS.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unknown() from None
    return [Message(role=role, parts=[Text(text)]) for role, text in turns]


def _unknown() -> BadRequest:
    return BadRequest(
        "context is not what an earlier answer of this server held: send that back as it came, or "
        "begin anew without it",
        param="context",
    )
