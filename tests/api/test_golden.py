"""What a client sees, byte for byte: one file in golden/ for each case here.

Ids, times and the fingerprint are replaced by `<id>`, `<created>`, `<fingerprint>`.
PENSTOCK_WRITE_GOLDEN=1 writes the files anew; read the difference before keeping it.
"""

import os
import re
from pathlib import Path

import pytest

from engines.errors import ContextTooLong, Overloaded, Unavailable
from engines.protocol import (
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from tests.api.conftest import Stage
from tests.fakes import Script

GOLDEN = Path(__file__).parent / "golden"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALLED: Script = [
    Started(prompt_tokens=20),
    ToolCallDelta(index=0, id="call_1", name="get_weather"),
    ToolCallDelta(index=0, arguments='{"city":'),
    ToolCallDelta(index=0, arguments='"Oslo"}'),
    ToolCallDelta(index=1, id="call_2", name="get_weather", arguments='{"city":"Bergen"}'),
    Finished(reason=FinishReason.TOOL_CALLS, usage=Usage(prompt_tokens=20, completion_tokens=14)),
]
THOUGHT: Script = [
    Started(prompt_tokens=9),
    ReasoningDelta("two and two"),
    ReasoningDelta(" make four"),
    TextDelta("4"),
    Finished(
        reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=9, cached_tokens=8, completion_tokens=7, reasoning_tokens=5),
    ),
]
LIKELY: Script = [
    TextDelta(
        "café",
        [
            TokenLogprob(b"caf", -0.25, [TopLogprob(b"caf", -0.25), TopLogprob(b"tea", -1.5)]),
            TokenLogprob(b"\xc3", -0.5, [TopLogprob(b"\xc3", -0.5)]),
            TokenLogprob(b"\xa9", 0.0, [TopLogprob(b"\xa9", 0.0)]),
        ],
    ),
]
BROKEN: Script = ["hello", Unavailable("the engine stopped while it answered")]

CHAT: dict[str, tuple[dict[str, object], Script]] = {
    "plain": ({}, ("hello", " there")),
    "escapes": ({}, ('a "quoted" \\ line\n', "\u2028 and 😀\x00")),
    "two-choices": ({"n": 2}, ("hello", " there")),
    "usage": ({"stream_options": {"include_usage": True}}, ("hello", " there")),
    "two-choices-usage": ({"n": 2, "stream_options": {"include_usage": True}}, ("hello",)),
    "tools": ({"tools": [WEATHER]}, CALLED),
    "functions": ({"functions": [WEATHER["function"]]}, CALLED),
    "reasoning": ({"stream_options": {"include_usage": True}}, THOUGHT),
    "logprobs": ({"logprobs": True, "top_logprobs": 2}, LIKELY),
    "length": ({"max_tokens": 1}, ("hello", " there")),
    "service-tier": ({"service_tier": "flex"}, ("hello",)),
    "error-on-the-way": ({}, BROKEN),
}
COMPLETIONS: dict[str, tuple[dict[str, object], Script]] = {
    "plain": ({}, (" there", " was")),
    "echo": ({"echo": True, "stream_options": {"include_usage": True}}, (" there",)),
    "two-prompts": ({"prompt": ["one", "two"], "n": 2}, (" three",)),
    "logprobs": ({"logprobs": 2}, LIKELY),
    "error-on-the-way": ({}, BROKEN),
}
ERRORS: dict[str, tuple[dict[str, object], Script]] = {
    "bad-field": ({"temperature": 3}, ()),
    "context-too-long": ({}, [ContextTooLong(prompt_tokens=120, context_tokens=100)]),
    "overloaded": ({}, [Overloaded("64 requests are waiting", retry_after=2.2)]),
    "unavailable": ({}, [Unavailable("the engine is being started again")]),
    "unknown-model": ({"model": "chat-smal"}, ()),
}


@pytest.mark.parametrize("name", CHAT)
def test_a_streamed_chat_answer_is_as_written_down(stage: Stage, name: str) -> None:
    fields, stage.script = CHAT[name]

    response = stage.chat(stream=True, **fields)

    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    _check(f"chat-{name}.sse", response.text)


@pytest.mark.parametrize("name", [name for name in CHAT if name != "error-on-the-way"])
def test_a_whole_chat_answer_is_as_written_down(stage: Stage, name: str) -> None:
    fields, stage.script = CHAT[name]
    fields = {key: value for key, value in fields.items() if key != "stream_options"}

    response = stage.chat(**fields)

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    _check(f"chat-{name}.json", response.text)


@pytest.mark.parametrize("name", COMPLETIONS)
def test_a_streamed_completion_is_as_written_down(stage: Stage, name: str) -> None:
    fields, stage.script = COMPLETIONS[name]

    response = stage.complete(stream=True, **fields)

    assert response.status_code == 200
    _check(f"completions-{name}.sse", response.text)


@pytest.mark.parametrize("name", [name for name in COMPLETIONS if name != "error-on-the-way"])
def test_a_whole_completion_is_as_written_down(stage: Stage, name: str) -> None:
    fields, stage.script = COMPLETIONS[name]
    fields = {key: value for key, value in fields.items() if key != "stream_options"}

    response = stage.complete(**fields)

    assert response.status_code == 200
    _check(f"completions-{name}.json", response.text)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ERRORS)
def test_a_failure_before_the_first_output_is_a_real_status(
    stage: Stage, name: str, *, stream: bool
) -> None:
    fields, stage.script = ERRORS[name]

    response = stage.chat(stream=stream, **fields)

    assert response.headers["content-type"] == "application/json"
    names = ("retry-after", "x-should-retry", "x-penstock-error-source")
    shown = [f"{key}: {response.headers[key]}\n" for key in names if key in response.headers]
    _check(f"error-{name}.txt", f"{response.status_code}\n{''.join(shown)}\n{response.text}\n")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("float", {"input": ["one two", "three"]}),
        ("base64", {"input": ["one two", "three"], "encoding_format": "base64"}),
    ],
)
def test_embeddings_are_as_written_down(stage: Stage, name: str, fields: dict[str, object]) -> None:
    response = stage.embed(**fields)

    assert response.status_code == 200
    _check(f"embeddings-{name}.json", response.text)


def test_every_golden_file_belongs_to_a_case() -> None:
    cases = {f"chat-{name}.sse" for name in CHAT} | {f"chat-{name}.json" for name in CHAT}
    cases |= {f"completions-{n}.{ext}" for n in COMPLETIONS for ext in ("sse", "json")}
    cases |= {f"error-{name}.txt" for name in ERRORS}
    cases |= {"embeddings-float.json", "embeddings-base64.json", "models.json"}

    assert {file.name for file in GOLDEN.iterdir()} <= cases


def test_the_model_list_is_as_written_down(stage: Stage) -> None:
    response = stage.client.get("/v1/models")

    assert response.status_code == 200
    _check("models.json", response.text)


def _check(name: str, answer: str) -> None:
    answer = re.sub(r'"(chatcmpl|cmpl)-[0-9a-f]{32}"', r'"\1-<id>"', answer)
    answer = re.sub(r'"created":\d{10}', '"created":<created>', answer)
    answer = re.sub(r'"fp_[0-9a-f]{10}"', '"<fingerprint>"', answer)
    file = GOLDEN / name
    if os.environ.get("PENSTOCK_WRITE_GOLDEN"):
        file.write_text(answer, newline="")
    assert answer == file.read_text()
