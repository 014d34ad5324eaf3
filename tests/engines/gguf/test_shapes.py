from typing import NamedTuple

import pytest

from engines.gguf.config import GgufConfig
from engines.gguf.shapes import cache_bytes, embedding_shape, generation_shape

MIB = 2**20


class Size(NamedTuple):
    """A model as far as its cache's size goes."""

    trained_tokens: int
    cache_bytes_per_token: int


STARTER = Size(2048, 2048)
SMALL = Size(8192, 12 * 1024)  # 125 million weights
LARGE = Size(131_072, 128 * 1024)  # eight thousand million


def test_a_small_cache_is_exact_with_sixteen_slots() -> None:
    shape = generation_shape(STARTER, GgufConfig())

    assert (shape.exact, shape.num_slots, shape.pool_tokens) == (True, 16, 16 * 2048)


def test_a_large_one_is_shared_and_takes_less_than_slots_of_their_own_would() -> None:
    shape = generation_shape(SMALL, GgufConfig())

    assert (shape.exact, shape.num_slots, shape.pool_tokens) == (False, 16, 2 * 8192)
    assert cache_bytes(SMALL, shape) == 192 * MIB


@pytest.mark.parametrize(
    ("context_tokens", "pool_tokens"),
    [(8192, 2 * 8192), (16_384, 2 * 16_384), (131_072, 131_072 + 16_384)],
)
def test_the_pool_holds_one_longest_sequence_and_others_of_which_few_are(
    context_tokens: int, pool_tokens: int
) -> None:
    shape = generation_shape(LARGE, GgufConfig(context_tokens=context_tokens))

    assert (shape.context_tokens, shape.pool_tokens) == (context_tokens, pool_tokens)


def test_one_slot_needs_room_for_one() -> None:
    shape = generation_shape(LARGE, GgufConfig(context_tokens=4096, num_slots=1))

    assert (shape.num_slots, shape.pool_tokens) == (1, 4096)


def test_a_small_pool_has_fewer_slots_unless_their_number_is_said() -> None:
    small = GgufConfig(cache="shared", context_tokens=512, pool_tokens=1024)
    said = GgufConfig(cache="shared", context_tokens=512, pool_tokens=1024, num_slots=16)

    assert generation_shape(LARGE, small).num_slots == 4
    assert generation_shape(LARGE, said).num_slots == 16


def test_exact_caches_are_made_where_they_are_asked_for_whatever_they_take() -> None:
    shape = generation_shape(SMALL, GgufConfig(cache="exact", num_slots=2))

    assert (shape.exact, shape.num_slots, shape.pool_tokens) == (True, 2, 2 * 8192)


def test_the_embedding_context_takes_several_inputs_at_once() -> None:
    shape = embedding_shape(LARGE, GgufConfig())

    assert (shape.num_slots, shape.context_tokens) == (16, 2048)
