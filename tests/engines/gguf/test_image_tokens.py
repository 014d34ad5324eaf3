"""An image stands in a row of tokens by a number that says of itself how long it is."""

import pytest

from engines.gguf.image_tokens import (
    image_token,
    images_in,
    num_positions_of,
    num_tokens_of,
    position_of,
    whole_images,
)

WIDE = image_token(b"w" * 32, 5, 5)
SQUARE = image_token(b"s" * 32, 4, 2)  # as M-RoPE has it
TOKENS = [1, 2, *[WIDE] * 5, 3, *[SQUARE] * 8, 4]  # the square one twice in a row


def test_it_says_how_many_tokens_and_positions_it_has() -> None:
    assert SQUARE < 0
    assert (num_tokens_of(SQUARE), num_positions_of(SQUARE)) == (4, 2)
    assert image_token(b"s" * 32, 4, 2) == SQUARE != image_token(b"t" * 32, 4, 2)
    for wrong in ((0, 0), (2**24, 1), (2, 3)):
        with pytest.raises(ValueError, match="an image of"):
            image_token(b"s" * 32, *wrong)


def test_images_are_found_where_they_begin() -> None:
    assert list(images_in(TOKENS)) == [(2, WIDE), (8, SQUARE), (12, SQUARE)]
    assert list(images_in([1, 2, 3])) == []
    assert list(images_in(TOKENS[:4])) == [(2, WIDE)]


def test_positions_go_on_after_what_an_image_takes() -> None:
    assert [position_of(TOKENS, index) for index in (0, 2, 7, 8, 12, 16, 17)] == [
        0, 2, 7, 8, 10, 12, 13,
    ]  # fmt: skip
    assert position_of(TOKENS[:8], 8) == 8


def test_a_prefix_ends_before_an_image_or_after_it() -> None:
    whole = [whole_images(TOKENS, length) for length in range(len(TOKENS) + 1)]

    assert whole == [0, 1, 2, 2, 2, 2, 2, 7, 8, 8, 8, 8, 12, 12, 12, 12, 16, 17]
