import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import Unavailable
from engines.protocol import GenerateRequest, Health, Message, Text
from gateway import Call, Route, Target
from gateway.policy import (
    BreakerPolicy,
    CanaryPolicy,
    FallbackPolicy,
    ModelPolicy,
    TargetPolicy,
)
from plugins.routing import ALWAYS_ROOM_FOR, Routing
from tests.gateway.targets.stage import StageOfTargets
from tests.plugins.policies import call_of, policy_of


def _targets(**weights: float) -> list[TargetPolicy]:
    return [TargetPolicy(engine=engine, weight=weight) for engine, weight in weights.items()]


def _model(targets: list[TargetPolicy], sticky: str | None = None, **fields: object) -> ModelPolicy:
    return ModelPolicy(name="chat-small", targets=targets, sticky=sticky, **fields)


def _routing(draw: Callable[[], float] = lambda: 0.0) -> tuple[Routing, StageOfTargets]:
    stage = StageOfTargets({})
    return Routing(stage, draw=draw), stage


async def _engines(
    model: ModelPolicy,
    *requests: GenerateRequest,
    routing: Routing | None = None,
    drawn: float = 0.0,
    session: str = "",
    **call_fields: object,
) -> list[str]:
    """The engines of a call's route, in their order."""
    call = call_of(policy_of(models=[model]), *requests, **call_fields)
    call.session = session
    route = await (routing or _routing(lambda: drawn)[0]).route(call)
    assert route is not None
    return [target.engine for target in route.targets]


async def _engine(
    model: ModelPolicy, *requests: GenerateRequest, key: str | None = None, **fields: object
) -> str:
    return (await _engines(model, *requests, key_id=key, **fields))[0]


@pytest.mark.parametrize(
    ("drawn", "engine"),
    [(0.0, "gpu0"), (0.7499, "gpu0"), (0.75, "gpu1"), (0.9999999999999999, "gpu1")],
)
async def test_targets_are_chosen_by_weight(drawn, engine):
    assert await _engine(_model(_targets(gpu0=3, gpu1=1)), drawn=drawn) == engine


@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.9999999999999999])
async def test_a_target_of_weight_0_is_never_chosen(drawn):
    model = _model(_targets(first=0, gpu0=1, last=0))

    assert await _engines(model, drawn=drawn) == ["gpu0"]
    for number in range(50):
        assert await _engines(_model(model.targets, "key"), key_id=f"k{number}") == ["gpu0"]


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

    route = await _routing()[0].route(call_of(policy_of(models=[model])))

    assert route == Route(
        (
            Target("gpu0", "qwen", weight=2),
            Target("gpu2", "chat-small"),
            Target("gpu1", "chat-small", on=frozenset({"overloaded"})),
            Target("overflow", "other", on=frozenset({"overloaded", "unavailable"})),
        )
    )


async def test_a_model_behind_a_glob_is_asked_for_by_its_own_name():
    model = ModelPolicy(name="*", targets=_targets(gpu0=1))

    route = await _routing()[0].route(call_of(policy_of(models=[model]), model="qwen3:4b"))

    assert route == Route((Target("gpu0", "qwen3:4b"),))


async def test_a_call_without_a_model_has_no_route():
    assert await _routing()[0].route(call_of(policy_of(), model=None)) is None


async def test_lower_priorities_go_first_whatever_the_weights():
    targets = [
        TargetPolicy(engine="last", priority=5, weight=1000),
        TargetPolicy(engine="gpu0", weight=1),
        TargetPolicy(engine="gpu1", weight=1),
        TargetPolicy(engine="first", priority=-1, weight=0.01),
    ]

    for drawn in (0.0, 0.99):
        order = await _engines(_model(targets), drawn=drawn)
        assert (order[0], order[-1]) == ("first", "last")


async def test_a_target_that_the_policy_drains_is_in_no_route():
    targets = [TargetPolicy(engine="gpu0", drain=True), TargetPolicy(engine="gpu1")]

    assert await _engines(_model(targets)) == ["gpu1"]
    assert await _engines(_model(targets, "key")) == ["gpu1"]


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
    order = await _engines(_model([*_targets(gpu0=1, gpu1=1), CANARY]), **fields)

    assert order == (["canary", "gpu0", "gpu1"] if is_meant else ["gpu0", "gpu1"])


@pytest.mark.parametrize("sticky", [None, "key"])
async def test_a_canary_for_nobody_in_particular_is_for_a_share_of_all_calls(sticky):
    canary = TargetPolicy(engine="canary", canary=CanaryPolicy(percent=10))
    model = _model([*_targets(gpu0=1), canary], sticky)
    routing, _ = _routing(random.Random(7).random)

    counts = Counter([await _engine(model, key=f"k{n}", routing=routing) for n in range(10_000)])

    assert 900 < counts["canary"] < 1100


