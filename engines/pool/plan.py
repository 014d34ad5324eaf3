"""Which models to load now, which to evict for them, and which shall make way.

A plain function of how things are. Who waits for room is looked at in the
order of arrival; each plans with what those before it leave:

- It is loaded at once where there is room that nobody before it counts on. So a
  small model need not wait behind a large one.
- Else idle models are evicted for it, longest idle first, but none in vain.
- Else busy models that were there for their minimum residency make way: they
  take no newcomers, and go when those they have are done. Without that, one in
  steady use would keep others out for ever; without the minimum, two models
  that are both in demand would do nothing but load in turns.
- Who has waited for the minimum residency and still cannot have room keeps all
  behind it from taking any.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic

from engines.pool.place import Model, Place, Wish
from engines.pool.room import Budget, Need, Room, total

SETTLING_SECONDS = 2.0
"""Until then the machine may not show yet that the memory of a model is free again."""


@dataclass(eq=False)
class Plan(Generic[Model]):
    """What to do; `refused` are those for whom even an empty pool would have no room, and why:
    so much is there, since others on this machine have the rest."""

    loads: list[tuple[Wish[Model], Need]] = field(default_factory=list)
    evictions: list[Place[Model]] = field(default_factory=list)
    make_way: list[Place[Model]] = field(default_factory=list)
    refused: list[tuple[Wish[Model], Room]] = field(default_factory=list)
    num_waiting: int = 0  # models for which there is no room yet


def plan(
    places: Sequence[Place[Model]],
    wishes: Sequence[Wish[Model]],
    budget: Budget,
    *,
    now: float,
    min_residency_seconds: float,
) -> Plan[Model]:
    """`wishes` are one for each model that has no place, in the order of arrival."""
    planner = _Planner(places, budget, bool(wishes), now, min_residency_seconds)
    planner.go_back_to_budget()
    for wish in wishes:
        if not planner.is_blocked:
            planner.consider(wish)
    planner.plan.num_waiting = len(wishes) - len(planner.plan.loads) - len(planner.plan.refused)
    return planner.plan


class _Planner(Generic[Model]):
    def __init__(
        self,
        places: Sequence[Place[Model]],
        budget: Budget,
        has_wishes: bool,  # noqa: FBT001 - positional, as all of them
        now: float,
        min_residency_seconds: float,
    ) -> None:
        self.plan: Plan[Model] = Plan()
        self.is_blocked = False
        self._num_places = len(places)
        self._now = now
        self._min_residency_seconds = min_residency_seconds
        self._in_budget = budget.total - total(place.room for place in places)
        self._free = self._in_budget
        if has_wishes:  # who is asked for nothing need not look at the machine
            # What is still loading was out of the budget, and not yet of the machine.
            coming = total(place.room for place in places if place.is_loading)
            self._free = self._free.at_most(budget.free() - coming)
        leaving = [place for place in places if place.is_leaving]
        self._num_leaving = len(leaving)
        self._promised = self._free + total(place.room for place in leaving)
        self._in_budget += total(place.room for place in leaving)
        stays = [place for place in places if place.is_idle]
        self._idle = sorted(stays, key=lambda place: (place.stays_for_ever, place.idle_since))
        self._busy = sorted(
            (place for place in places if self._may_make_way(place)),
            key=lambda place: place.ready_at,
        )

    def _may_make_way(self, place: Place[Model]) -> bool:
        if place.is_loading or place.is_leaving or not place.num_leases:
            return False
        return place.ready_at + self._min_residency_seconds <= self._now

    def go_back_to_budget(self) -> None:
        """Evict what turned out to be too much: some models take more than was expected."""
        while self._in_budget.is_overdrawn and self._idle:
            self._evict(self._idle.pop(0))

    def consider(self, wish: Wish[Model]) -> None:
        """Load, make room, or let it wait."""
        for willing in (self._idle, [*self._idle, *self._busy]):
            within = self._promised + total(place.room for place in willing)
            need = next((need for need in wish.needs if within.holds(need.room)), None)
            if need is not None:
                self._make_room(wish, need, willing)
                return
        has_waited = self._now - wish.since
        if self._could_have_all and has_waited >= SETTLING_SECONDS:
            self.plan.refused.append((wish, self._promised + total(p.room for p in self._idle)))
        elif has_waited >= self._min_residency_seconds:
            self.is_blocked = True

    @property
    def _could_have_all(self) -> bool:
        """No model would be left, nobody before takes anything, and it is not enough."""
        num_willing = len(self._idle) + len(self._busy) + self._num_leaving
        return num_willing == self._num_places

    def _make_room(self, wish: Wish[Model], need: Need, willing: Sequence[Place[Model]]) -> None:
        chosen = self._chosen(need, willing)
        for place in chosen:
            if place in self._idle:
                self._idle.remove(place)
                self._evict(place)
            else:
                self._busy.remove(place)
                self._promised += place.room
                self.plan.make_way.append(place)
        self._promised -= need.room
        self._num_places += 1
        if not chosen and self._free.holds(need.room):
            self._free -= need.room
            self.plan.loads.append((wish, need))

    def _chosen(self, need: Need, willing: Sequence[Place[Model]]) -> list[Place[Model]]:
        """The first of the willing that make enough room, without those that do not matter."""
        chosen: list[Place[Model]] = []
        room = self._promised
        for place in willing:
            if room.holds(need.room):
                break
            chosen.append(place)
            room += place.room
        for place in reversed(chosen[:]):
            if (room - place.room).holds(need.room):
                chosen.remove(place)
                room -= place.room
        return chosen

    def _evict(self, place: Place[Model]) -> None:
        self._promised += place.room
        self._in_budget += place.room
        self.plan.evictions.append(place)
