import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import Unavailable
from engines.protocol import Health
from gateway import Call, Route, Target
from gateway.policy import (
    BreakerPolicy,
    CanaryPolicy,
    FallbackPolicy,
    ModelPolicy,
    TargetPolicy,
)
from tests.fakes import ScriptedEngine
from tests.plugins.policies import call_of, policy_of
from tests.plugins.routes import engine_of, engines_of, model_of, routing_of, weighted


@pytest.mark.parametrize(
    ("drawn", "engine"),
    [(0.0, "gpu0"), (0.7499, "gpu0"), (0.75, "gpu1"), (0.9999999999999999, "gpu1")],
)
async def test_targets_are_chosen_by_weight(drawn, engine):
    assert await engine_of(model_of(weighted(gpu0=3, gpu1=1)), drawn=drawn) == engine


@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.9999999999999999])
async def test_a_target_of_weight_0_is_never_chosen(drawn):
    model = model_of(weighted(first=0, gpu0=1, last=0))

    assert await engines_of(model, drawn=drawn) == ["gpu0"]
    for number in range(50):
        assert await engines_of(model_of(model.targets, "key"), key_id=f"k{number}") == ["gpu0"]


async def test_the_other_targets_follow_the_chosen_one_and_then_the_fallbacks():
    model = ModelPolicy(
        name="chat-small",
        targets=[TargetPolicy(engine="gpu0", model="qwen", weight=2), TargetPolicy(engine="gpu2")],
        fallbacks=[
            FallbackPolicy(engine="gpu1", on=["overloaded"]),
            FallbackPolicy(engine="gpu3", drain=True),
            FallbackPolicy(engine="overflow", model="other"),
        ],
    )

    route = await routing_of()[0].route(call_of(policy_of(models=[model])))

    assert route == Route(
        (
            Target("gpu0", "qwen", weight=2),
            Target("gpu2", "chat-small"),
            Target("gpu1", "chat-small", on=frozenset({"overloaded"})),
            Target("overflow", "other", on=frozenset({"overloaded", "unavailable"})),
        )
    )


async def test_a_model_behind_a_glob_is_asked_for_by_its_own_name():
    model = ModelPolicy(name="*", targets=weighted(gpu0=1))

    route = await routing_of()[0].route(call_of(policy_of(models=[model]), model="qwen3:4b"))

    assert route == Route((Target("gpu0", "qwen3:4b"),))


async def test_a_route_that_is_kept_holds_for_the_policy_that_it_was_made_of():
    routing, _ = routing_of()

    for engine in ("gpu0", "gpu1", "gpu0"):
        model = model_of(weighted(**{engine: 1}))
        assert await engines_of(model, routing=routing) == [engine]
        assert await engines_of(model, routing=routing) == [engine]


async def test_a_kept_route_is_not_that_of_another_name_behind_the_same_glob():
    routing, _ = routing_of()
    policy = policy_of(models=[ModelPolicy(name="*", targets=weighted(gpu0=1))])

    for name in ("qwen3:4b", "qwen3:8b", "qwen3:4b"):
        assert await routing.route(call_of(policy, model=name)) == Route((Target("gpu0", name),))


async def test_a_call_without_a_model_has_no_route():
    assert await routing_of()[0].route(call_of(policy_of(), model=None)) is None


async def test_lower_priorities_go_first_whatever_the_weights():
    targets = [
        TargetPolicy(engine="last", priority=5, weight=1000),
        TargetPolicy(engine="gpu0", weight=1),
        TargetPolicy(engine="gpu1", weight=1),
        TargetPolicy(engine="first", priority=-1, weight=0.01),
    ]

    for drawn in (0.0, 0.99):
        order = await engines_of(model_of(targets), drawn=drawn)
        assert (order[0], order[-1]) == ("first", "last")


async def test_a_target_that_the_policy_drains_is_in_no_route():
    targets = [TargetPolicy(engine="gpu0", drain=True), TargetPolicy(engine="gpu1")]

    assert await engines_of(model_of(targets)) == ["gpu1"]
    assert await engines_of(model_of(targets, "key")) == ["gpu1"]


