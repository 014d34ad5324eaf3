import asyncio

from engines.pool.place import Place, Wish
from engines.pool.plan import Plan, plan
from engines.pool.room import Budget, Need, Room
from tests.engines.pool.stand_in import StandIn, budget_of, needing

NOW = 1000.0


def idle(name: str, main: int, *, for_seconds: float, gpu: int = 0) -> Place[StandIn]:
    place = busy(name, main, gpu=gpu)
    place.num_leases = 0
    place.idle_since = NOW - for_seconds
    return place


def busy(name: str, main: int, *, gpu: int = 0, resident: float = 60.0) -> Place[StandIn]:
    need = needing(main, gpu=gpu)
    place = Place[StandIn](name, need, 300.0, NOW - resident)
    place.model = StandIn(name, need.room)
    place.ready_at = NOW - resident
    place.num_leases = 1
    return place


def loading(name: str, main: int) -> Place[StandIn]:
    return Place(name, needing(main), 300.0, NOW)


def wish(name: str, *needs: Need, waited: float = 0.0) -> Wish[StandIn]:
    granted = asyncio.get_running_loop().create_future()
    return Wish(name, 1, NOW - waited, None, 300.0, needs, granted)


def planned(
    places: list[Place[StandIn]], *wishes: Wish[StandIn], budget: Budget | None = None
) -> Plan[StandIn]:
    budget = budget or budget_of(100)
    return plan(places, wishes, budget, now=NOW, min_residency_seconds=10.0)


def names(places: list[Place[StandIn]]) -> list[str]:
    return [place.name for place in places]


def loads(made: Plan[StandIn]) -> list[str]:
    return [wish.name for wish, _ in made.loads]


async def test_what_fits_is_loaded_and_nothing_is_evicted_for_it() -> None:
    made = planned([idle("a", 50, for_seconds=5)], wish("b", needing(50)))

    assert loads(made) == ["b"]
    assert made.evictions == []


async def test_the_longest_idle_make_room_and_only_as_many_as_it_takes() -> None:
    places = [
        idle("old", 30, for_seconds=30),
        idle("older", 40, for_seconds=40),
        idle("young", 30, for_seconds=3),
    ]

    made = planned(places, wish("new", needing(60)))

    assert names(made.evictions) == ["older", "old"]
    assert made.loads == []


async def test_a_small_one_is_spared_when_a_large_one_must_go_anyway() -> None:
    places = [idle("small", 10, for_seconds=40), idle("large", 80, for_seconds=4)]

    made = planned(places, wish("new", needing(80)))

    assert names(made.evictions) == ["large"]


async def test_those_that_stay_for_ever_go_last() -> None:
    forever = idle("forever", 50, for_seconds=400)
    forever.keep_alive_seconds = -1.0

    made = planned([forever, idle("other", 50, for_seconds=4)], wish("new", needing(50)))

    assert names(made.evictions) == ["other"]


async def test_nothing_is_evicted_in_vain() -> None:
    places = [idle("idle", 30, for_seconds=40), busy("busy", 60, resident=1.0)]

    made = planned(places, wish("new", needing(80)))

    assert made.evictions == []
    assert made.num_waiting == 1


async def test_a_busy_model_makes_way_after_its_minimum_residency_and_no_sooner() -> None:
    resident = planned([busy("a", 90, resident=10.0)], wish("b", needing(90)))
    newcomer = planned([busy("a", 90, resident=9.0)], wish("b", needing(90)))

    assert names(resident.make_way) == ["a"]
    assert newcomer.make_way == []


async def test_one_busy_model_does_not_make_way_for_two() -> None:
    wishes = wish("b", needing(60)), wish("c", needing(60))

    made = planned([busy("a", 60), busy("z", 40, resident=1.0)], *wishes)

    assert names(made.make_way) == ["a"]
    assert made.num_waiting == 2


async def test_a_small_model_passes_a_large_one_that_waits_where_it_takes_nothing_from_it() -> None:
    places = [busy("a", 60)]

    made = planned(places, wish("large", needing(90)), wish("small", needing(10)))
    rival = planned(places, wish("large", needing(95)), wish("small", needing(10)))

    assert loads(made) == ["small"]
    assert rival.loads == []


async def test_who_has_waited_long_keeps_those_behind_from_taking_room() -> None:
    places = [busy("a", 60, resident=1.0)]
    small = wish("small", needing(10))

    young = planned(places, wish("large", needing(95), waited=9.0), small)
    old = planned(places, wish("large", needing(95), waited=10.0), small)

    assert loads(young) == ["small"]
    assert old.loads == []


async def test_two_that_fit_alone_but_not_together_are_not_loaded_together() -> None:
    made = planned([], wish("a", needing(60)), wish("b", needing(60)))

    assert loads(made) == ["a"]


async def test_what_takes_more_than_was_expected_costs_an_idle_model_its_place() -> None:
    made = planned([busy("grown", 80), idle("idle", 30, for_seconds=1)])

    assert names(made.evictions) == ["idle"]


async def test_a_model_goes_to_the_gpu_where_idle_models_leave_it_room_and_else_beside_it() -> None:
    ways = needing(10, gpu=40, gpu_layers=9), needing(30, gpu=20, gpu_layers=4), needing(50)
    budget = budget_of(100, gpu=40)

    alone = planned([], wish("a", *ways), budget=budget)
    evicting = planned([idle("i", 9, gpu=40, for_seconds=1)], wish("a", *ways), budget=budget)
    beside = planned([busy("b", 9, gpu=20)], wish("a", *ways), budget=budget)
    without = planned([busy("b", 9, gpu=30)], wish("a", *ways), budget=budget)

    assert [need.gpu_layers for _, need in alone.loads] == [9]
    assert names(evicting.evictions) == ["i"]
    assert [need.gpu_layers for _, need in beside.loads] == [4]
    assert [need.gpu_layers for _, need in without.loads] == [0]


async def test_what_other_programs_hold_is_no_room() -> None:
    left = Room(30, 0, 99)
    budget = budget_of(100, free=lambda: left)

    waiting = planned([], wish("a", needing(40)), budget=budget)
    refused = planned([], wish("a", needing(40), waited=2.0), budget=budget)
    small = planned([loading("b", 10)], wish("a", needing(20)), budget=budget)
    too_much = planned([loading("b", 10)], wish("a", needing(21)), budget=budget)

    assert (waiting.num_waiting, waiting.refused) == (1, [])
    assert [(wish.name, room.main_bytes) for wish, room in refused.refused] == [("a", 30)]
    assert loads(small) == ["a"]
    assert too_much.loads == []


async def test_nobody_is_refused_while_a_load_may_still_go_wrong() -> None:
    budget = budget_of(100, free=lambda: Room(50, 0, 99))

    made = planned([loading("b", 45)], wish("a", needing(40), waited=5.0), budget=budget)

    assert (made.refused, made.num_waiting) == ([], 1)
