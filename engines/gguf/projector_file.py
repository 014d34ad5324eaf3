"""A vision projector's file: what turns pictures into what a model reads as tokens.

Its header is checked before llama.cpp sees the file, whose reader of these trusts most of it.
"""

from pathlib import Path

from engines.gguf.byte_reader import MalformedGguf, malformed
from engines.gguf.file_format import GgufFile, read_file

MAX_BLOCKS = 512
MAX_WIDTH = 2**16
MAX_SIDE = 2**13
_NUMBERS = {
    "image_size": MAX_SIDE,
    "patch_size": MAX_SIDE,
    "embedding_length": MAX_WIDTH,
    "feed_forward_length": 2**20,
    "block_count": MAX_BLOCKS,
    "attention.head_count": MAX_WIDTH,
    "projection_dim": 2**20,
}


def check_projector(path: Path) -> None:
    """Refuse, with `MalformedGguf`, what is no vision projector."""
    file = read_file(path)
    said = file.scalars
    if said.get("general.architecture") != "clip" or not file.tensors:
        raise MalformedGguf(f"{file.name}: is no vision projector")
    if said.get("clip.has_vision_encoder") is not True:
        raise MalformedGguf(f"{file.name}: is a projector, but not for pictures")
    for name, most in _NUMBERS.items():
        _check_number(file, f"clip.vision.{name}", most)
    width = said["clip.vision.embedding_length"]
    heads = said["clip.vision.attention.head_count"]
    assert isinstance(width, int) and isinstance(heads, int)
    if width % heads and "clip.vision.attention.key_length" not in said:
        expected = f"a divisor of embedding_length {width}"
        raise malformed(file.name, "clip.vision.attention.head_count", heads, expected)
    if said["clip.vision.patch_size"] > said["clip.vision.image_size"]:  # type: ignore[operator]
        shown = said["clip.vision.patch_size"]
        raise malformed(file.name, "clip.vision.patch_size", shown, "at most image_size")


def _check_number(file: GgufFile, key: str, most: int) -> None:
    value = file.scalars.get(key)
    least = 0 if key.endswith("feed_forward_length") else 1  # some old files have 0 there
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise malformed(file.name, key, "missing" if value is None else value, f"{least} to {most}")
