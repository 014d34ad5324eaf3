from pathlib import Path

import pytest

from gateway.api.openai.chat import CreateChatCompletion
from gateway.parity.policy_side import PolicySide
from gateway.parity.problems import CannotCompare
from gateway.parity.prompt_set import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    Prompt,
    read_prompts,
    shipped_prompts,
)
from tests.fakes import ScriptedEngine
from tests.gateway.parity.places import policy_side


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(lines))
    return path


async def test_the_shipped_prompts_can_all_be_asked_of_a_policy(tmp_path: Path) -> None:
    side: PolicySide = policy_side(tmp_path / "p", ScriptedEngine())

    await side.check(shipped_prompts())


def test_the_shipped_prompts_cover_what_engines_may_take_another_way() -> None:
    prompts = shipped_prompts()
    bodies = [prompt.body for prompt in prompts]
    messages = [message for body in bodies for message in body.get("messages", ())]

    assert {prompt.endpoint for prompt in prompts} == {CHAT, COMPLETIONS, EMBEDDINGS}
    assert {message["role"] for message in messages} >= {"system", "user", "assistant", "tool"}
    assert {body.get("tool_choice", "auto") for body in bodies if "tools" in body} == {
        "auto", "none", "required",
    }  # fmt: skip
    assert {each["type"] for body in bodies if (each := body.get("response_format"))} == {
        "json_schema", "json_object",
    }  # fmt: skip
    for field in ("stop", "max_tokens", "guided_regex", "guided_choice", "reasoning_effort",
                  "logprobs"):  # fmt: skip
        assert any(field in body for body in bodies), field
    assert any(not str(message["content"]).isascii() for message in messages)
    assert any(len(str(message["content"])) > 1000 for message in messages)


def test_a_users_file_says_endpoint_name_and_expectation(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"messages": [{"role": "user", "content": "2 + 3?"}], "expect": {"contains": "5"}}',
        "",
        '{"name": "go on", "prompt": "Once", "max_tokens": 4}',
        '{"input": "a river"}',
    )

    sums, story, vector = read_prompts(path)

    assert (sums.name, sums.endpoint) == ("line 1", CHAT)
    assert sums.expect is not None
    assert sums.expect.contains == "5"
    assert (story.name, story.endpoint, story.body["max_tokens"]) == ("go on", COMPLETIONS, 4)
    assert (vector.name, vector.endpoint) == ("line 4", EMBEDDINGS)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"messages": [}', "line 1: .*malformed"),
        ('{"name": "x"}', "0 of messages, prompt and input"),
        ('{"messages": [], "prompt": "x"}', "2 of messages, prompt and input"),
        ('{"prompt": "x", "model": "m"}', 'take "model" out: the command names the model'),
        ('{"prompt": "x", "n": 2}', 'take "n" out'),
        ('{"prompt": "x", "temperature": 0.7}', "temperature is 0.7"),
        ('{"prompt": ["x", "y"]}', "a line of its own"),
        ('{"prompt": "x", "expect": {"contain": "y"}}', "unknown field `contain`"),
        ('{"prompt": "x", "name": 7}', "line 1: "),
        ('{"name": "a", "prompt": "x"}\n{"name": "a", "prompt": "y"}', "line 2: .* 'a' already"),
        ("\n\n", "there is no prompt in it"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(CannotCompare, match=problem):
        read_prompts(written(tmp_path, line))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotCompare, match=r"none\.jsonl: No such file"):
        read_prompts(tmp_path / "none.jsonl")


def test_a_prompt_is_asked_greedily_and_keeps_what_it_says_itself() -> None:
    plain = Prompt(name="a", endpoint=CHAT, body={"messages": []})
    own = Prompt(name="b", endpoint=CHAT, body={"max_completion_tokens": 9, "logprobs": True})
    old = Prompt(name="c", endpoint=COMPLETIONS, body={"prompt": "x"})
    vector = Prompt(name="d", endpoint=EMBEDDINGS, body={"input": "x"})

    asked = [
        prompt.asked("m", max_tokens=64, logprobs=True) for prompt in (plain, own, old, vector)
    ]

    assert asked[0] == {
        "messages": [], "model": "m", "temperature": 0, "max_tokens": 64,
        "logprobs": True, "top_logprobs": 5,
    }  # fmt: skip
    assert asked[1] == {
        "max_completion_tokens": 9, "logprobs": True, "model": "m", "temperature": 0,
    }  # fmt: skip
    assert (asked[2]["logprobs"], asked[2]["max_tokens"]) == (5, 64)
    assert asked[3] == {"input": "x", "model": "m"}
    assert set(asked[0]) <= set(CreateChatCompletion.__struct_fields__)