CANARY = TargetPolicy(
    engine="canary",
    canary=CanaryPolicy(
        teams=("ops",), keys=("k3v9*",), headers={"X-Canary": "yes*"}
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "is_meant"),
    [
        ({}, False),
        ({"team": "ops"}, True),
        ({"key_id": "k3v90q2m"}, True),
        ({"key_id": "k4"}, False),
        ({"headers": {"x-canary": "yes please"}}, True),
        ({"headers": {"x-canary": "no"}}, False),
    ],
)
async def test_a_canary_is_for_its_teams_keys_and_headers(fields, is_meant):
    order = await engines_of(model_of([*weighted(gpu0=1, gpu1=1), CANARY]), **fields)

    assert order == (["canary", "gpu0", "gpu1"] if is_meant else ["gpu0", "gpu1"])


@pytest.mark.parametrize("sticky", [None, "key"])
async def test_a_canary_for_nobody_in_particular_is_for_a_share_of_all_calls(sticky):
    canary = TargetPolicy(engine="canary", canary=CanaryPolicy(percent=10))
    model = model_of([*weighted(gpu0=1), canary], sticky)
    routing, _ = routing_of(random.Random(7).random)

    counts = Counter([await engine_of(model, key=f"k{n}", routing=routing) for n in range(10_000)])

    assert 900 < counts["canary"] < 1100


async def test_a_key_that_is_in_a_sticky_canary_stays_in_it():
    canary = TargetPolicy(engine="canary", canary=CanaryPolicy(percent=50))
    model = model_of([*weighted(gpu0=1), canary], "key")

    for number in range(50):
        seen = {await engine_of(model, key=f"k{number}", drawn=drawn) for drawn in (0.0, 0.5, 0.99)}
        assert len(seen) == 1


async def test_a_canary_that_takes_no_calls_is_for_nobody():
    for change in {"drain": True}, {"weight": 0}:
        canary = TargetPolicy(engine="canary", canary=CanaryPolicy(percent=100), **change)

        assert await engines_of(model_of([*weighted(gpu0=1), canary])) == ["gpu0"]


async def test_the_least_busy_target_for_its_weight_goes_first():
    model = model_of(weighted(small=1, large=4), choice="least_busy")
    routing, stage = routing_of()

    chosen = []
    for _ in range(10):
        engine = await engine_of(model, routing=routing)
        stage.targets.begin(Target(engine, "chat-small"), BreakerPolicy())
        chosen.append(engine)

    assert Counter(chosen) == {"large": 8, "small": 2}


async def test_chance_decides_among_equally_busyweighted():
    model = model_of(weighted(a=1, b=1, c=1), choice="least_busy")
    routing, _ = routing_of(random.Random(1).random)

    counts = Counter([await engine_of(model, routing=routing) for _ in range(3000)])

    assert all(900 < count < 1100 for count in counts.values())


async def test_the_faster_of_two_is_chosen_and_a_slow_one_gets_chances_again():
    model = model_of(weighted(fast=1, slow=1), choice="latency")
    routing, stage = routing_of(random.Random(1).random)
    now = stage.targets.clock()
    stage.targets.state("fast", "chat-small").latency.observe(0.1, now)
    stage.targets.state("slow", "chat-small").latency.observe(2.0, now)

    assert {await engine_of(model, routing=routing) for _ in range(50)} == {"fast"}

    for _ in range(30):
        stage.targets.begin(Target("fast", "chat-small"), BreakerPolicy())
    assert {await engine_of(model, routing=routing) for _ in range(50)} == {"slow"}


async def test_the_slowest_of_many_is_never_drawn_first_and_all_are_in_the_route():
    model = model_of(weighted(a=1, b=1, c=1, slow=1), choice="latency")
    routing, stage = routing_of(random.Random(1).random)
    for name, seconds in ("a", 0.1), ("b", 0.1), ("c", 0.1), ("slow", 9.0):
        stage.targets.state(name, "chat-small").latency.observe(seconds, stage.targets.clock())

    orders = [await engines_of(model, routing=routing) for _ in range(200)]

    assert {order[0] for order in orders} == {"a", "b", "c"}
    assert all(sorted(order) == ["a", "b", "c", "slow"] for order in orders)


