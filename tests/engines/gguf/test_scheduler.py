import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.gguf.saved_caches import SavedCaches
from engines.gguf.scheduler import TILED_FROM, Scheduler
from engines.gguf.sequence import Sequence, Work
from engines.gguf.slots import Slots
from engines.outbox import Mailbox


@dataclass
class RecordedCache:
    """A KV cache that knows which tokens each slot holds."""

    slots: dict[int, list[int]] = field(default_factory=dict)
    saved: dict[int, tuple[bytes, list[int]]] = field(default_factory=dict)
    restores: bool = True

    def clear(self, slot: int, /) -> None:
        self.slots[slot] = []

    def truncate(self, slot: int, length: int, /) -> bool:
        del self.slots.setdefault(slot, [])[length:]
        return True

    def copy_prefix(self, source: int, target: int, length: int, /) -> None:
        assert not self.slots.get(target), "the target must be empty"
        self.slots[target] = self.slots[source][:length]

    def save(self, slot: int, max_bytes: int, /) -> bytes | None:
        state = bytes(len(self.slots[slot]))
        self.saved[id(state)] = (state, list(self.slots[slot]))
        return state if len(state) <= max_bytes else None

    def restore(self, slot: int, state: bytes, tokens: list[int], /) -> bool:
        assert not self.slots.get(slot), "the slot must be empty"
        assert self.saved[id(state)][1] == tokens
        if not self.restores:
            return False
        self.slots[slot] = list(tokens)
        return True

    def compute(self, works: list[Work]) -> None:
        for work in works:
            assert work.sequence.slot is not None
            held = self.slots.setdefault(work.sequence.slot, [])
            assert len(held) == work.start, "a batch must go on where the cache ends"
            held.extend(work.tokens)


def sequence(num_tokens: int, *, max_tokens: int = 8, **fields: object) -> Sequence:
    return Sequence(
        tokens=list(range(num_tokens)), max_tokens=max_tokens, mailbox=Mailbox(), **fields
    )


def scheduler_of(
    num_slots: int = 4,
    pool_tokens: int = 1000,
    *,
    saved: SavedCaches | None = None,
    idle_tokens: int | None = None,
    tile_rows: int | None = None,
) -> tuple[Scheduler, RecordedCache]:
    cache = RecordedCache()
    slots = Slots(num_slots, pool_tokens=pool_tokens, idle_tokens=idle_tokens)
    caches = None if saved is None else saved.of("model")
    scheduler = Scheduler(
        slots, cache, context_tokens=pool_tokens, saved=caches, tile_rows=tile_rows
    )
    return scheduler, cache


def step(
    scheduler: Scheduler, cache: RecordedCache, *, max_tokens: int = 64, prompt_share: int = 64
) -> list[Work]:
    """Admit, plan and compute one step; every sequence that is due a token gets token 7."""
    scheduler.admit()
    works = scheduler.plan(max_tokens, prompt_share)
    cache.compute(works)
    scheduler.commit(works)
    for work in works:
        if work.start + work.count == len(work.sequence.tokens):
            scheduler.append(work.sequence, 7)
            if scheduler.is_out_of_room(work.sequence):
                scheduler.drop(work.sequence)
    return works


def test_a_long_prompt_is_computed_in_chunks_behind_running_answers() -> None:
    scheduler, cache = scheduler_of()
    running, long = sequence(3), sequence(200)
    scheduler.add(running)
    step(scheduler, cache)
    scheduler.add(long)

    works = step(scheduler, cache, max_tokens=64, prompt_share=16)

    assert [(work.sequence, work.count) for work in works] == [(running, 1), (long, 16)]


def test_a_prompt_alone_takes_the_whole_step() -> None:
    scheduler, cache = scheduler_of()
    scheduler.add(sequence(200))

    works = step(scheduler, cache, max_tokens=64, prompt_share=16)

    assert [work.count for work in works] == [64]


def test_more_than_there_are_slots_wait_and_go_in_turn() -> None:
    scheduler, cache = scheduler_of(num_slots=1)
    first, second = sequence(3, max_tokens=1), sequence(3, max_tokens=1)
    scheduler.add(first)
    scheduler.add(second)

    step(scheduler, cache)
    assert (scheduler.running, scheduler.num_waiting) == ([], 1)
    step(scheduler, cache)

    assert (scheduler.running, scheduler.num_waiting) == ([], 0)
    assert second.num_generated == 1


def test_an_owner_with_a_burst_does_not_keep_another_waiting() -> None:
    scheduler, cache = scheduler_of(num_slots=1)
    burst = [sequence(20, owner="many", max_tokens=1) for _ in range(5)]
    for one in burst:
        scheduler.add(one)
    step(scheduler, cache)
    other = sequence(20, owner="one", max_tokens=1)
    scheduler.add(other)

    step(scheduler, cache)
    step(scheduler, cache)

    assert other.num_generated == 1
    assert scheduler.num_waiting == 3


