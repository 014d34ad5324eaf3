"""Decides whose request goes next, so that one owner's burst does not starve another.

Weighted virtual token counters: every owner has a counter of the tokens served
to it, divided by its weight; the waiting owner with the smallest counter goes
first. An owner that comes back after being idle is lifted to the smallest
counter among those that wait or run, so that idleness is not saved up
(Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, algorithm 2).

Plain Python, owned by one thread of an engine; nothing here locks.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

# What a token costs its owner: an output token takes a whole step of its sequence,
# a prompt token a share of one (the paper's own weights).
PROMPT_TOKEN_COST = 1.0
OUTPUT_TOKEN_COST = 2.0


class FairQueue(Generic[Item]):
    """Waiting items of many owners, taken lowest priority first, then fairest owner first.

    Items of one owner and priority keep their order. Always: `len(queue)` is the
    number of items pushed and neither popped nor removed.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], deque[Item]] = {}
        self._counters: dict[str, float] = {}
        self._running: dict[str, int] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        for items in self._waiting.values():
            yield from items

    def push(self, item: Item, *, owner: str, priority: int = 0) -> None:
        """Add an item at the end of its owner's line."""
        if owner not in self._counters or not self._is_active(owner):
            self._lift(owner)
        self._waiting.setdefault((priority, owner), deque()).append(item)
        self._length += 1

    def push_back(self, item: Item, *, owner: str, priority: int = 0) -> None:
        """Put an item at the head of its owner's line: it was popped and could not run."""
        self._waiting.setdefault((priority, owner), deque()).appendleft(item)
        self._length += 1

    def peek(self, can_run: Callable[[Item], bool] | None = None) -> Item | None:
        """The item that `pop` would take, left where it is."""
        line = self._next_line(can_run)
        return None if line is None else self._waiting[line][0]

    def pop(self, can_run: Callable[[Item], bool] | None = None) -> Item | None:
        """Take the next item, or None if nothing waits.

        With `can_run`, an owner whose first item cannot run now is passed over.
        """
        line = self._next_line(can_run)
        if line is None:
            return None
        items = self._waiting[line]
        item = items.popleft()
        self._length -= 1
        if not items:
            del self._waiting[line]
        return item

    def remove(self, item: Item, *, owner: str, priority: int = 0) -> bool:
        """Take a waiting item out; False if it does not wait here."""
        items = self._waiting.get((priority, owner))
        if items is None or item not in items:
            return False
        items.remove(item)
        self._length -= 1
        if not items:
            del self._waiting[priority, owner]
        self._forget_if_empty()
        return True

    def started(self, owner: str) -> None:
        """Note that one more of the owner's items runs."""
        self._running[owner] = self._running.get(owner, 0) + 1

    def stopped(self, owner: str) -> None:
        """Note that one of the owner's running items ended."""
        left = self._running.get(owner, 0) - 1
        if left > 0:
            self._running[owner] = left
        else:
            self._running.pop(owner, None)
        self._forget_if_empty()

    def charge(self, owner: str, tokens_cost: float, *, weight: float = 1.0) -> None:
        """Count service given: token counts times their costs; a larger weight counts less."""
        self._counters[owner] = self._counters.get(owner, 0.0) + tokens_cost / max(weight, 1e-6)

    def _next_line(self, can_run: Callable[[Item], bool] | None) -> tuple[int, str] | None:
        best = min(self._waiting, key=self._turn, default=None)
        if best is None or can_run is None or can_run(self._waiting[best][0]):
            return best
        lines = sorted(self._waiting, key=self._turn)
        return next((line for line in lines if can_run(self._waiting[line][0])), None)

    def _turn(self, line: tuple[int, str]) -> tuple[int, float]:
        priority, owner = line
        return priority, self._counters.get(owner, 0.0)

    def _forget_if_empty(self) -> None:
        if not self._running and not self._length:
            self._counters.clear()  # nobody is owed anything, so nothing grows for ever

    def _is_active(self, owner: str) -> bool:
        return owner in self._running or any(line[1] == owner for line in self._waiting)

    def _lift(self, owner: str) -> None:
        active = {line[1] for line in self._waiting} | set(self._running)
        floor = min((self._counters.get(other, 0.0) for other in active), default=0.0)
        self._counters[owner] = max(self._counters.get(owner, 0.0), floor)
