"""Answers that are cut to what is left, where the policy says so."""

import asyncio

import pytest

from engines.errors import Unavailable
from engines.protocol import ModelInfo
from gateway import RateLimited, Route, Target
from tests.fakes import ScriptedEngine
from tests.plugins.limited import Stage, policy_with, standard
from tests.virtual_time import run_in_virtual_time


def clamping(
    tokens_per_minute: int, *, context_tokens: int = 8192, engine: ScriptedEngine | None = None
) -> Stage:
    """A stage of a model with such a context; fifty tokens are the guess of an answer."""
    limit = standard(tokens_per_minute=tokens_per_minute, clamp_output=True)
    return Stage(
        policy_with(limit, default_output_tokens=50),
        engine=engine or ScriptedEngine(model_names=["a"], context_tokens=context_tokens),
    )


def cap_of(call) -> int | None:
    (cap,) = {request.max_tokens for request in call.requests}
    assert call.response_headers.get("x-penstock-max-tokens") == (cap and str(cap))
    return cap


async def test_an_answer_is_cut_to_what_is_left_where_the_policy_says_so():
    stage = clamping(100)
    await stage.run(stage.call(words=3, max_tokens=40), prompt=3, output=40)

    call = await stage.run(stage.call(words=3, max_tokens=90, n=2), prompt=3, output=27)

    assert [request.max_tokens for request in call.requests] == [27, 27]
    assert call.response_headers["x-penstock-max-tokens"] == "27"
    assert isinstance(await stage.refused(stage.call(words=3, max_tokens=90)), RateLimited)


async def test_clamping_makes_room_for_what_could_never_fit():
    stage = clamping(100)

    call = await stage.run(stage.call(words=3, max_tokens=900))

    assert call.requests[0].max_tokens == 97


async def test_a_call_that_names_no_length_may_use_what_is_left_and_not_more():
    stage = clamping(2000)
    await stage.run(stage.call(words=3, max_tokens=1734), prompt=3, output=1734)

    call = stage.call(words=3)
    async with stage.admitted(call):
        # What others can have meanwhile is what the guess leaves.
        assert call.response_headers["x-ratelimit-remaining-tokens"] == str(263 - 3 - 50)

    assert cap_of(call) == 260


async def test_of_several_answers_each_may_use_its_part_of_what_is_left():
    stage = clamping(2000)

    assert cap_of(await stage.run(stage.call(words=10, n=2))) == (2000 - 10) // 2


async def test_a_cap_that_the_models_context_is_below_is_not_sent():
    """Strict upstreams refuse a call that asks for more than their context."""
    stage = clamping(100_000)
    assert cap_of(await stage.run(stage.call(words=92))) is None

    exactly = clamping(8192)
    assert cap_of(await exactly.run(exactly.call(words=92))) is None
    less = clamping(8191)
    assert cap_of(await less.run(less.call(words=92))) == 8191 - 92


@pytest.mark.parametrize(("left", "cap"), [(4000, 4000), (5000, None)])
async def test_where_no_context_is_known_a_cap_is_sent_that_most_upstreams_take(left, cap):
    stage = clamping(left + 3, context_tokens=0)

    assert cap_of(await stage.run(stage.call(words=3))) == cap


async def test_a_fallback_with_a_smaller_context_takes_the_cap_too():
    stage = clamping(4000)
    stage.engines["small"] = ScriptedEngine(model_names=["b"], context_tokens=2000)
    call = stage.call(words=3)
    call.route = Route((Target("gpu0", "a"), Target("small", "b")))

    assert cap_of(await stage.run(call)) is None


async def test_what_the_policy_allows_is_not_raised_to_what_is_left():
    stage = clamping(2000)
    call = stage.call(words=3)
    call.replace_requests(max_tokens=300)  # as `defaults` does
    await stage.run(call, prompt=3, output=1800)
    assert [request.max_tokens for request in call.requests] == [300]

    later = stage.call(words=3)
    later.replace_requests(max_tokens=300)
    assert cap_of(await stage.run(later)) == 2000 - 1803 - 3


async def test_a_limit_that_does_not_clamp_sends_no_cap():
    stage = clamping(2000)
    stage.policy = policy_with(standard(tokens_per_minute=2000))

    assert cap_of(await stage.run(stage.call(words=3))) is None


async def test_an_engine_that_does_not_tell_its_models_is_no_reason_to_fail():
    class Broken(ScriptedEngine):
        async def models(self) -> list[ModelInfo]:
            raise Unavailable("down")

    stage = clamping(1000, engine=Broken(model_names=["a"]))

    assert cap_of(await stage.run(stage.call(words=3))) == 997


def test_an_engine_that_tells_its_models_late_is_not_waited_for():
    class Slow(ScriptedEngine):
        async def models(self) -> list[ModelInfo]:
            await asyncio.sleep(3600)
            return []

    async def main() -> int | None:
        stage = clamping(1000, engine=Slow(model_names=["a"]))
        return cap_of(await stage.run(stage.call(words=3)))

    assert run_in_virtual_time(main) == 997