def test_when_the_pool_runs_out_the_youngest_waits_and_loses_nothing() -> None:
    scheduler, cache = scheduler_of(num_slots=2, pool_tokens=50)
    old, young = sequence(20, max_tokens=20), sequence(20, max_tokens=20)
    scheduler.add(old)
    scheduler.add(young)
    step(scheduler, cache)
    while len(scheduler.running) == 2:
        step(scheduler, cache)
    said = young.num_generated

    assert scheduler.running == [old]
    assert said > 0
    while scheduler.running or scheduler.num_waiting:
        step(scheduler, cache)

    assert (old.num_generated, young.num_generated) == (20, 20)


def test_a_dropped_sequence_leaves_its_tokens_as_a_cache() -> None:
    scheduler, cache = scheduler_of()
    first = sequence(30)
    scheduler.add(first)
    step(scheduler, cache)
    scheduler.drop(first)
    again = sequence(30)
    scheduler.add(again)

    scheduler.admit()

    assert again.num_computed == 29


def test_an_interrupted_step_leaves_the_cache_as_it_was() -> None:
    scheduler, cache = scheduler_of()
    scheduler.add(sequence(30))
    scheduler.admit()
    works = scheduler.plan(64, 64)
    cache.compute(works)

    scheduler.roll_back(works)

    assert cache.slots[0] == []
    assert step(scheduler, cache)[0].count == 30


@settings(max_examples=100)
@given(st.integers(0, 2**32))
def test_everybody_gets_all_their_tokens_whatever_comes_and_goes(seed: int) -> None:
    random_ = random.Random(seed)
    pool_tokens = random_.randint(60, 300)
    scheduler, cache = scheduler_of(random_.randint(1, 4), pool_tokens)
    alive: list[Sequence] = []
    for _ in range(60):
        if random_.random() < 0.3:
            one = sequence(
                random_.randint(1, 50),
                max_tokens=random_.randint(1, 9),
                owner=random_.choice("abc"),
                priority=random_.choice([0, 0, 1]),
                cache_salt=random_.choice(["", "red"]),
            )
            alive.append(one)
            scheduler.add(one)
        if alive and random_.random() < 0.1:
            gone = alive.pop(random_.randrange(len(alive)))
            if gone in list(scheduler):
                scheduler.drop(gone)
        step(scheduler, cache, max_tokens=random_.randint(4, 40), prompt_share=8)
        for one in scheduler.running:
            assert one.slot is not None
            assert cache.slots[one.slot] == one.tokens[: one.num_computed]
    for _ in range(2000):
        if not scheduler.running and not scheduler.num_waiting:
            break
        step(scheduler, cache)

    assert all(one.num_generated == one.max_tokens for one in alive)


def prompt_of(first: int, **fields: object) -> Sequence:
    """A prompt of 100 tokens that shares none with one of another `first`."""
    tokens = list(range(first, first + 100))
    return Sequence(tokens=tokens, max_tokens=1, mailbox=Mailbox(), **fields)


def run_alone(scheduler: Scheduler, cache: RecordedCache, sequence: Sequence) -> int:
    """Answer one sequence; returns how many of its tokens were cached."""
    scheduler.add(sequence)
    works = step(scheduler, cache, max_tokens=1000)
    assert sequence not in scheduler.running
    return works[0].start


def test_a_prompt_that_lost_its_slot_to_another_is_not_computed_again() -> None:
    scheduler, cache = scheduler_of(num_slots=1, saved=SavedCaches(10_000))

    computed = [run_alone(scheduler, cache, prompt_of(first)) for first in (0, 500, 0)]

    assert computed == [0, 0, 99]


def test_what_was_saved_under_one_salt_is_no_use_to_another() -> None:
    scheduler, cache = scheduler_of(num_slots=1, saved=SavedCaches(10_000))
    run_alone(scheduler, cache, prompt_of(0, cache_salt="blue"))
    run_alone(scheduler, cache, prompt_of(500))

    assert run_alone(scheduler, cache, prompt_of(0, cache_salt="red")) == 0
    assert run_alone(scheduler, cache, prompt_of(0, cache_salt="blue")) == 99


def test_a_cache_that_cannot_be_restored_is_forgotten_and_its_prompt_computed() -> None:
    saved = SavedCaches(10_000)
    scheduler, cache = scheduler_of(num_slots=1, saved=saved)
    run_alone(scheduler, cache, prompt_of(0))
    run_alone(scheduler, cache, prompt_of(500))
    cache.restores = False

    assert run_alone(scheduler, cache, prompt_of(0)) == 0
    assert saved.of("model").find(list(range(100)), "", whole=False) is None


def test_idle_caches_leave_a_shared_pool_but_are_not_lost() -> None:
    scheduler, cache = scheduler_of(saved=SavedCaches(10_000), idle_tokens=150)
    for first in (0, 500):
        run_alone(scheduler, cache, prompt_of(first))

    assert scheduler.slots.used_tokens == 100
    assert sum(map(len, cache.slots.values())) == 100
    assert run_alone(scheduler, cache, prompt_of(0)) == 99


def test_what_idle_slots_hold_survives_the_model() -> None:
    saved = SavedCaches(10_000)
    scheduler, cache = scheduler_of(saved=saved)
    for first in (0, 500):
        run_alone(scheduler, cache, prompt_of(first))

    scheduler.save_idle()
    again, fresh = scheduler_of(saved=saved)
    fresh.saved = cache.saved

    assert [run_alone(again, fresh, prompt_of(first)) for first in (500, 0)] == [99, 99]


