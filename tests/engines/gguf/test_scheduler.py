import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.gguf.scheduler import Scheduler
from engines.gguf.sequence import Sequence, Work
from engines.gguf.slots import Slots
from engines.outbox import Mailbox


@dataclass
class RecordedCache:
    """A KV cache that knows which tokens each slot holds."""

    slots: dict[int, list[int]] = field(default_factory=dict)

    def clear(self, slot: int, /) -> None:
        self.slots[slot] = []

    def truncate(self, slot: int, length: int, /) -> bool:
        del self.slots.setdefault(slot, [])[length:]
        return True

    def copy_prefix(self, source: int, target: int, length: int, /) -> None:
        assert not self.slots.get(target), "the target must be empty"
        self.slots[target] = self.slots[source][:length]

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


def scheduler_of(num_slots: int = 4, pool_tokens: int = 1000) -> tuple[Scheduler, RecordedCache]:
    cache = RecordedCache()
    slots = Slots(num_slots, pool_tokens=pool_tokens)
    return Scheduler(slots, cache, context_tokens=pool_tokens), cache


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