async def test_a_key_that_is_in_a_sticky_canary_stays_in_it():
    canary = TargetPolicy(engine="canary", canary=CanaryPolicy(percent=50))
    model = _model([*_targets(gpu0=1), canary], "key")

    for number in range(50):
        seen = {await _engine(model, key=f"k{number}", drawn=drawn) for drawn in (0.0, 0.5, 0.99)}
        assert len(seen) == 1


async def test_a_canary_that_takes_no_calls_is_for_nobody():
    for change in {"drain": True}, {"weight": 0}:
        canary = TargetPolicy(engine="canary", canary=CanaryPolicy(percent=100), **change)

        assert await _engines(_model([*_targets(gpu0=1), canary])) == ["gpu0"]


async def test_a_key_keeps_its_target():
    model = _model(_targets(gpu0=1, gpu1=1), "key")

    for number in range(20):
        chosen = {await _engine(model, drawn=drawn, key=f"k{number}") for drawn in (0.0, 0.9)}
        assert len(chosen) == 1


async def test_sticky_keys_are_spread_by_weight():
    model = _model(_targets(gpu0=3, gpu1=1), "key")

    counts = Counter([await _engine(model, key=f"k{number}") for number in range(2000)])

    assert 1400 < counts["gpu0"] < 1600


async def test_a_new_target_moves_keys_only_to_itself():
    before = _model(_targets(gpu0=1, gpu1=1), "key")
    after = _model(_targets(gpu0=1, gpu1=1, gpu2=1), "key")

    moved = 0
    for number in range(300):
        old, new = [await _engine(model, key=f"k{number}") for model in (before, after)]
        assert new in (old, "gpu2")
        moved += new != old

    assert 60 < moved < 140


async def test_callers_without_a_key_stick_by_who_they_are():
    model = _model(_targets(gpu0=1, gpu1=1), "key")

    assert len({await _engine(model, drawn=drawn) for drawn in (0.0, 0.5, 0.99)}) == 1


async def test_where_a_key_goes_is_fixed_for_ever():
    """These may not change: a new version that moves every key empties every prefix cache."""
    model = _model(_targets(gpu0=1, gpu1=1, gpu2=1), "key")

    places = "".join([(await _engine(model, key=f"k{n}"))[-1] for n in range(8)])
    assert places == "20221211"


async def test_a_session_is_named_by_the_header_else_the_body_else_the_key():
    model = _model(_targets(a=1, b=1, c=1, d=1), "session", session_header="X-Chat")

    def of(**fields: object):
        return _engine(model, **fields)

    for number in range(20):
        name = f"s{number}"
        by_header = await of(headers={"x-chat": name}, session="other", key="k")
        assert by_header == await of(headers={"x-chat": name}, key="k2")
        assert by_header == await of(session=name)
        key = f"k{number}"
        assert await of(key=key) == await _engine(_model(model.targets, "key"), key=key)


async def test_sessions_of_two_teams_have_nothing_to_do_with_each_other():
    model = _model(_targets(a=1, b=1, c=1, d=1), "session")

    pairs = [
        [await _engine(model, session=f"s{n}", team=team) for team in ("search", "ops")]
        for n in range(100)
    ]

    assert 10 < sum(one == other for one, other in pairs) < 50


def _chat(*said: tuple[str, str], salt: str = "") -> GenerateRequest:
    messages = [Message(role=role, parts=(Text(text),)) for role, text in said]
    return GenerateRequest(id="r", model="m", messages=messages, cache_salt=salt)


async def test_a_conversation_keeps_its_target_as_it_grows():
    model = _model(_targets(a=1, b=1, c=1, d=1), "prefix")

    for number in range(20):
        first = [("system", "be kind"), ("user", f"question {number}")]
        later = [*first, ("assistant", "an answer"), ("user", "and then?")]
        assert await _engine(model, _chat(*first)) == await _engine(model, _chat(*later))


async def test_only_the_beginning_of_a_prompt_decides():
    model = _model(_targets(a=1, b=1, c=1, d=1), "prefix", prefix_characters=10)

    def text(prompt: str) -> GenerateRequest:
        return GenerateRequest(id="r", model="m", prompt=prompt)

    same = {await _engine(model, text("0123456789" + str(number))) for number in range(50)}
    other = {await _engine(model, text(f"{number:02}23456789")) for number in range(50)}
    chats = {
        await _engine(model, _chat(("system", "0123456789"), ("user", str(number))))
        for number in range(50)
    }
    tokens = {
        await _engine(model, GenerateRequest(id="r", model="m", prompt=[*range(10), number]))
        for number in range(50)
    }

    assert len(same) == len(chats) == len(tokens) == 1
    assert len(other) == 4


