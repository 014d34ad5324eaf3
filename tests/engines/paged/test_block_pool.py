import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.paged.block_pool import DIGEST_BYTES, BlockPool, extend_digests
from engines.paged.sequence import Sequence
from tests.engines.paged.steps import sequence


def computed(pool: BlockPool, prompt: list[int], **fields: object) -> Sequence:
    """A sequence that ran alone and whose blocks were published."""
    one = sequence(prompt, **fields)
    pool.begin_plan()
    seat(pool, one)
    pool.publish(one, len(prompt))
    pool.end_plan()
    pool.begin_plan()
    return one


def seat(pool: BlockPool, one: Sequence) -> None:
    room = pool.find_room(one)
    assert room is not None
    one.blocks, one.num_computed, one.num_published = room.blocks, room.num_cached, room.num_shared


def digests(tokens: list[int], *, block_size: int = 4, salt: str = "") -> list[bytes]:
    chain: list[bytes] = []
    extend_digests(chain, tokens, block_size, salt)
    return chain


def test_a_pool_that_holds_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 blocks"):
        BlockPool(0, 16)
    with pytest.raises(ValueError, match="0 tokens"):
        BlockPool(16, 0)


def test_what_does_not_fit_changes_nothing() -> None:
    pool = BlockPool(4, 4)
    held = pool.take([], 3)

    assert pool.take([], 2) is None
    assert pool.take([], 1, spare=1) is None

    assert held is not None
    assert pool.num_in_use == 3
    pool.check([held])


def test_a_block_is_free_again_when_its_last_user_gives_it_back() -> None:
    pool = BlockPool(4, 4)
    first = pool.take([], 2)
    assert first is not None
    assert pool.take(first[:1], 0) == []

    pool.release(first)
    assert pool.num_in_use == 1
    pool.release(first[:1])

    assert (pool.num_in_use, pool.num_available, pool.used) == (0, 4, 0.0)


def test_a_prompt_that_begins_like_an_earlier_one_shares_its_full_blocks() -> None:
    pool = BlockPool(20, 4)
    earlier = computed(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])

    room = pool.find_room(sequence([1, 2, 3, 4, 5, 6, 7, 8, 30, 31]))

    assert room is not None
    assert room.blocks[:2] == earlier.blocks[:2]
    assert (room.num_shared, room.num_cached, room.copy) == (2, 8, None)
    pool.check([earlier.blocks, room.blocks])


def test_an_idle_block_is_found_again() -> None:
    pool = BlockPool(20, 4)
    earlier = computed(pool, list(range(9)))
    blocks = earlier.blocks
    pool.release(blocks)
    assert (pool.num_in_use, pool.num_idle) == (0, 2)

    room = pool.find_room(sequence(range(9)))

    assert room is not None
    assert room.blocks[:2] == blocks[:2]
    pool.check([room.blocks])


def test_a_prompt_that_is_cached_whole_computes_its_last_token_in_a_copy() -> None:
    pool = BlockPool(20, 4)
    earlier = computed(pool, list(range(8)))

    room = pool.find_room(sequence(range(8)))
    pool.end_plan()

    assert room is not None
    assert room.num_cached == 7
    assert room.blocks[0] == earlier.blocks[0]
    assert room.blocks[1] != earlier.blocks[1]
    assert room.copy == (earlier.blocks[1], room.blocks[1])
    pool.check([earlier.blocks, room.blocks])


def test_the_source_of_a_copy_is_not_given_away_while_its_plan_is_made() -> None:
    pool = BlockPool(5, 4)
    earlier = computed(pool, list(range(8)))
    source = earlier.blocks[1]
    pool.release(earlier.blocks)

    pool.begin_plan()
    room = pool.find_room(sequence(range(8)))
    assert room is not None
    assert room.copy == (source, room.blocks[1])
    rest = [pool.take_one() for _ in range(3)]
    assert source not in rest
    assert rest[2] is None
    pool.end_plan()

    assert pool.take_one() == source


def test_without_a_block_for_the_copy_the_last_block_is_computed_again() -> None:
    pool = BlockPool(2, 4)
    pool.release(computed(pool, list(range(8))).blocks)

    room = pool.find_room(sequence(range(8)))

    assert room is not None
    assert (room.num_shared, room.num_cached, room.copy) == (1, 4, None)


