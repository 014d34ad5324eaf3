"""Dispatch with what models.toml can say about targets: time-outs, hedges, mirrors, headers."""

import asyncio

import msgspec
import pytest

from engines.errors import DoubtfullyUnavailable, Overloaded, Unavailable
from engines.protocol import EmbedRequest, Engine
from engines.wire import WireRequest
from gateway import Call, Principal, Target
from gateway.dispatch import TARGETS_HEADER, dispatch, dispatch_embed
from gateway.policy import (
    BreakerPolicy,
    FallbackPolicy,
    HedgePolicy,
    MirrorPolicy,
    ModelPolicy,
    RetryPolicy,
    TargetPolicy,
    TeamPolicy,
)
from tests.fakes import Hold, ScriptedEngine, text_of
from tests.gateway.targets.stage import REQUEST, StageOfTargets, routed_call, tried
from tests.virtual_time import run_in_virtual_time

EMBED = EmbedRequest(id="e", model="chat-small", inputs=["one two"])
GPU0 = Target("gpu0", "a")
TARGETS = (TargetPolicy(engine="gpu0", model="a"), TargetPolicy(engine="gpu1", model="a"))


def model(**fields: object) -> ModelPolicy:
    return ModelPolicy(name="chat-small", **{"targets": TARGETS, **fields})  # type: ignore[arg-type]


def engine(*script: object, says: str = "") -> ScriptedEngine:
    steps = script or tuple(says.split(" "))
    return ScriptedEngine(steps, model_names=["a"])  # type: ignore[arg-type]


def answered(policy: ModelPolicy, **engines: ScriptedEngine) -> tuple[str, Call, StageOfTargets]:
    """The text of an answer in virtual time, its call and the stage, all closed."""

    async def run() -> tuple[str, Call, StageOfTargets]:
        stage = StageOfTargets(engines, clock=asyncio.get_running_loop().time)
        call = routed_call(policy)
        try:
            text = text_of([event async for event in await dispatch(call, stage, REQUEST)])
        finally:
            await call.resources.aclose()
            await stage.targets.mirrors.close()
        return text, call, stage

    return run_in_virtual_time(run)


def test_a_target_without_output_in_time_is_left_for_the_next() -> None:
    slow = engine(30.0, "late")

    text, call, stage = answered(
        model(first_output_timeout_seconds=2), gpu0=slow, gpu1=engine(says="hi")
    )

    assert text == "hi"
    assert tried(call) == ["gpu0:first_output_timeout", "gpu1"]
    assert slow.running == 0
    assert stage.targets.state("gpu0", "a").breaker.failures == 1


def test_output_in_time_may_take_as_long_as_it_likes_from_then_on() -> None:
    slow = engine(1.0, "first", 100.0, "last")

    text, _, _ = answered(model(first_output_timeout_seconds=2), gpu0=slow, gpu1=engine("no"))

    assert text == "firstlast"


def test_when_every_target_is_late_the_caller_is_told_so() -> None:
    policy = model(first_output_timeout_seconds=2)

    with pytest.raises(Unavailable, match="no output within 2 seconds"):
        answered(policy, gpu0=engine(30.0, "x"), gpu1=engine(30.0, "x"))


def test_a_time_out_of_the_engine_itself_is_not_taken_for_ours() -> None:
    class Broken(ScriptedEngine):
        async def count_tokens(self, request: object) -> int:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        answered(model(first_output_timeout_seconds=2), gpu0=Broken(model_names=["a"]))


def test_a_failed_target_is_asked_again_after_a_pause() -> None:
    scripts = [[Overloaded("full", retry_after=1)], ["second", " time"]]
    busy = ScriptedEngine(lambda _: scripts.pop(0), model_names=["a"])

    text, call, stage = answered(model(targets=TARGETS[:1], retry=RetryPolicy(times=1)), gpu0=busy)

    assert text == "second time"
    assert tried(call) == ["gpu0:overloaded", "gpu0"]
    assert len(stage.slept) == 1


def test_an_engine_that_a_reload_took_away_is_left_for_the_next() -> None:
    text, call, _ = answered(model(), gpu1=engine(says="hi"))

    assert text == "hi"
    assert tried(call) == ["gpu0:unavailable", "gpu1"]


def test_a_place_is_held_until_the_answer_is_whole_or_closed() -> None:
    async def run() -> None:
        stage = StageOfTargets({"gpu0": engine("one", "two", "three")})
        for reads_all in (True, False):
            call = routed_call(model())
            stream = await dispatch(call, stage, REQUEST)
            assert stage.targets.in_flight("gpu0") == 1
            async for _ in stream:
                if not reads_all:
                    break
            await call.resources.aclose()
            assert stage.targets.in_flight("gpu0") == 0

    run_in_virtual_time(run)


