from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import Route, Target
from gateway.policy import FallbackPolicy, ModelPolicy, TargetPolicy
from plugins.routing import Routing
from tests.plugins.policies import call_of, policy_of


def _targets(**weights: float) -> list[TargetPolicy]:
    return [TargetPolicy(engine=engine, weight=weight) for engine, weight in weights.items()]


def _model(targets: list[TargetPolicy], sticky: str | None = None) -> ModelPolicy:
    return ModelPolicy(name="chat-small", targets=targets, sticky=sticky)


async def _engine(
    model: ModelPolicy, *, drawn: float = 0.0, key: str | None = None, name: str = "chat-small"
) -> str:
    call = call_of(policy_of(models=[model]), key_id=key, model=name)
    route = await Routing(lambda: drawn).route(call)
    assert route is not None
    return route.targets[0].engine


@pytest.mark.parametrize(
    ("drawn", "engine"),
    [(0.0, "gpu0"), (0.7499, "gpu0"), (0.75, "gpu1"), (0.9999999999999999, "gpu1")],
)
async def test_targets_are_chosen_by_weight(drawn, engine):
    assert await _engine(_model(_targets(gpu0=3, gpu1=1)), drawn=drawn) == engine


@pytest.mark.parametrize("drawn", [0.0, 0.5, 0.9999999999999999])
async def test_a_target_of_weight_0_is_never_chosen(drawn):
    model = _model(_targets(first=0, gpu0=1, last=0))

    assert await _engine(model, drawn=drawn) == "gpu0"
    for number in range(50):
        assert await _engine(_model(model.targets, "key"), key=f"k{number}") == "gpu0"


async def test_fallbacks_follow_the_chosen_target_in_order_and_with_their_conditions():
    model = ModelPolicy(
        name="chat-small",
        targets=[TargetPolicy(engine="gpu0", model="qwen", weight=2)],
        fallbacks=[
            FallbackPolicy(engine="gpu1", on=["overloaded"]),
            FallbackPolicy(engine="overflow", model="other"),
        ],
    )

    route = await Routing(lambda: 0.0).route(call_of(policy_of(models=[model])))

    assert route == Route(
        (
            Target("gpu0", "qwen", weight=2),
            Target("gpu1", "chat-small", on=frozenset({"overloaded"})),
            Target("overflow", "other", on=frozenset({"overloaded", "unavailable"})),
        )
    )


async def test_a_model_behind_a_glob_is_asked_for_by_its_own_name():
    model = ModelPolicy(name="*", targets=_targets(gpu0=1))

    route = await Routing(lambda: 0.0).route(call_of(policy_of(models=[model]), model="qwen3:4b"))

    assert route == Route((Target("gpu0", "qwen3:4b"),))


async def test_a_call_without_a_model_has_no_route():
    assert await Routing().route(call_of(policy_of(), model=None)) is None


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


@given(
    weights=st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=5),
    drawn=st.floats(min_value=0, max_value=1, exclude_max=True),
    key=st.text(max_size=10),
    sticky=st.sampled_from(["key", None]),
)
async def test_any_weights_give_a_live_target_or_none(weights, drawn, key, sticky):
    targets = [
        TargetPolicy(engine=f"gpu{number}", weight=weight) for number, weight in enumerate(weights)
    ]
    policy = policy_of(models=[_model(targets, sticky)])

    route = await Routing(lambda: drawn).route(call_of(policy, key_id=key))

    if not any(weights):
        assert route is None
    else:
        assert route is not None
        assert route.targets[0].weight > 0
