import random

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.gguf.slots import MIN_COPIED_TOKENS, Slots, common_prefix

LONG = MIN_COPIED_TOKENS * 4


def hold(slots: Slots, tokens: list[int], salt: str = "") -> int:
    """Let a prompt run and end; its slot keeps the tokens."""
    placement = slots.place(tokens, salt)
    assert placement is not None
    slots.grow(placement.slot, tokens[placement.num_cached :])
    slots.release(placement.slot)
    return placement.slot


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_the_common_prefix_is_what_a_loop_finds(left: list[int], right: list[int]) -> None:
    expected = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        expected += 1

    assert common_prefix(left, right) == expected


def test_a_prompt_goes_on_in_the_slot_that_holds_its_beginning() -> None:
    slots = Slots(4, pool_tokens=1000)
    slot = hold(slots, list(range(50)))

    placement = slots.place(list(range(60)), "")

    assert placement is not None
    assert (placement.slot, placement.num_cached, placement.source) == (slot, 50, None)


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    slots = Slots(4, pool_tokens=1000)
    hold(slots, list(range(50)))

    placement = slots.place(list(range(50)), "")

    assert placement is not None
    assert placement.num_cached == 49


def test_prompts_of_different_salts_share_nothing() -> None:
    slots = Slots(4, pool_tokens=1000)
    hold(slots, list(range(50)), "blue")

    placement = slots.place(list(range(60)), "red")

    assert placement is not None
    assert placement.num_cached == 0


def test_a_running_sequence_lends_its_prefix() -> None:
    slots = Slots(4, pool_tokens=4000)
    running = slots.place(list(range(LONG)), "")
    assert running is not None
    slots.grow(running.slot, list(range(LONG)))

    placement = slots.place([*range(LONG), 7, 7], "")

    assert placement is not None
    assert placement.source == running.slot
    assert placement.slot != running.slot
    assert placement.num_cached == LONG


def test_a_cache_of_which_little_is_wanted_is_kept_for_others() -> None:
    slots = Slots(4, pool_tokens=4000)
    slot = hold(slots, list(range(LONG)))

    placement = slots.place([*range(MIN_COPIED_TOKENS), 9999], "")

    assert placement is not None
    assert (placement.source, placement.num_cached) == (slot, MIN_COPIED_TOKENS)
    assert slots[slot].tokens == list(range(LONG))


def test_an_idle_cache_makes_room_and_the_oldest_goes_first() -> None:
    slots = Slots(3, pool_tokens=100)
    oldest = hold(slots, [1] * 40)
    hold(slots, [2] * 40)

    placement = slots.place([3] * 50, "")

    assert placement is not None
    assert placement.evicted == [oldest]


def test_what_does_not_fit_beside_the_running_is_not_placed() -> None:
    slots = Slots(3, pool_tokens=100)
    assert slots.place([1] * 60, "") is not None

    assert not slots.fits(60)
    assert slots.place([2] * 60, "") is None


def test_a_cache_that_cannot_be_cut_is_reused_whole_or_not_at_all() -> None:
    slots = Slots(2, pool_tokens=1000, can_cut=False)
    hold(slots, list(range(50)))

    longer = slots.place(list(range(70)), "")
    assert longer is not None
    assert longer.num_cached == 50
    slots.release(longer.slot)
    assert slots[longer.slot].tokens == list(range(50))

    shorter = slots.place(list(range(40)), "")
    assert shorter is not None
    assert shorter.num_cached == 0


def test_slots_that_are_computed_together_are_kept_together() -> None:
    slots = Slots(8, pool_tokens=4000, keeps_together=True)
    placed = [slots.place([at] * 10, "") for at in range(4)]
    slots.release(1)

    again = [slots.place([at] * 10, "") for at in (50, 51)]

    assert [placement.slot for placement in placed if placement] == [0, 1, 2, 3]
    assert sorted(placement.slot for placement in again if placement) == [1, 4]


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_whatever_happens_slots_are_not_shared_and_the_pool_is_not_overdrawn(seed: int) -> None:
    random_ = random.Random(seed)
    num_slots, pool_tokens = random_.randint(1, 5), random_.randint(40, 400)
    slots = Slots(
        num_slots,
        pool_tokens=pool_tokens,
        can_cut=random_.random() < 0.7,
        keeps_together=random_.random() < 0.5,
    )
    running: dict[int, tuple[list[int], str]] = {}
    for _ in range(40):
        action = random_.random()
        if action < 0.5:
            tokens = [random_.randint(0, 1)] * random_.randint(1, 120)
            salt = random_.choice(["", "red"])
            fits = slots.fits(len(tokens))
            held = {slot: (list(slots[slot].tokens), slots[slot].salt) for slot in range(num_slots)}
            placement = slots.place(tokens, salt)
            assert (placement is not None) == fits
            if placement is None:
                continue
            assert placement.slot not in running
            cached = tokens[: placement.num_cached]
            assert placement.num_cached < len(tokens)
            source = placement.slot if placement.source is None else placement.source
            if cached:
                assert held[source] == (held[source][0], salt)
                assert held[source][0][: len(cached)] == cached
                assert source not in placement.evicted
            assert not set(placement.evicted) & running.keys()
            slots.grow(placement.slot, tokens[placement.num_cached :])
            running[placement.slot] = (tokens, salt)
        elif action < 0.75 and running:
            slot = random_.choice(list(running))
            slots.release(slot)
            del running[slot]
        elif running:
            slot = random_.choice(list(running))
            count = random_.randint(1, 20)
            evicted = slots.make_room(count)
            if evicted is not None:
                assert not set(evicted) & running.keys()
                slots.grow(slot, [5] * count)
                running[slot] = (running[slot][0] + [5] * count, running[slot][1])
        assert slots.used_tokens <= pool_tokens
        for slot, (tokens, salt) in running.items():
            assert (slots[slot].tokens, slots[slot].salt) == (tokens, salt)