def test_a_stream_that_breaks_counts_against_its_target_and_is_not_tried_elsewhere() -> None:
    policy = model(breaker=BreakerPolicy(failures=1))
    other = engine(says="no")

    async def run() -> StageOfTargets:
        stage = StageOfTargets({"gpu0": engine("half", Unavailable("died")), "gpu1": other})
        call = routed_call(policy)
        with pytest.raises(Unavailable, match="died"):
            async for _ in await dispatch(call, stage, REQUEST):
                pass
        await call.resources.aclose()
        return stage

    stage = run_in_virtual_time(run)

    assert stage.targets.why_not("gpu0", "a") == "breaker_open"
    assert stage.targets.in_flight("gpu0") == 0
    assert other.requests == []


def test_what_one_callers_requests_break_stays_open_to_all_others() -> None:
    """`laptop` sends what the upstream answers with a 500; `phone` sends what it can answer."""
    policy = model(breaker=BreakerPolicy(failures=2))

    async def run() -> StageOfTargets:
        sick = engine(DoubtfullyUnavailable("500"))
        stage = StageOfTargets({"gpu0": sick})
        for expected in ("500", "500", "no target"):
            with pytest.raises(Unavailable, match=expected):
                await dispatch(routed_call(policy, GPU0), stage, REQUEST)
        sick._script = ["fine"]
        call = routed_call(policy, GPU0)
        call.principal = Principal(name="phone", team="search")
        async for _ in await dispatch(call, stage, REQUEST):
            pass
        await call.resources.aclose()
        return stage

    stage = run_in_virtual_time(run)

    (report,) = stage.targets.snapshot().targets
    assert (report.breaker, report.callers_kept_out, report.answered) == ("closed", 1, 1)


def test_a_hedge_asks_a_second_target_and_closes_the_slower() -> None:
    slow, fast = engine(30.0, "slow"), engine(0.2, "fast")

    text, call, stage = answered(model(hedge=HedgePolicy(after_seconds=1)), gpu0=slow, gpu1=fast)

    assert text == "fast"
    assert call.target == Target("gpu1", "a")
    assert sorted(tried(call)) == ["gpu0:given_up", "gpu1"]
    assert (slow.running, slow.num_closed_early) == (0, 1)
    assert stage.targets.budget("chat-small").num_extra == 1
    assert stage.targets.in_flight("gpu0") == stage.targets.in_flight("gpu1") == 0


def test_a_hedge_that_is_not_needed_or_not_in_the_budget_is_not_made() -> None:
    other = engine(says="no")
    policy = model(hedge=HedgePolicy(after_seconds=1))
    assert answered(policy, gpu0=engine(0.5, "in time"), gpu1=other)[0] == "in time"

    broke = model(hedge=HedgePolicy(after_seconds=1), retry=RetryPolicy(budget_percent=0))
    assert answered(broke, gpu0=engine(5.0, "alone"), gpu1=other)[0] == "alone"

    assert other.requests == []


def test_when_a_hedged_target_fails_the_other_is_waited_for_and_then_the_fallback() -> None:
    policy = model(
        hedge=HedgePolicy(after_seconds=1),
        fallbacks=(FallbackPolicy(engine="overflow", model="a"),),
    )
    failing = {"gpu0": engine(3.0, Unavailable("x")), "gpu1": engine(1.0, Overloaded("y"))}

    text, call, _ = answered(policy, **failing, overflow=engine(says="hi"))

    assert text == "hi"
    assert tried(call) == ["gpu1:overloaded", "gpu0:unavailable", "overflow"]


def test_an_embedding_is_hedged_and_mirrored_too() -> None:
    class Slow(ScriptedEngine):
        async def load(self, model: str) -> object:  # type: ignore[override]
            await asyncio.sleep(9)
            return await super().load(model)

    policy = model(
        hedge=HedgePolicy(after_seconds=1), mirror=MirrorPolicy(engine="shadow", model="a")
    )

    async def run() -> None:
        shadow = engine(says="x")
        engines: dict[str, Engine] = {
            "gpu0": Slow(model_names=["a"]), "gpu1": engine(says="x"), "shadow": shadow,
        }  # fmt: skip
        stage = StageOfTargets(engines, clock=asyncio.get_running_loop().time)
        call = routed_call(policy)

        answer = await dispatch_embed(call, stage, EMBED)

        assert len(answer.vectors) == 1
        assert call.target == Target("gpu1", "a")
        assert [one.id for one in shadow.embed_requests] == ["e-mirror"]
        assert sum(one.in_flight for one in stage.targets.snapshot().targets) == 0
        await call.resources.aclose()

    run_in_virtual_time(run)


MIRRORED = model(mirror=MirrorPolicy(engine="shadow", model="a"))