async def test_prefixes_of_two_cache_salts_are_two():
    model = _model(_targets(a=1, b=1, c=1, d=1), "prefix")

    assert len({await _engine(model, _chat(("user", "x"), salt=f"t{n}")) for n in range(50)}) == 4


async def test_a_hot_prefix_spills_over_and_comes_back():
    model = _model(_targets(a=1, b=1, c=1, d=1), "prefix")
    routing, stage = _routing()
    order = await _engines(model, _chat(("user", "x")), routing=routing)
    rules = BreakerPolicy()

    running = [
        stage.targets.begin(Target(order[0], "chat-small"), rules) for _ in range(ALWAYS_ROOM_FOR)
    ]
    assert (await _engines(model, _chat(("user", "x")), routing=routing))[0] == order[1]

    running.pop().end()
    assert await _engines(model, _chat(("user", "x")), routing=routing) == order


async def test_the_least_busy_target_for_its_weight_goes_first():
    model = _model(_targets(small=1, large=4), choice="least_busy")
    routing, stage = _routing()

    chosen = []
    for _ in range(10):
        engine = await _engine(model, routing=routing)
        stage.targets.begin(Target(engine, "chat-small"), BreakerPolicy())
        chosen.append(engine)

    assert Counter(chosen) == {"large": 8, "small": 2}


async def test_chance_decides_among_equally_busy_targets():
    model = _model(_targets(a=1, b=1, c=1), choice="least_busy")
    routing, _ = _routing(random.Random(1).random)

    counts = Counter([await _engine(model, routing=routing) for _ in range(3000)])

    assert all(900 < count < 1100 for count in counts.values())


async def test_the_faster_of_two_is_chosen_and_a_slow_one_gets_chances_again():
    model = _model(_targets(fast=1, slow=1), choice="latency")
    routing, stage = _routing(random.Random(1).random)
    now = stage.targets.clock()
    stage.targets.state("fast", "chat-small").latency.observe(0.1, now)
    stage.targets.state("slow", "chat-small").latency.observe(2.0, now)

    assert {await _engine(model, routing=routing) for _ in range(50)} == {"fast"}

    for _ in range(30):
        stage.targets.begin(Target("fast", "chat-small"), BreakerPolicy())
    assert {await _engine(model, routing=routing) for _ in range(50)} == {"slow"}


async def test_the_slowest_of_many_is_never_drawn_first_and_all_are_in_the_route():
    model = _model(_targets(a=1, b=1, c=1, slow=1), choice="latency")
    routing, stage = _routing(random.Random(1).random)
    for name, seconds in ("a", 0.1), ("b", 0.1), ("c", 0.1), ("slow", 9.0):
        stage.targets.state(name, "chat-small").latency.observe(seconds, stage.targets.clock())

    orders = [await _engines(model, routing=routing) for _ in range(200)]

    assert {order[0] for order in orders} == {"a", "b", "c"}
    assert all(sorted(order) == ["a", "b", "c", "slow"] for order in orders)


@pytest.mark.parametrize("num_usable", [0, 1, 2])
async def test_choosing_by_latency_prefers_targets_that_take_calls(num_usable):
    model = _model(_targets(a=1, b=1, c=1), choice="latency")
    routing, stage = _routing(random.Random(1).random)
    for name in "abc"[num_usable:]:
        stage.targets.note_health(name, Health(ready=False))

    orders = [await _engines(model, routing=routing) for _ in range(100)]

    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    if num_usable == 2:
        assert {order[0] for order in orders} == {"a", "b"}


async def test_a_target_that_is_down_keeps_its_turn_so_that_it_is_seen_to_be_passed_over():
    model = _model(_targets(gpu0=1, gpu1=1))
    routing, stage = _routing()
    attempt = stage.targets.begin(Target("gpu0", "chat-small"), BreakerPolicy(failures=1))
    attempt.failed(Unavailable("gone"))

    assert await _engines(model, routing=routing) == ["gpu0", "gpu1"]


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
    call: Call = call_of(policy_of(models=[_model(targets, sticky, choice=choice)]), key_id=key)

    route = await _routing(lambda: drawn)[0].route(call)

    if not any(weights):
        assert route is None
    else:
        assert route is not None
        live = [target.engine for target in targets if target.weight > 0]
        assert sorted(target.engine for target in route.targets) == sorted(live)