@pytest.mark.parametrize("num_usable", [0, 1, 2])
async def test_choosing_by_latency_prefers_targets_that_take_calls(num_usable):
    model = model_of(weighted(a=1, b=1, c=1), choice="latency")
    routing, stage = routing_of(random.Random(1).random)
    for name in "abc"[num_usable:]:
        stage.targets.note_health(name, Health(ready=False))

    orders = [await engines_of(model, routing=routing) for _ in range(100)]

    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    if num_usable == 2:
        assert {order[0] for order in orders} == {"a", "b"}


async def test_a_target_that_is_down_keeps_its_turn_so_that_it_is_seen_to_be_passed_over():
    model = model_of(weighted(gpu0=1, gpu1=1))
    routing, stage = routing_of()
    attempt = stage.targets.begin(Target("gpu0", "chat-small"), BreakerPolicy(failures=1))
    attempt.failed(Unavailable("gone"))

    assert await engines_of(model, routing=routing) == ["gpu0", "gpu1"]


WEIGHTS = st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=5)


@given(
    weights=WEIGHTS,
    drawn=st.floats(min_value=0, max_value=1, exclude_max=True),
    key=st.text(max_size=10),
    sticky=st.sampled_from(["key", "session", "prefix", None]),
    choice=st.sampled_from(["weight", "least_busy", "latency"]),
)
async def test_any_weights_give_every_live_target_once_or_none(weights, drawn, key, sticky, choice):
    targets = [
        TargetPolicy(engine=f"gpu{number}", weight=weight) for number, weight in enumerate(weights)
    ]
    call: Call = call_of(policy_of(models=[model_of(targets, sticky, choice=choice)]), key_id=key)

    route = await routing_of(lambda: drawn)[0].route(call)

    if not any(weights):
        assert route is None
    else:
        assert route is not None
        live = [target.engine for target in targets if target.weight > 0]
        assert sorted(target.engine for target in route.targets) == sorted(live)


class Listing(ScriptedEngine):
    """An engine that knows which models it has not."""

    def lacks(self, model: str) -> bool:
        return model not in self._model_names


async def test_behind_a_glob_who_lists_no_such_model_comes_last():
    routing, stage = routing_of(lambda: 0.0)
    stage.engines = {
        "gpu0": Listing(name="gpu0", model_names=["a0"]),
        "gpu1": Listing(name="gpu1", model_names=["a1"]),
        "gpu2": ScriptedEngine(name="gpu2"),
    }

    async def order(name: str, targets: list[TargetPolicy]) -> list[tuple[str, bool]]:
        policy = policy_of(models=[ModelPolicy(name="*", targets=targets)])
        route = await routing.route(call_of(policy, model=name))
        assert route is not None
        return [(target.engine, target.is_unlisted) for target in route.targets]

    two, three = weighted(gpu0=1, gpu1=1), weighted(gpu0=1, gpu1=1, gpu2=1)
    assert await order("a0", two) == [("gpu0", False), ("gpu1", True)]
    assert await order("a1", two) == [("gpu1", False), ("gpu0", True)]
    assert await order("new", two) == [("gpu0", False), ("gpu1", False)]
    assert await order("new", three) == [("gpu2", False), ("gpu0", True), ("gpu1", True)]
    renamed = [TargetPolicy(engine="gpu0", model="a0"), TargetPolicy(engine="gpu1")]
    assert await order("a1", renamed) == [("gpu0", False), ("gpu1", False)]


async def test_a_target_with_a_name_of_its_own_is_asked_whatever_is_listed():
    routing, stage = routing_of(lambda: 0.0)
    stage.engines = {"gpu0": Listing(name="gpu0", model_names=[]), "gpu1": ScriptedEngine()}

    route = await routing.route(call_of(policy_of(models=[model_of(weighted(gpu0=1, gpu1=1))])))

    assert route is not None
    assert [target.engine for target in route.targets] == ["gpu0", "gpu1"]
