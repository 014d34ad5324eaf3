"""How an image stands among a prompt's tokens.

An image is computed as so many embeddings, and in a sequence each of them is one entry with
the same negative number, made of the image's hash: so prompts share a prefix with an image in
it if it is the same image, and everything that counts tokens counts these. The number says of
itself how many entries the image has, and how many positions it takes (with M-RoPE these are
fewer: Wang et al., Qwen2-VL, 2024, 2.1).
"""

from collections.abc import Iterator, Sequence

_BITS = 24
_MASK = (1 << _BITS) - 1
MAX_IMAGE_TOKENS = _MASK


def image_token(digest: bytes, num_tokens: int, num_positions: int) -> int:
    """The entry that stands for each embedding of an image."""
    if not (0 < num_tokens <= MAX_IMAGE_TOKENS and 0 < num_positions <= num_tokens):
        raise ValueError(f"an image of {num_tokens} tokens and {num_positions} positions")
    name = int.from_bytes(digest[:16], "big")
    return -((name << 2 * _BITS) | (num_tokens << _BITS) | num_positions)


def num_tokens_of(token: int) -> int:
    """How many entries in a row the image of this one has."""
    return (-token >> _BITS) & _MASK


def num_positions_of(token: int) -> int:
    """How many positions the whole image takes."""
    return -token & _MASK


def images_in(tokens: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where each image begins, and its entry; the last may be cut off."""
    if not tokens or min(tokens) >= 0:
        return
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token < 0:
            yield at, token
            at += max(1, num_tokens_of(token))
        else:
            at += 1


def position_of(tokens: Sequence[int], index: int) -> int:
    """The position of entry `index`, which is not inside of an image."""
    saved = sum(
        num_tokens_of(token) - num_positions_of(token)
        for start, token in images_in(tokens)
        if start < index
    )
    return index - saved


def whole_images(tokens: Sequence[int], length: int) -> int:
    """`length`, or less, so that no image of `tokens` is cut there."""
    if length >= len(tokens) or tokens[length] >= 0:
        return length
    for start, token in images_in(tokens):
        if start < length < start + num_tokens_of(token):
            return start
    return length