def test_a_long_prompt_costs_running_answers_no_step_and_only_chunks() -> None:
    scheduler, cache = scheduler_of(num_slots=9, pool_tokens=10_000)
    answers = [Sequence(tokens=[at] * 3, max_tokens=10_000, mailbox=Mailbox()) for at in range(8)]
    for answer in answers:
        scheduler.add(answer)
    step(scheduler, cache)
    long = sequence(4000, max_tokens=1)
    scheduler.add(long)
    steps = 0
    while long.num_computed < 4000 and steps < 1000:
        said = [answer.num_generated for answer in answers]
        works = step(scheduler, cache, max_tokens=512, prompt_share=64)
        steps += 1
        # Each answer has one more token after each step, and a step is never more than a chunk.
        assert [answer.num_generated for answer in answers] == [each + 1 for each in said]
        assert sum(work.count for work in works if work.sequence is long) <= 64

    assert steps == -(-4000 // 64)


def counts(works: list[Work]) -> list[int]:
    return [work.count for work in works]


def answering(scheduler: Scheduler, cache: RecordedCache, number: int) -> list[Sequence]:
    """So many answers that have begun and go on for long."""
    answers = [Sequence(tokens=[at] * 3, max_tokens=900, mailbox=Mailbox()) for at in range(number)]
    for answer in answers:
        scheduler.add(answer)
    step(scheduler, cache)
    return answers


def test_prompts_beside_answers_leave_a_tile_unfilled() -> None:
    scheduler, cache = scheduler_of(num_slots=9, pool_tokens=10_000, tile_rows=64)
    answering(scheduler, cache, 3)
    for _ in range(3):
        scheduler.add(sequence(45, max_tokens=900))

    taken = [counts(step(scheduler, cache, max_tokens=512, prompt_share=200)) for _ in range(3)]

    assert taken == [[1, 1, 1, 45, 15], [1, 1, 1, 1, 30, 29], [1, 1, 1, 1, 1, 16]]


def test_without_answers_prompts_take_the_whole_step_tiles_or_not() -> None:
    scheduler, cache = scheduler_of(num_slots=9, pool_tokens=10_000, tile_rows=64)
    scheduler.add(sequence(400))

    assert counts(step(scheduler, cache, max_tokens=512, prompt_share=64)) == [400]


def test_a_prompt_that_is_long_already_takes_turns_with_answers_in_whole_tiles() -> None:
    scheduler, cache = scheduler_of(num_slots=9, pool_tokens=10_000, tile_rows=64)
    answers = answering(scheduler, cache, 3)
    long = sequence(2000, max_tokens=1)
    scheduler.add(long)
    while long.num_computed < TILED_FROM:
        assert len(step(scheduler, cache, max_tokens=512, prompt_share=150)) == 4

    said = answers[0].num_generated
    taken = [counts(step(scheduler, cache, max_tokens=512, prompt_share=150)) for _ in range(4)]

    assert taken == [[128], [1, 1, 1], [128], [1, 1, 1]]
    assert answers[0].num_generated == said + 2


def test_a_long_prompt_rides_along_where_a_step_has_no_time_for_a_tile() -> None:
    scheduler, cache = scheduler_of(num_slots=9, pool_tokens=10_000, tile_rows=64)
    answering(scheduler, cache, 3)
    scheduler.add(sequence(700, max_tokens=1))

    taken = [counts(step(scheduler, cache, max_tokens=512, prompt_share=32)) for _ in range(20)]

    assert taken == [[1, 1, 1, 32]] * 20


def test_a_short_prompt_rides_along_while_a_long_one_takes_its_turns() -> None:
    scheduler, cache = scheduler_of(num_slots=9, pool_tokens=10_000, tile_rows=64)
    answering(scheduler, cache, 3)
    scheduler.add(sequence(2000, max_tokens=1))
    while counts(step(scheduler, cache, max_tokens=512, prompt_share=64)) != [64]:
        pass
    scheduler.add(sequence(20, max_tokens=900))

    taken = [counts(step(scheduler, cache, max_tokens=512, prompt_share=64)) for _ in range(3)]

    assert taken == [[1, 1, 1, 20], [64], [1, 1, 1, 1]]


def test_prompts_have_turns_of_their_own_where_answers_fill_a_tile_alone() -> None:
    scheduler, cache = scheduler_of(num_slots=80, pool_tokens=10_000, tile_rows=64)
    answering(scheduler, cache, 20)
    for at in range(44):
        scheduler.add(Sequence(tokens=[at] * 3, max_tokens=900, mailbox=Mailbox()))
    while sum(one.is_decoding for one in scheduler.running) < 64:
        step(scheduler, cache)
    scheduler.add(sequence(100, max_tokens=1))

    taken = [counts(step(scheduler, cache, max_tokens=512, prompt_share=64)) for _ in range(4)]

    assert taken == [[1] * 64, [64], [1] * 64, [36]]