def test_a_mirror_gets_a_copy_that_waits_behind_everyone_and_is_read_to_its_end() -> None:
    async def run() -> tuple[StageOfTargets, ScriptedEngine]:
        shadow = engine("thrown", "away")
        stage = StageOfTargets({"gpu0": engine(says="hi"), "shadow": shadow})
        call = routed_call(MIRRORED)
        assert text_of([event async for event in await dispatch(call, stage, REQUEST)]) == "hi"
        await call.resources.aclose()
        while stage.targets.mirrors.report().running:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        assert tried(call) == ["gpu0"]
        return stage, shadow

    stage, shadow = run_in_virtual_time(run)

    (copy,) = shadow.requests
    assert (copy.id, copy.owner, copy.prompt) == ("r-mirror", "mirror", REQUEST.prompt)
    assert copy.priority > 1000
    assert stage.targets.mirrors.report().completed == 1
    assert stage.targets.in_flight("shadow") == 0


@pytest.mark.parametrize("script", [[Unavailable("x")], [1e6, "never"], ["half", Unavailable("x")]])
def test_a_mirror_never_delays_or_fails_its_call(script: list[object]) -> None:
    text, call, stage = answered(MIRRORED, gpu0=engine(says="hi"), shadow=engine(*script))

    assert text == "hi"
    assert stage.targets.why_not("shadow", "a") == ""
    assert call.usage.completion_tokens == 1  # of its own answer alone


def test_a_mirror_that_takes_no_calls_gets_no_copies() -> None:
    async def run() -> None:
        shadow = engine(says="x")
        stage = StageOfTargets({"gpu0": engine(says="hi"), "shadow": shadow})
        stage.targets.drain("shadow")
        call = routed_call(MIRRORED)
        await dispatch(call, stage, REQUEST)
        await call.resources.aclose()
        await stage.targets.mirrors.close()
        assert shadow.requests == []

    run_in_virtual_time(run)


class Relaying(ScriptedEngine):
    def relays(self, dialect: str, method: str, path: str) -> bool:
        return path == "responses"


@pytest.mark.parametrize(
    ("path", "is_all", "kind", "num_copies"),
    [
        ("responses", True, Relaying, 1),
        ("audio/speech", True, Relaying, 0),
        ("responses", True, ScriptedEngine, 0),
        ("chat/completions", False, ScriptedEngine, 1),
    ],
)
def test_a_call_that_only_its_upstream_understands_is_copied_where_it_is_passed_on(
    path: str, kind: type[ScriptedEngine], num_copies: int, *, is_all: bool
) -> None:
    wire = WireRequest(dialect="openai", method="POST", path=path, body=b"{}", is_all=is_all)

    async def run() -> None:
        shadow = kind(["x"], model_names=["a"])
        stage = StageOfTargets({"gpu0": engine(says="hi"), "shadow": shadow})
        call = routed_call(MIRRORED)
        await dispatch(call, stage, msgspec.structs.replace(REQUEST, wire=wire))
        await call.resources.aclose()
        while stage.targets.mirrors.report().running:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        assert len(shadow.requests) == stage.targets.mirrors.report().sent == num_copies

    run_in_virtual_time(run)


def test_which_targets_were_tried_is_told_to_teams_that_may_know() -> None:
    async def run(*, show: bool) -> str | None:
        stage = StageOfTargets({"gpu0": engine(Overloaded("full")), "gpu1": engine(says="hi")})
        call = routed_call(model(), team=TeamPolicy(name="ops", show_targets=show))
        await dispatch(call, stage, REQUEST)
        await call.resources.aclose()
        return call.response_headers.get(TARGETS_HEADER)

    assert run_in_virtual_time(lambda: run(show=False)) is None
    assert run_in_virtual_time(lambda: run(show=True)) == "gpu0/a;left=overloaded, gpu1/a"


def test_a_refusal_tells_them_as_well_and_no_name_can_add_a_header() -> None:
    async def run() -> str:
        stage = StageOfTargets({"gpu0": engine(Overloaded("full"))})
        call = routed_call(model(), Target("gpu0", "a\r\nx-evil: ü, 1"),
                           team=TeamPolicy(name="ops", show_targets=True))  # fmt: skip
        with pytest.raises(Exception, match="does not exist"):
            await dispatch(call, stage, REQUEST)
        return call.response_headers[TARGETS_HEADER]

    header = run_in_virtual_time(run)

    assert header == "gpu0/a%0D%0Ax-evil:%20%C3%BC%2C%201;left=model_not_found"


def test_a_caller_who_leaves_frees_the_target_and_is_seen_in_what_was_tried() -> None:
    async def run() -> None:
        hold = Hold()
        stage = StageOfTargets({"gpu0": engine(hold, "never")})
        call = routed_call(model())
        waiting = asyncio.create_task(dispatch(call, stage, REQUEST))
        await hold.reached.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        assert tried(call) == ["gpu0:given_up"]
        assert stage.targets.in_flight("gpu0") == 0
        assert stage.targets.why_not("gpu0", "a") == ""

    run_in_virtual_time(run)
