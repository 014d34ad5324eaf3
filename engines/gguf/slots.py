"""Which tokens each slot's KV cache holds, and which slot a new prompt should take.

A slot is one of llama.cpp's sequence ids. When its request ends the tokens stay
as a cache: the next prompt that begins alike computes only the rest. Prompts
share only within one `cache_salt`, because how fast an answer comes would tell
one team what another asked.

The pool's budget counts a prefix once for every slot that holds it, although
llama.cpp stores a shared one once: that errs towards evicting, never towards
running out. Plain Python without llama.cpp; the step thread owns it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engines.gguf.image_tokens import whole_images

MIN_COPIED_TOKENS = 32  # a shorter prefix is computed as fast as it is copied


@dataclass(eq=False)
class Slot:
    """Always: a slot that is not busy needs exactly the room of the tokens it holds."""

    id: int
    tokens: list[int] = field(default_factory=list)
    salt: str = ""
    is_busy: bool = False
    reserved_tokens: int = 0  # what its request is sure to need
    last_used: int = 0

    @property
    def room(self) -> int:
        """Tokens of the pool that this slot counts for."""
        return max(len(self.tokens), self.reserved_tokens if self.is_busy else 0)


@dataclass(frozen=True)
class Placement:
    """Where a prompt goes: keep `num_cached` tokens of `slot`, copied from `source` if given."""

    slot: int
    num_cached: int
    source: int | None = None
    evicted: Sequence[int] = ()


class Slots:
    """All slots of one model. Always: the room of all slots together fits the pool."""

    def __init__(
        self,
        num_slots: int,
        *,
        pool_tokens: int,
        can_cut: bool = True,
        keeps_together: bool = False,
        idle_tokens: int | None = None,
    ) -> None:
        """`keeps_together`: give new prompts slots beside the busy ones where that costs nothing.

        llama.cpp computes caches of their own in one go only as far as their ids follow
        each other without a gap. `idle_tokens`: how many idle slots may keep together; in a
        shared pool every step looks at all of them.
        """
        self._slots = [Slot(slot) for slot in range(num_slots)]
        self._pool_tokens = pool_tokens
        self.can_cut = can_cut
        self._keeps_together = keeps_together
        self._idle_tokens = pool_tokens if idle_tokens is None else idle_tokens
        # Called with a slot that is about to forget most of what its cache still holds.
        self.on_eviction: Callable[[Slot], None] = lambda slot: None
        self._now = 0

    def __getitem__(self, slot: int) -> Slot:
        return self._slots[slot]

    @property
    def used_tokens(self) -> int:
        """Tokens of the pool that are spoken for."""
        return sum(slot.room for slot in self._slots)

    @property
    def cache_used(self) -> float:
        """The fraction of the pool that is spoken for."""
        return min(1.0, self.used_tokens / self._pool_tokens)

    @property
    def busy_tokens(self) -> int:
        """Tokens of the pool that requests hold; what idle slots keep can be had."""
        return sum(slot.room for slot in self._slots if slot.is_busy)

    @property
    def cache_busy(self) -> float:
        """The fraction of the pool that requests hold."""
        return min(1.0, self.busy_tokens / self._pool_tokens)

    def fits(self, num_tokens: int) -> bool:
        """Whether `place` would find a slot and room for a prompt of so many tokens."""
        return any(not slot.is_busy for slot in self._slots) and (
            self.busy_tokens + num_tokens + 1 <= self._pool_tokens
        )

    def place(self, tokens: Sequence[int], salt: str) -> Placement | None:
        """Take a slot for a prompt, or change nothing and return None.

        The last token is never cached: there would be no logits to sample from.
        """
        if not self.fits(len(tokens)):
            return None
        best, length = self._longest_prefix(tokens, salt)
        target = self._target(best, length)
        source = best if best is not target else None
        if source is not None and length < MIN_COPIED_TOKENS:
            source, length = None, 0
        kept = (target, source) if source is not None else (target,)
        evicted = self._evict_until(self._pool_tokens - len(tokens) - 1, kept)
        if source is not None and evicted is None:
            source, length = None, 0  # the room that the shared prefix takes is needed
            evicted = self._evict_until(self._pool_tokens - len(tokens) - 1, (target,))
        assert evicted is not None, "fits() promised room"
        if target.tokens and (source is not None or 2 * length < len(target.tokens)):
            self.on_eviction(target)
        self._take(target, tokens[:length], salt, len(tokens) + 1)
        return Placement(target.id, length, None if source is None else source.id, evicted)

    def _take(self, slot: Slot, cached: Sequence[int], salt: str, reserved_tokens: int) -> None:
        slot.tokens = list(cached)
        slot.salt = salt
        slot.is_busy = True
        slot.reserved_tokens = reserved_tokens
        self._touch(slot)

    def grow(self, slot: int, tokens: Sequence[int]) -> None:
        """Note that these tokens were computed after those the slot held."""
        self._slots[slot].tokens.extend(tokens)

    def cut(self, slot: int, length: int) -> None:
        """Note that the slot was truncated to `length` tokens."""
        del self._slots[slot].tokens[length:]

    def restored(self, slot: int, tokens: Sequence[int]) -> None:
        """Note that the slot holds these tokens now, and nothing else."""
        self._slots[slot].tokens = list(tokens)

    def release(self, slot: int) -> None:
        """Give the slot back; what it holds stays as a cache."""
        self._slots[slot].is_busy = False
        self._touch(self._slots[slot])

    def make_room(self, num_tokens: int) -> list[int] | None:
        """Forget idle caches until so many more tokens fit; None, and no change, if they cannot."""
        return self._evict_until(self._pool_tokens - num_tokens, ())

    def evict_idle(self) -> list[int]:
        """Forget every idle cache; returns the slots to clear."""
        return self._evict_until(self.busy_tokens, ()) or []

    def trim_idle(self) -> list[int]:
        """Forget idle caches, oldest first, down to `idle_tokens`; returns the slots to clear."""
        return self._evict_until(self.busy_tokens + self._idle_tokens, ()) or []

    def _forget(self, slots: Sequence[Slot]) -> list[int]:
        for slot in slots:
            self.on_eviction(slot)
            slot.tokens = []
        return [slot.id for slot in slots]

    def reset(self) -> None:
        """Note that the whole cache was cleared."""
        for slot in self._slots:
            slot.tokens = []

    def _longest_prefix(self, tokens: Sequence[int], salt: str) -> tuple[Slot | None, int]:
        best: Slot | None = None
        longest = 0
        for slot in self._slots:
            if slot.salt != salt or not slot.tokens:
                continue
            length = min(common_prefix(slot.tokens, tokens), len(tokens) - 1)
            length = whole_images(tokens, length)
            if not self.can_cut and (slot.is_busy or length < len(slot.tokens)):
                continue
            if length > longest or (length == longest and best is not None and best.is_busy):
                best, longest = slot, length
        return (best, longest) if longest else (None, 0)

    def _target(self, best: Slot | None, length: int) -> Slot:
        free = [slot for slot in self._slots if not slot.is_busy]
        if best is not None and not best.is_busy:
            # Most of what it holds is wanted again: go on in it. Otherwise what it holds
            # stays for others, and the prefix is copied.
            others = [slot for slot in free if slot is not best]
            if 2 * length >= len(best.tokens) or not others or length < MIN_COPIED_TOKENS:
                return best
            free = others
        return min(free, key=lambda slot: (self._apart(slot), bool(slot.tokens), slot.last_used))

    def _apart(self, slot: Slot) -> int:
        """How far a slot is from the busy ones: 0 in a gap between them, 1 at their ends."""
        busy = [other.id for other in self._slots if other.is_busy]
        if not self._keeps_together or not busy:
            return 0
        return max(0, min(busy) - slot.id, slot.id - max(busy))

    def _evict_until(self, limit: int, kept: Sequence[Slot]) -> list[int] | None:
        """Evict idle caches, oldest first, until what is used besides `kept[0]` is in `limit`.

        `kept[0]` is about to be taken over when given: its room is not counted.
        """
        used = self.used_tokens - (kept[0].room if kept else 0)
        idle = [s for s in self._slots if not s.is_busy and s.tokens and s not in kept]
        chosen: list[Slot] = []
        for slot in sorted(idle, key=lambda slot: slot.last_used):
            if used <= limit:
                break
            used -= slot.room
            chosen.append(slot)
        if used > limit:
            return None
        return self._forget(chosen)

    def _touch(self, slot: Slot) -> None:
        self._now += 1
        slot.last_used = self._now


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many first tokens are the same."""
    high = min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    low = 0
    while low + 1 < high:  # the first `low` are the same, the first `high` are not
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