def test_a_block_that_the_same_plan_fills_is_shared_but_never_copied() -> None:
    pool = BlockPool(20, 4)
    pool.begin_plan()
    first = sequence(range(8))
    seat(pool, first)
    pool.publish(first, 8)

    room = pool.find_room(sequence(range(8)))

    assert room is not None
    assert (room.num_shared, room.num_cached, room.copy) == (1, 4, None)


def test_the_least_recently_used_goes_first_and_the_end_of_a_chain_before_its_beginning() -> None:
    pool = BlockPool(4, 4)
    old, new = computed(pool, list(range(8))), computed(pool, list(range(50, 58)))
    old_blocks, new_blocks = old.blocks, new.blocks
    pool.release(old_blocks)
    pool.release(new_blocks)

    evicted = [pool.take_one() for _ in range(4)]

    assert evicted == [old_blocks[1], old_blocks[0], new_blocks[1], new_blocks[0]]


def test_another_salt_finds_nothing() -> None:
    pool = BlockPool(20, 4)
    computed(pool, list(range(8)), cache_salt="team-a")

    room = pool.find_room(sequence(range(8), cache_salt="team-b"))

    assert room is not None
    assert room.num_cached == 0


def test_a_sequence_may_ask_to_be_computed_whole() -> None:
    pool = BlockPool(20, 4)
    computed(pool, list(range(8)))

    room = pool.find_room(sequence(range(8), reads_cache=False))

    assert room is not None
    assert room.num_cached == 0


def test_without_prefix_caching_nothing_is_kept() -> None:
    pool = BlockPool(20, 4, enable_prefix_caching=False)
    earlier = computed(pool, list(range(8)))
    pool.release(earlier.blocks)

    room = pool.find_room(sequence(range(8)))

    assert room is not None
    assert (room.num_cached, pool.num_idle) == (0, 0)
    assert earlier.digests == []


def test_what_was_forgotten_is_not_found() -> None:
    pool = BlockPool(20, 4)
    kept, idle = computed(pool, list(range(8))), computed(pool, list(range(50, 58)))
    pool.release(idle.blocks)

    pool.forget()

    pool.check([kept.blocks])
    room = pool.find_room(sequence(range(8)))
    assert room is not None
    assert (room.num_cached, pool.num_idle) == (0, 0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda pool, blocks: blocks.pop(),
        lambda pool, blocks: pool.release(blocks),
        lambda pool, blocks: pool._free.pop(),
        lambda pool, blocks: pool._free.append(blocks[0]),
        lambda pool, blocks: pool._digests.clear(),
    ],
)
def test_the_check_finds_what_is_wrong(damage: object) -> None:
    pool = BlockPool(8, 4)
    one = computed(pool, list(range(8)))
    pool.check([one.blocks])

    damage(pool, one.blocks)  # type: ignore[operator]

    with pytest.raises(AssertionError):
        pool.check([one.blocks])


def test_digests_grow_with_the_tokens_and_never_change() -> None:
    chain = digests(list(range(9)))
    assert [len(digest) for digest in chain] == [DIGEST_BYTES] * 2

    longer = list(chain)
    extend_digests(longer, list(range(20)), 4, "")

    assert longer[:2] == chain
    assert longer == digests(list(range(20)))


prompts = st.lists(st.integers(0, 3), max_size=12)
salts = st.text(max_size=2)


@given(prompts, prompts, salts, salts)
def test_digests_are_equal_only_for_the_same_beginning_under_the_same_salt(
    one: list[int], other: list[int], salt: str, other_salt: str
) -> None:
    pairs = zip(
        digests(one, block_size=2, salt=salt),
        digests(other, block_size=2, salt=other_salt),
        strict=False,
    )
    for number, (first, second) in enumerate(pairs, 1):
        is_same = one[: 2 * number] == other[: 2 * number] and salt == other_salt
        assert (first == second) == is_same


def test_a_salt_that_is_no_unicode_is_a_salt_too() -> None:
    assert digests(list(range(4)), salt="\ud800") != digests(list(range(4)))
