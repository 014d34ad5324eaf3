from pathlib import Path

import pytest

from engines.errors import Overloaded, Unavailable
from engines.protocol import ReasoningDelta, ToolCallDelta
from gateway.bench.engine_subject import engine_of, started
from gateway.bench.question import AskFailed, Question, SubjectUnusable, Turn
from tests.fakes import ScriptedEngine
from tests.serving import settings_in

QUESTION = Question(text="how are you", max_tokens=50, ignore_eos=True)


async def test_events_become_pieces_and_usage_the_tokens() -> None:
    engine = ScriptedEngine([ReasoningDelta("hm"), "hello", " there", ToolCallDelta(index=0)])

    async with started(engine, "scripted-model") as subject:
        answer = await subject.ask(QUESTION, [Turn("system", "be kind")])

    assert answer.text == "hmhello there"
    assert len(answer.arrivals) == 4
    assert (answer.prompt_tokens, answer.completion_tokens) == (5, 2)
    request = engine.requests[0]
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.sampling.ignore_eos
    assert request.max_tokens == 50


async def test_token_ids_are_the_prompt() -> None:
    engine = ScriptedEngine(["a"])

    async with started(engine, "scripted-model") as subject:
        await subject.ask(Question(token_ids=[4, 5], max_tokens=1), [])

    assert list(engine.requests[0].prompt or ()) == [4, 5]
    assert not engine.requests[0].messages


async def test_an_engines_error_is_a_failure_of_its_own_code() -> None:
    async with started(ScriptedEngine([Overloaded("full")]), "scripted-model") as subject:
        with pytest.raises(AskFailed, match="full") as caught:
            await subject.ask(QUESTION, [])

    assert caught.value.kind == "overloaded"


async def test_start_up_is_timed_and_the_engine_closed() -> None:
    engine = ScriptedEngine(["a"])

    async with started(engine, "scripted-model") as subject:
        assert subject.start_up.start >= 0
        assert subject.start_up.load >= 0
        assert engine.num_loads == 1

    assert not (await engine.health()).ready


class Broken(ScriptedEngine):
    async def start(self) -> None:
        raise Unavailable("no GPU")


@pytest.mark.parametrize(
    ("engine", "model", "told"),
    [
        (Broken(), "scripted-model", "no GPU"),
        (ScriptedEngine(), "nobody", "there is no model 'nobody'"),
    ],
)
async def test_an_engine_that_does_not_start_is_told(
    engine: ScriptedEngine, model: str, told: str
) -> None:
    with pytest.raises(SubjectUnusable, match=told):
        async with started(engine, model):
            pass


def test_the_policys_engine_is_built_and_its_name_for_the_model_found(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, policy=Path("policies/dev"))

    found = engine_of(settings, "laptop", "gpt-4o-mini")

    assert found.engine.name == "laptop"
    assert found.model == "starter"
    assert engine_of(settings, "laptop", "qwen3-0.6b").model == "qwen3-0.6b"


def test_an_engine_that_the_policy_does_not_name_is_told(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, policy=Path("policies/dev"))

    with pytest.raises(SubjectUnusable, match=r"'gpu0' is not in .*\(there are: laptop\)"):
        engine_of(settings, "gpu0", "starter")
