import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engines.errors import ContextTooLong, Unavailable, Unsupported
from engines.protocol import Finished, FinishReason, GenerateRequest, ToolCallDelta, Usage
from gateway import Call, RateLimited, Route, Target, hookimpl
from gateway.gateway import Gateway
from gateway.hooks import Hooks
from gateway.parity.aspects import Aspect
from gateway.parity.policy_side import PolicySide, settings_for
from gateway.parity.problems import CannotCompare
from gateway.parity.prompt_set import EMBEDDINGS, Prompt
from gateway.parity.side import Manner
from gateway.settings import Settings
from tests.fakes import Hold, Script, ScriptedEngine, Step
from tests.gateway.parity.places import (
    TemplatedEngine,
    UnrenderingEngine,
    compared,
    policy_side,
    prompt,
)
from tests.serving import scripted_gateway, write_policy


def two_sides(tmp_path: Path, one: ScriptedEngine, other: ScriptedEngine) -> list[PolicySide]:
    return [policy_side(tmp_path / "dev", one), policy_side(tmp_path / "prod", other)]


async def found(
    tmp_path: Path, one: Script, other: Script, **body: object
) -> dict[Aspect, tuple[bool | None, str]]:
    """What is found between two scripts."""
    sides = two_sides(tmp_path, ScriptedEngine(one), ScriptedEngine(other))
    report = await compared(sides, [prompt(**body)])  # type: ignore[arg-type]
    findings = report.comparisons[0].findings[0]
    return {aspect: (finding.agrees, finding.detail) for aspect, finding in findings.items()}


async def test_the_same_engine_under_two_policies_is_equal(tmp_path: Path) -> None:
    report = await compared(two_sides(tmp_path, TemplatedEngine(), TemplatedEngine()))

    (comparison,) = report.comparisons
    agreeing = {share.aspect for share in comparison.shares if share.agreeing}
    assert report.holds
    assert {Aspect.PROMPT, Aspect.PROMPT_TOKENS, Aspect.TEXT, Aspect.FINISH_REASON} <= agreeing
    assert [side.targets for side in report.sides] == [["scripted/scripted-model"]] * 2


async def test_another_template_is_found_although_the_text_is_the_same(tmp_path: Path) -> None:
    dev, prod = TemplatedEngine(template="<u> {} <a>"), TemplatedEngine(template="<u> {} <a> <t>")

    report = await compared(two_sides(tmp_path, dev, prod))

    finding = report.comparisons[0].findings[0]
    assert not report.holds
    assert finding[Aspect.TEXT].agrees
    assert finding[Aspect.PROMPT].detail == "token 3, after ‘<u> hi <a>’: the end | [ <t>]"
    assert finding[Aspect.PROMPT_TOKENS].detail == "3 | 4"


async def test_another_text_is_found_where_it_begins_to_differ(tmp_path: Path) -> None:
    findings = await found(tmp_path, ["one", " two", " three"], ["one", " too", " three"])

    agrees, detail = findings[Aspect.TEXT]
    assert agrees is False
    assert detail.startswith("character 5, after ‘one t’: ‘wo three’ | ‘oo three’")
    assert findings[Aspect.FINISH_REASON][0] is True
    assert findings[Aspect.COMPLETION_TOKENS][0] is None


async def test_another_finish_reason_is_found(tmp_path: Path) -> None:
    ending = Finished(reason=FinishReason.LENGTH, usage=Usage(completion_tokens=2))

    findings = await found(tmp_path, ["hello", " you"], ["hello", " you", ending])

    assert findings[Aspect.FINISH_REASON] == (False, "stop | length")
    assert findings[Aspect.TEXT][0] is True


async def test_tokens_that_nobody_counted_are_not_compared(tmp_path: Path) -> None:
    def ending(number: int, *, is_estimate: bool) -> Finished:
        usage = Usage(prompt_tokens=number, completion_tokens=number, is_estimate=is_estimate)
        return Finished(reason=FinishReason.STOP, usage=usage)

    estimated, counted = ending(14, is_estimate=True), ending(20, is_estimate=False)

    for name, one, other in (("first", estimated, counted), ("second", counted, estimated)):
        findings = await found(tmp_path / name, ["hello", one], ["hello", other])

        assert findings[Aspect.PROMPT_TOKENS][0] is None
        assert findings[Aspect.COMPLETION_TOKENS][0] is None
        assert findings[Aspect.TEXT][0] is True


