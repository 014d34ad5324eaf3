"""Turns a caller's picture into pixels, within bounds that are checked before it is unpacked.

A file of a few kilobytes may unpack to gigabytes. So its header is read first, by a decoder
for one of four known formats, and what is too large goes no further. Runs in a thread.
"""

import io
import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures
from PIL import ImageOps, UnidentifiedImageError

from engines.errors import RequestRefused

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_SIDE = 16_384
_WHITE = (255, 255, 255, 255)


class Pixels(NamedTuple):
    """A picture as rows of red, green and blue, one byte each."""

    data: npt.NDArray[np.uint8]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.data.shape[1]

    @property
    def height(self) -> int:
        """In pixels."""
        return self.data.shape[0]


def read_picture(data: bytes, *, max_pixels: int) -> Pixels:
    """The picture upright and on white, its first frame. Raises `RequestRefused`."""
    with warnings.catch_warnings():
        # Pillow's own warning of large pictures: there is a bound of ours.
        warnings.simplefilter("ignore", Pictures.DecompressionBombWarning)
        try:
            with Pictures.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_size(picture.width, picture.height, max_pixels)
                upright = ImageOps.exif_transpose(picture)
                return Pixels(np.array(_on_white(upright), dtype=np.uint8))
        except UnidentifiedImageError:
            raise _refused(f"an image is none of {', '.join(FORMATS)}") from None
        except Pictures.DecompressionBombError:
            raise _refused(f"an image is larger than {max_pixels} pixels") from None
        except RequestRefused:
            raise
        # What a decoder raises for a broken file is of any kind, and none is a fault of ours.
        except Exception as error:  # noqa: BLE001
            raise _refused(f"an image cannot be read: {type(error).__name__}") from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > max_pixels:
        raise _refused(
            f"an image is {width} x {height} pixels; at most {max_pixels} are read, and "
            f"{MAX_SIDE} on a side: send a smaller one"
        )
    if not width or not height:
        raise _refused("an image has no pixels")


def _on_white(picture: "Pictures.Image") -> "Pictures.Image":
    if picture.has_transparency_data:
        colored = picture.convert("RGBA")
        ground = Pictures.new("RGBA", colored.size, _WHITE)
        return Pictures.alpha_composite(ground, colored).convert("RGB")
    return picture.convert("RGB")


def _refused(reason: str) -> RequestRefused:
    return RequestRefused(reason, param="messages")
