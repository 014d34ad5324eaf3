"""Pictures are read upright, on white, within bounds, and refused whatever is wrong with them."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from engines.errors import RequestRefused
from engines.gguf.pictures import read_picture
from tests.engines.gguf.projector_files import picture

MOST = 10_000


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_every_format_gives_its_pixels(kind: str) -> None:
    pixels = read_picture(picture(200, kind=kind), max_pixels=MOST)

    assert (pixels.width, pixels.height, pixels.data.dtype) == (40, 30, np.uint8)
    assert abs(int(pixels.data[2, 2, 0]) - 200) < 12


def test_what_is_transparent_is_white_and_gray_has_three_colors() -> None:
    clear = saved(Image.new("RGBA", (3, 2), (10, 20, 30, 0)), "PNG")
    gray = saved(Image.new("L", (3, 2), 77), "PNG")

    assert read_picture(clear, max_pixels=MOST).data.tolist() == [[[255] * 3] * 3] * 2
    assert read_picture(gray, max_pixels=MOST).data.tolist() == [[[77] * 3] * 3] * 2


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    photograph = saved(Image.new("RGB", (20, 10)), "JPEG", exif=exif)

    pixels = read_picture(photograph, max_pixels=MOST)

    assert (pixels.width, pixels.height) == (10, 20)


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says that it is this large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "size", [(101, 100), (2**31 - 1, 2**31 - 1), (20_000, 0), (60_000, 60_000)]
)
def test_a_picture_that_is_too_large_is_refused_before_it_is_unpacked(
    size: tuple[int, int],
) -> None:
    with pytest.raises(RequestRefused, match=r"pixels|cannot be read|none of"):
        read_picture(claiming(*size), max_pixels=MOST)


def test_other_formats_are_not_looked_at() -> None:
    for kind in ("BMP", "TIFF", "ICO", "PPM"):
        with pytest.raises(RequestRefused, match="none of PNG, JPEG, WEBP, GIF"):
            read_picture(saved(Image.new("RGB", (8, 8)), kind), max_pixels=MOST)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_broken_pictures_are_read_or_refused(kind: str) -> None:
    whole = picture(90, kind=kind)
    dice = random.Random(kind)
    num_refused = 0
    for _ in range(150):
        broken = bytearray(whole[: dice.randrange(1, len(whole) + 1)])
        for _ in range(dice.randrange(4)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        try:
            read_picture(bytes(broken), max_pixels=MOST)
        except RequestRefused as refused:
            assert refused.param == "messages"
            num_refused += 1
    assert num_refused > 30
