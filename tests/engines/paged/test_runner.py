"""The masks of a step, as its sampling takes them."""

import numpy as np
import pytest

from engines.paged.runner import mask_bits
from engines.paged.sequence import Row
from tests.engines.paged.steps import sequence

EVERYTHING = -1


def rows_of(*samples: bool) -> list[Row]:
    return [Row(sequence(3), 0, 3, samples=does) for does in samples]


def test_a_mask_goes_to_its_row_and_the_others_may_say_anything() -> None:
    masks = {2: np.array([5, 9], dtype=np.uint32)}

    bits = mask_bits(rows_of(True, False, True, True), masks, 64)

    assert bits is not None
    assert bits.tolist() == [[EVERYTHING] * 2, [5, 9], [EVERYTHING] * 2]


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_tokens_that_the_tokenizer_does_not_have_are_banned(length: int) -> None:
    masks = {0: np.full(length, 2**32 - 1, dtype=np.uint32)}

    bits = mask_bits(rows_of(True), masks, 90)

    assert bits is not None
    assert bits.tolist() == [([EVERYTHING] * min(length, 3) + [0, 0])[:3]]


def test_without_masks_there_is_nothing_to_copy() -> None:
    assert mask_bits(rows_of(True, True), {}, 64) is None
