"""Decides what one step computes: a token for each running answer, then prompts.

Running answers come first, so that a long prompt never stalls them; what is
left of the step's tokens goes to prompts, oldest first, in chunks. While
answers run, `prompt_share` bounds those chunks, because every answer waits for
the whole step.

On CPUs, llama.cpp's attention takes the rows of a batch in tiles as soon as they
fill one, and each tile is computed against every cell that one of its rows may
look at. Answers look at cells everywhere, so a tile with answers in it is computed
against the whole pool. Therefore a step with answers stays below a tile there,
and a prompt that is long enough for tiles to pay takes turns with the answers.

When the shared pool runs short, idle caches go first; then the youngest
sequence is preempted: it waits at the head of its owner's line, keeps what it
has said, and is computed again when there is room. Nothing fails for want of
room, and nothing has to be reserved for answers that may stay short.

What idle slots held is not lost with their room: it goes to saved_caches.py, and
a prompt that begins like it gets it back.

Plain Python, owned by the step thread. It reaches the KV cache through the
calls of `Cache`, so its tests need no llama.cpp.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from engines.fairness import OUTPUT_TOKEN_COST, PROMPT_TOKEN_COST, FairQueue
from engines.gguf.saved_caches import ModelCaches
from engines.gguf.sequence import Sequence as Running
from engines.gguf.sequence import Work
from engines.gguf.slots import MIN_COPIED_TOKENS, Placement, Slot, Slots

TILED_FROM = 512  # tokens before a chunk, from which tiles of its own cost it less than none


class Cache(Protocol):
    """What the scheduler asks of the KV cache; runner.py has the real one."""

    def clear(self, slot: int, /) -> None:
        """Forget all that a slot holds."""
        ...

    def truncate(self, slot: int, length: int, /) -> bool:
        """Forget from `length` on; False, and nothing done, if it cannot be cut there."""
        ...

    def copy_prefix(self, source: int, target: int, length: int, /) -> None:
        """Give the empty `target` what `source` holds of the first `length` positions."""
        ...

    def save(self, slot: int, max_bytes: int, /) -> Any:
        """A copy of all that a slot holds, or None if it is larger than that."""
        ...

    def restore(self, slot: int, state: Any, tokens: Sequence[int], /) -> bool:
        """Give the empty `slot` what was saved of `tokens`; False if it stays empty."""
        ...


class Scheduler:
    """The waiting and the running sequences of one model."""

    def __init__(
        self,
        slots: Slots,
        cache: Cache,
        *,
        context_tokens: int,
        on_preemption: Callable[[], None] = lambda: None,
        saved: ModelCaches | None = None,
        tile_rows: int | None = None,
    ) -> None:
        """`tile_rows`: rows of a batch that attention takes together; None if it is all one."""
        self.slots = slots
        self.slots.on_eviction = self._save
        self.running: list[Running] = []  # in the order of their admission
        self._cache = cache
        self._context_tokens = context_tokens
        self._on_preemption = on_preemption
        self._saved = saved
        self._tile_rows = tile_rows
        self._answers_came_last = False
        self._waiting: FairQueue[Running] = FairQueue()

    @property
    def num_waiting(self) -> int:
        """Sequences without a slot."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Running]:
        yield from self._waiting
        yield from self.running

    def add(self, sequence: Running) -> None:
        """Let a sequence wait for its turn."""
        self._waiting.push(sequence, owner=sequence.owner, priority=sequence.priority)

    def admit(self) -> list[Running]:
        """Give slots to those whose turn it is; returns the newly admitted."""
        admitted: list[Running] = []
        while len(self._waiting):
            sequence = self._waiting.pop(lambda one: self.slots.fits(len(one.tokens)))
            if sequence is None:
                break
            placement = self.slots.place(sequence.tokens, sequence.cache_salt)
            assert placement is not None, "fits() promised a slot"
            if not self._restored(sequence, placement):
                self._prepare(placement)
            sequence.slot = placement.slot
            sequence.num_computed = len(self.slots[placement.slot].tokens)
            self._waiting.started(sequence.owner)
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def _restored(self, sequence: Running, placement: Placement) -> bool:
        """Whether the sequence has got a saved cache that holds more than its slot would."""
        self.clear(placement.evicted)
        if self._saved is None:
            return False
        found = self._saved.find(sequence.tokens, sequence.cache_salt, whole=not self.slots.can_cut)
        if found is None or found.num_tokens < placement.num_cached + MIN_COPIED_TOKENS:
            return False
        slot, held = placement.slot, found.cache.tokens
        self._cache.clear(slot)
        self.slots.cut(slot, 0)
        if not self._cache.restore(slot, found.cache.state, held):
            self._saved.discard(found)
            return True  # with nothing cached: what the slot held has made room for it
        self.slots.restored(slot, held)
        if found.num_tokens < len(held) and not self._cache.truncate(slot, found.num_tokens):
            self._cache.clear(slot)
            self.slots.cut(slot, 0)
            return True
        self.slots.cut(slot, found.num_tokens)
        self._saved.used(found)
        return True

    def save_idle(self) -> None:
        """Save what every idle slot holds, the last used last; for a model that is unloaded."""
        self.slots.evict_idle()

    def _save(self, slot: Slot) -> None:
        if self._saved is None or not self._saved.wants(slot.tokens, slot.salt):
            return
        state = self._cache.save(slot.id, self._saved.max_bytes)
        if state is not None:
            self._saved.add(slot.tokens, slot.salt, state)

    def _prepare(self, placement: Placement) -> None:
        if placement.source is not None:
            self._cache.clear(placement.slot)
            self._cache.copy_prefix(placement.source, placement.slot, placement.num_cached)
        elif not (
            placement.num_cached and self._cache.truncate(placement.slot, placement.num_cached)
        ):
            self._cache.clear(placement.slot)
            self.slots.cut(placement.slot, 0)

    def plan(self, max_tokens: int, prompt_share: int) -> list[Work]:
        """The work of the next step; may preempt, and is empty when nothing runs."""
        while self.running:
            works = self._catch_up(max_tokens, prompt_share)
            room = self.slots.make_room(self._unreserved(works))
            if room is not None:
                self.clear(room)
                return works
            self.preempt_youngest()
        return []

    def _catch_up(self, max_tokens: int, prompt_share: int) -> list[Work]:
        decoding = [sequence for sequence in self.running if sequence.is_decoding]
        prompts = [sequence for sequence in self.running if not sequence.is_decoding]
        if not decoding:
            return _chunks(prompts, max_tokens)
        share = min(max_tokens - len(decoding), prompt_share)
        beside, room = prompts, share
        if (tile := self._tile_rows) is not None:
            is_tiled = share >= tile
            room = min(share, tile - 1 - len(decoding))
            beside = [
                one
                for one in prompts
                if room > 0 and not (is_tiled and one.num_computed >= TILED_FROM)
            ]
            if len(beside) < len(prompts) and self._answers_came_last:
                self._answers_came_last = False
                return _chunks(prompts, share - share % tile if is_tiled else max(1, share))
        self._answers_came_last = True
        works = [Work(sequence, sequence.num_computed, 1) for sequence in decoding]
        return works + _chunks(beside, room)

    def _unreserved(self, works: Sequence[Work]) -> int:
        """Tokens that these need beyond what their slots already count for."""
        needed = 0
        for work in works:
            assert work.sequence.slot is not None
            held = self.slots[work.sequence.slot].room
            needed += max(0, work.start + work.count - held)
        return needed

    def commit(self, works: Sequence[Work]) -> None:
        """Note that a step computed these."""
        for work in works:
            sequence = work.sequence
            assert sequence.slot is not None
            self.slots.grow(sequence.slot, work.tokens)
            if work.start < sequence.num_prompt_tokens:
                self._charge(sequence, PROMPT_TOKEN_COST * work.count)
            sequence.num_computed += work.count

    def roll_back(self, works: Sequence[Work]) -> None:
        """Undo what an interrupted step may have left in the cache."""
        for work in works:
            sequence = work.sequence
            assert sequence.slot is not None
            if not self._cache.truncate(sequence.slot, work.start):
                self._cache.clear(sequence.slot)
                self.slots.cut(sequence.slot, 0)
                sequence.num_computed = 0

    def append(self, sequence: Running, token: int) -> None:
        """Note a new token of the answer."""
        sequence.tokens.append(token)
        self._charge(sequence, OUTPUT_TOKEN_COST)

    def is_out_of_room(self, sequence: Running) -> bool:
        """Whether the answer has used up `max_tokens` or the context."""
        return (
            sequence.num_generated >= sequence.max_tokens
            or len(sequence.tokens) >= self._context_tokens
        )

    def drop(self, sequence: Running) -> None:
        """Forget a sequence, waiting or running; its slot keeps what it holds as a cache."""
        if sequence.slot is None:
            self._waiting.remove(sequence, owner=sequence.owner, priority=sequence.priority)
            return
        self.running.remove(sequence)
        self._give_back(sequence)

    def preempt_youngest(self) -> Running:
        """Take the slot of the last admitted of the least urgent, who waits again."""
        least_urgent = max(sequence.priority for sequence in self.running)
        youngest = [one for one in self.running if one.priority == least_urgent][-1]
        self.running.remove(youngest)
        self._waiting.push_back(youngest, owner=youngest.owner, priority=youngest.priority)
        self._give_back(youngest)
        youngest.num_computed = 0
        self._on_preemption()
        return youngest

    def evict_idle(self) -> bool:
        """Clear every idle cache; False if there was none."""
        evicted = self.slots.evict_idle()
        self.clear(evicted)
        return bool(evicted)

    def clear(self, slots: Sequence[int]) -> None:
        """Clear the KV cache of these slots."""
        for slot in slots:
            self._cache.clear(slot)

    def _give_back(self, sequence: Running) -> None:
        assert sequence.slot is not None
        self.slots.release(sequence.slot)
        self.clear(self.slots.trim_idle())
        sequence.slot = None
        self._waiting.stopped(sequence.owner)

    def _charge(self, sequence: Running, cost: float) -> None:
        self._waiting.charge(sequence.owner, cost, weight=sequence.weight)


def _chunks(sequences: Sequence[Running], budget: int) -> list[Work]:
    """So many of their tokens, the first one's first."""
    works: list[Work] = []
    for sequence in sequences:
        if budget <= 0:
            break
        count = sequence.run_from(sequence.num_computed, budget)
        works.append(Work(sequence, sequence.num_computed, count))
        budget -= count
    return works
