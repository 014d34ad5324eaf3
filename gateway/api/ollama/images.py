"""Pictures in requests: base64 without a word about their kind, which their first bytes tell."""

import base64
import binascii
from collections.abc import Sequence

from engines.protocol import Image
from gateway.errors import BadRequest

MAX_IMAGES = 64
_MARKS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


def to_images(given: Sequence[str] | None, field: str) -> list[Image]:
    """The pictures. Raises `BadRequest` that names the one that is none."""
    if given is not None and len(given) > MAX_IMAGES:
        raise BadRequest(f"{field} has {len(given)} entries; at most {MAX_IMAGES}", param=field)
    return [_image(text, f"{field}[{place}]") for place, text in enumerate(given or ())]


def _image(text: str, field: str) -> Image:
    if text.startswith("data:"):  # some clients hand on what a page gave them
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{field} is not valid base64: {error}", param=field) from None
    for mark, media_type in _MARKS:
        if data.startswith(mark):
            return Image(data=data, media_type=media_type)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return Image(data=data, media_type="image/webp")
    raise BadRequest(f"{field} is no PNG, JPEG, GIF or WebP picture", param=field)