async def test_json_that_is_invalid_on_one_side_is_found(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}

    findings = await found(tmp_path, ['{"age": 7}'], ['{"age": "7"}'], response_format=wanted)

    assert findings[Aspect.JSON] == (False, "valid | $.age: '7' is not of type 'integer'")


async def test_tool_calls_are_compared_by_name_and_meaning(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    calls = [
        [ToolCallDelta(index=0, id="a", name="add"), ToolCallDelta(index=0, arguments=arguments)]
        for arguments in ('{"x": 1, "y": 2.0}', '{"y":2,"x":1}', '{"x": 1, "y": 3}')
    ]

    same = await found(tmp_path / "1", calls[0], calls[1], tools=[tool])
    different = await found(tmp_path / "2", calls[0], calls[2], tools=[tool])

    assert same[Aspect.TOOL_CALLS][0] is True
    assert different[Aspect.TOOL_CALLS] == (False, 'add({"x":1,"y":2}) | add({"x":1,"y":3})')


async def test_a_refusal_everywhere_agrees_and_a_failure_everywhere_does_not(
    tmp_path: Path,
) -> None:
    refused = await found(tmp_path / "1", [Unsupported("no")], [ContextTooLong(
        prompt_tokens=9, context_tokens=8)])  # fmt: skip
    failed = await found(tmp_path / "2", [Unavailable("down")], [Unavailable("down")])
    one = await found(tmp_path / "3", ["hello"], [Unsupported("no")])

    assert refused[Aspect.ANSWERED][0] is True
    assert failed[Aspect.ANSWERED] == (False, "unavailable: down | unavailable: down")
    assert one[Aspect.ANSWERED] == (False, "an answer | unsupported: no")
    assert one[Aspect.TEXT][0] is None


async def test_log_probabilities_are_asked_for_and_given_up_where_they_are_refused(
    tmp_path: Path,
) -> None:
    def script(request: GenerateRequest) -> list[Step]:
        return ["hello"] if request.logprobs is None else [Unsupported("no log-probabilities")]

    engine = ScriptedEngine(script)
    side = policy_side(tmp_path / "dev", engine)

    async with side.opened() as asker:
        answer = await asker.ask(prompt(), Manner())

    assert answer.text == "hello"
    assert [request.logprobs for request in engine.requests] == [5, None]
    assert all(request.sampling.temperature == 0 for request in engine.requests)


async def test_embeddings_are_compared(tmp_path: Path) -> None:
    sides = two_sides(tmp_path, ScriptedEngine(), ScriptedEngine())
    vectors = Prompt(name="vectors", endpoint=EMBEDDINGS, body={"input": ["a b", "c"]})

    report = await compared(sides, [vectors])

    finding = report.comparisons[0].findings[0]
    assert finding[Aspect.EMBEDDINGS].detail == "cosine 1.00000"
    assert finding[Aspect.PROMPT_TOKENS].agrees


async def test_a_prompt_that_cannot_be_shown_is_answered_all_the_same(tmp_path: Path) -> None:
    report = await compared(two_sides(tmp_path, TemplatedEngine(), UnrenderingEngine()))

    finding = report.comparisons[0].findings[0]
    assert finding[Aspect.TEXT].agrees
    assert finding[Aspect.PROMPT].agrees is None


async def test_a_prompt_that_breaks_an_engine_does_not_end_the_others(tmp_path: Path) -> None:
    def script(request: GenerateRequest) -> list[Step]:
        if request.messages[-1].text == "break":
            raise ZeroDivisionError("seven")
        return ["fine"]

    sides = two_sides(tmp_path, ScriptedEngine(script), ScriptedEngine(["fine"]))

    report = await compared(sides, [prompt("break"), prompt("go on")])

    broken, fine = report.comparisons[0].findings
    assert broken[Aspect.ANSWERED].detail == "internal: ZeroDivisionError: seven | an answer"
    assert fine[Aspect.TEXT].agrees


async def test_an_answer_that_takes_too_long_is_a_failure(tmp_path: Path) -> None:
    side = policy_side(tmp_path / "dev", ScriptedEngine(["half", Hold()]))

    async with side.opened() as asker:
        answer = await asker.ask(prompt(), Manner(timeout_seconds=0.05, logprobs=False))

    assert answer.failure is not None
    assert (answer.failure.kind, answer.failure.code) == ("failed", "timeout")


class Limiting:
    """A plugin that lets nothing in, counts what it sees, and is alive."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None, None]:
        self.seen.append("lifespan")
        yield

    @hookimpl
    @asynccontextmanager
    async def observe(self, call: Call) -> AsyncGenerator[None, None]:
        self.seen.append("observe")
        yield

    @hookimpl
    @asynccontextmanager
    async def admit(self, call: Call) -> AsyncGenerator[None, None]:
        self.seen.append("admit")
        raise RateLimited("nothing is left", retry_after=9.0)
        yield

    @hookimpl
    async def authorize(self, call: Call) -> None:
        self.seen.append("authorize")


class OneWay:
    """A plugin that routes every call to the scripted engine."""

    @hookimpl
    async def route(self, call: Call) -> Route | None:
        return Route((Target("scripted", "scripted-model"),))


async def test_nothing_that_lets_calls_in_or_counts_them_runs(tmp_path: Path) -> None:
    limiting = Limiting()

    def opening(settings: Settings) -> Gateway:
        engines = {"scripted": ScriptedEngine()}
        gateway = scripted_gateway(settings.policy, engines, settings=settings)
        gateway.hooks = Hooks([("limiting", limiting), ("one_way", OneWay())])
        return gateway

    directory = write_policy(tmp_path / "p")
    side = PolicySide(directory, "gpt-4o-mini", name="p", scratch=tmp_path, opening=opening)
    async with side.opened() as asker:
        answer = await asker.ask(prompt(), Manner())

    assert answer.text == "hello there"
    assert limiting.seen == []


async def test_a_prompt_is_asked_once_whatever_mirrors_and_hedges_the_policy_has(
    tmp_path: Path,
) -> None:
    models = """
        [chat-small]
        hedge  = { after_seconds = 0.001 }
        mirror = { engine = "scripted", model = "scripted-model" }
          [[chat-small.targets]]
          engine = "scripted"
          model  = "scripted-model"
    """
    engine = ScriptedEngine()
    side = policy_side(tmp_path / "p", engine, files={"models.toml": models})

    async with side.opened() as asker:
        await asker.ask(prompt(), Manner())

    assert len(engine.requests) == 1


async def test_a_model_that_the_policy_has_not_is_named_with_the_nearest(tmp_path: Path) -> None:
    side = policy_side(tmp_path / "prod", ScriptedEngine(), model="chat-smal")

    with pytest.raises(CannotCompare) as problem:
        await side.check([])

    assert str(problem.value) == (
        "policy prod has no model 'chat-smal' (did you mean \"chat-small\"?)"
    )


async def test_a_model_that_no_engine_has_is_named_with_the_engine(tmp_path: Path) -> None:
    side = policy_side(tmp_path / "prod", ScriptedEngine(model_names=["scripted-mode1"]))

    with pytest.raises(CannotCompare) as problem:
        async with side.opened():
            pass

    assert str(problem.value) == (
        "policy prod: engine 'scripted' has no model 'scripted-model' "
        '(did you mean "scripted-mode1"?)'
    )


def test_a_policy_that_does_not_hold_is_told_with_every_problem(tmp_path: Path) -> None:
    write_policy(tmp_path / "prod", {"models.toml": '[m]\nalias = ["x"]'})

    with pytest.raises(CannotCompare) as problem:
        PolicySide(tmp_path / "prod", "m", name="prod", scratch=tmp_path)

    assert str(problem.value).startswith("policy prod does not hold:\n")
    assert '"alias"' in str(problem.value)


async def test_a_prompt_that_no_endpoint_reads_is_told_before_anything_is_opened(
    tmp_path: Path,
) -> None:
    side = policy_side(tmp_path / "prod", ScriptedEngine())

    with pytest.raises(CannotCompare, match=r"prompt 'odd': .*tool_choice"):
        await side.check([prompt("odd", tool_choice="sometimes")])


def test_nothing_that_a_running_gateway_shares_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_LEDGER", "postgresql://shared/ledger")
    monkeypatch.setenv("PENSTOCK_PEPPER", "p" * 40)
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "data"))

    settings = settings_for(tmp_path / "prod", tmp_path / "scratch")

    assert settings.data_dir == tmp_path / "scratch"
    assert settings.ledger_url == f"sqlite+aiosqlite:///{tmp_path}/scratch/ledger.db"
    assert settings.pepper not in ("", os.environ["PENSTOCK_PEPPER"])
    assert settings.models_dir == tmp_path / "data" / "models"
