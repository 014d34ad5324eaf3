"""Ollama's documented requests, as curl sends them, and the documented shape of each answer."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import httpx
import pytest

from engines.protocol import ReasoningDelta, ToolCallDelta
from tests.api.ollama_stage import OllamaStage
from tests.fake_library import DIGEST

# What curl calls a body that is given with -d.
FORM = {"content-type": "application/x-www-form-urlencoded"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 16).decode()
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "available": {"type": "boolean"}},
    "required": ["age", "available"],
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "a city"},
                "format": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["location", "format"],
        },
    },
}
ALL_OPTIONS = {
    "num_keep": 5, "seed": 42, "num_predict": 100, "top_k": 20, "top_p": 0.9, "min_p": 0.0,
    "typical_p": 0.7, "repeat_last_n": 33, "temperature": 0.8, "repeat_penalty": 1.2,
    "presence_penalty": 1.5, "frequency_penalty": 1.0, "mirostat": 1, "mirostat_tau": 0.8,
    "mirostat_eta": 0.6, "penalize_newline": True, "stop": ["\n", "user:"], "numa": False,
    "num_ctx": 1024, "num_batch": 2, "num_gpu": 1, "main_gpu": 0, "low_vram": False,
    "vocab_only": False, "use_mmap": True, "use_mlock": False, "num_thread": 8,
}  # fmt: skip

Shape = type | Callable[[Any], bool]


def moment(value: Any) -> bool:
    return value.endswith("Z") and datetime.fromisoformat(value).tzinfo is not None


def said(*words: str) -> Callable[[Any], bool]:
    return lambda value: value in words


HEAD: Mapping[str, Shape] = {"model": said("chat-small"), "created_at": moment}
FIGURES: Mapping[str, Shape] = {
    "total_duration": int,
    "load_duration": int,
    "prompt_eval_count": int,
    "prompt_eval_duration": int,
    "eval_count": int,
    "eval_duration": int,
}
DONE: Mapping[str, Shape] = {**HEAD, **FIGURES, "done": said(True), "done_reason": said("stop")}
GENERATED = {**DONE, "response": str, "context": list}
CHATTED = {**DONE, "message": dict}
LOADED = {**HEAD, "done": said(True), "done_reason": said("load")}
UNLOADED = {**HEAD, "done": said(True), "done_reason": said("unload")}


def check(answer: Mapping[str, Any], shape: Mapping[str, Shape]) -> None:
    assert shape.keys() <= answer.keys()
    for name, expected in shape.items():
        value = answer[name]
        holds = isinstance(value, expected) if isinstance(expected, type) else expected(value)
        assert holds, f"{name} is {value!r}"


ASKED = {"model": "chat-small", "prompt": "why?"}
TALK = {"model": "chat-small", "messages": [{"role": "user", "content": "why?"}]}
WHOLE: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Shape]]] = {
    "generate": ("generate", {**ASKED, "stream": False}, GENERATED),
    "generate structured": ("generate", {**ASKED, "stream": False, "format": SCHEMA}, GENERATED),
    "generate json": ("generate", {**ASKED, "stream": False, "format": "json"}, GENERATED),
    "generate with images": ("generate", {**ASKED, "stream": False, "images": [PNG]}, GENERATED),
    "generate raw": (
        "generate",
        {**ASKED, "stream": False, "raw": True},
        {**DONE, "response": str},
    ),
    "generate with options": (
        "generate",
        {**ASKED, "stream": False, "options": ALL_OPTIONS},
        GENERATED,
    ),
    "generate to load": ("generate", {"model": "chat-small"}, {**LOADED, "response": said("")}),
    "generate to unload": (
        "generate",
        {"model": "chat-small", "keep_alive": 0},
        {**UNLOADED, "response": said("")},
    ),
    "chat": ("chat", {**TALK, "stream": False}, CHATTED),
    "chat structured": (
        "chat",
        {**TALK, "stream": False, "format": SCHEMA, "options": {"temperature": 0}},
        CHATTED,
    ),
    "chat with images": (
        "chat",
        {
            "model": "chat-small",
            "stream": False,
            "messages": [{"role": "user", "content": "what is it?", "images": [PNG]}],
        },
        CHATTED,
    ),
    "chat reproducible": (
        "chat",
        {**TALK, "stream": False, "options": {"seed": 101, "temperature": 0}},
        CHATTED,
    ),
    "chat to load": ("chat", {"model": "chat-small", "messages": []}, {**LOADED, "message": dict}),
    "chat to unload": (
        "chat",
        {"model": "chat-small", "messages": [], "keep_alive": 0},
        {**UNLOADED, "message": dict},
    ),
    "embed": (
        "embed",
        {"model": "chat-small", "input": "why?"},
        {
            "model": said("chat-small"),
            "embeddings": lambda value: len(value) == 1,
            "total_duration": int,
            "load_duration": int,
            "prompt_eval_count": said(1),
        },
    ),
    "embed several": (
        "embed",
        {"model": "chat-small", "input": ["why?", "and why this?"]},
        {"embeddings": lambda value: len(value) == 2 and isinstance(value[0][0], float)},
    ),
    "embeddings": ("embeddings", {"model": "chat-small", "prompt": "why?"}, {"embedding": list}),
    "show": (
        "show",
        {"model": "chat-small"},
        {
            "modelfile": str,
            "parameters": str,
            "template": str,
            "details": dict,
            "model_info": lambda value: value["general.architecture"] == "llama",
            "capabilities": said(["completion", "tools", "thinking", "insert"]),
        },
    ),
    "create whole": (
        "create",
        {"model": "mario", "from": "chat-small", "system": "You are Mario.", "stream": False},
        {"status": said("success")},
    ),
    "pull whole": ("pull", {"model": "llama3.2", "stream": False}, {"status": said("success")}),
    "push whole": ("push", {"model": "chat-small", "stream": False}, {"status": said("success")}),
}


@pytest.mark.parametrize("example", WHOLE)
def test_a_documented_request_gets_an_answer_of_the_documented_shape(
    ollama: OllamaStage, example: str
) -> None:
    path, body, shape = WHOLE[example]

    answer = ollama.client.post(f"/api/{path}", content=json.dumps(body), headers=FORM)

    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    check(answer.json(), shape)


STREAMS: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Shape], Mapping[str, Shape]]] = {
    "generate": ("generate", ASKED, {**HEAD, "response": str, "done": said(False)}, GENERATED),
    "chat": ("chat", TALK, {**HEAD, "message": dict, "done": said(False)}, CHATTED),
    "chat with history": (
        "chat",
        {
            "model": "chat-small",
            "messages": [
                {"role": "user", "content": "why?"},
                {"role": "assistant", "content": "because"},
                {"role": "user", "content": "and how?"},
            ],
        },
        {**HEAD, "message": dict, "done": said(False)},
        CHATTED,
    ),
    "pull": (
        "pull",
        {"model": "llama3.2"},
        {"status": said("pulling manifest")},
        {"status": said("success")},
    ),
    "push": (
        "push",
        {"model": "chat-small"},
        {"status": said("retrieving manifest")},
        {"status": said("success")},
    ),
    "create": (
        "create",
        {"model": "mario", "modelfile": "FROM chat-small\nSYSTEM You are Mario."},
        {"status": str},
        {"status": said("success")},
    ),
    "quantize": (
        "create",
        {"model": "smaller", "from": "chat-small", "quantize": "q4_K_M"},
        {"status": str},
        {"status": said("success")},
    ),
}


@pytest.mark.parametrize("example", STREAMS)
def test_a_documented_stream_has_lines_of_the_documented_shape(
    ollama: OllamaStage, example: str
) -> None:
    path, body, first, last = STREAMS[example]

    answer = ollama.client.post(f"/api/{path}", content=json.dumps(body), headers=FORM)

    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) > 1
    check(lines[0], first)
    check(lines[-1], last)


def test_a_pull_says_how_far_it_is(ollama: OllamaStage) -> None:
    lines = ollama.ask("pull", name="llama3.2", stream=True).text.splitlines()

    assert [json.loads(line) for line in lines[:4]] == [
        {"status": "pulling manifest"},
        {"status": "pulling abababababab", "digest": DIGEST, "total": 2000},
        {"status": "pulling abababababab", "digest": DIGEST, "total": 2000, "completed": 2000},
        {"status": "verifying sha256 digest"},
    ]


def test_a_tool_call_has_its_arguments_as_an_object(ollama: OllamaStage) -> None:
    ollama.script = [
        ToolCallDelta(index=0, id="call_1", name="get_current_weather"),
        ToolCallDelta(index=0, arguments='{"location": "Oslo",'),
        ToolCallDelta(index=0, arguments=' "format": "celsius"}'),
        ToolCallDelta(index=1, id="call_2", name="get_current_weather"),
        ToolCallDelta(index=1, arguments='{"location": "Rome"}'),
    ]

    whole = ollama.chat(tools=[WEATHER]).json()
    lines = [
        json.loads(line) for line in ollama.chat(tools=[WEATHER], stream=True).text.split("\n")[:-1]
    ]

    calls = whole["message"]["tool_calls"]
    assert whole["message"]["content"] == ""
    assert calls[0] == {
        "id": "call_1",
        "function": {
            "index": 0,
            "name": "get_current_weather",
            "arguments": {"location": "Oslo", "format": "celsius"},
        },
    }
    assert [line["message"].get("tool_calls") for line in lines] == [[calls[0]], [calls[1]], None]
    assert whole["done_reason"] == "stop"


def test_thinking_is_apart_from_the_answer(ollama: OllamaStage) -> None:
    ollama.script = [ReasoningDelta("hmm"), "so", " it is"]

    chatted = ollama.chat(think=True).json()
    generated = ollama.generate(think="high").json()

    assert (chatted["message"]["thinking"], chatted["message"]["content"]) == ("hmm", "so it is")
    assert (generated["thinking"], generated["response"]) == ("hmm", "so it is")
    assert [one.reasoning_effort for one in ollama.library.requests] == ["medium", "high"]


def test_logprobs_are_beside_the_text(ollama: OllamaStage) -> None:
    whole = ollama.generate(logprobs=True).json()
    lines = ollama.chat(logprobs=True, stream=True).text.splitlines()

    entry = {"token": "hello", "logprob": -0.5, "bytes": list(b"hello")}
    assert [one["token"] for one in whole["logprobs"]] == ["hello", " there"]
    assert whole["logprobs"][0] == entry
    assert json.loads(lines[0])["logprobs"] == [entry]
    assert "logprobs" not in json.loads(lines[-1])


def test_lists_of_models_have_the_documented_fields(ollama: OllamaStage) -> None:
    ollama.library.expires_at = 1_800_000_000.0
    ollama.chat()

    (tag,) = [
        m for m in ollama.client.get("/api/tags").json()["models"] if m["name"] == "chat-small"
    ]
    (running,) = ollama.client.get("/api/ps").json()["models"]

    details = {
        "parent_model": "",
        "format": "",  # the kind `scripted` has none
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "8.0B",
        "quantization_level": "q4_0",
        "context_length": 100,
    }
    assert tag == {
        "name": "chat-small",
        "model": "chat-small",
        "modified_at": "2023-11-14T22:13:20.250000Z",
        "size": 1_000_000,
        "digest": "ab" * 32,
        "details": details,
        "capabilities": ["completion", "tools", "thinking"],
    }
    assert running == {
        "name": "chat-small",
        "model": "chat-small",
        "size": 2_000_000,
        "digest": "ab" * 32,
        "details": details,
        "expires_at": "2027-01-15T08:00:00.000000Z",
        "size_vram": 500_000,
        "context_length": 100,
    }


def test_copies_and_deletions_are_answered_with_nothing(ollama: OllamaStage) -> None:
    copied = ollama.client.post(
        "/api/copy", content='{"source":"chat-small","destination":"backup"}', headers=FORM
    )
    deleted = ollama.client.request("DELETE", "/api/delete", content='{"model":"backup"}')

    assert (copied.status_code, copied.content) == (200, b"")
    assert (deleted.status_code, deleted.content) == (200, b"")
    assert ollama.library.jobs == [("copy", "scripted-model", "backup"), ("delete", "backup")]


def test_the_root_says_what_clients_look_for(ollama: OllamaStage) -> None:
    assert ollama.client.get("/").text == "Ollama is running"
    assert ollama.client.get("/").headers["content-type"].startswith("text/plain")
    for path in ("/", "/api/version", "/api/tags"):
        head = ollama.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
    version = ollama.client.get("/api/version").json()["version"]
    assert [int(part) for part in version.split(".")] >= [0, 6, 4]


def test_curl_itself_gets_an_answer(ollama: OllamaStage) -> None:
    curl = shutil.which("curl")
    assert curl, "install curl"
    url = f"{ollama.server.url}/api/generate"

    done = subprocess.run(
        [curl, "-sS", url, "-d", json.dumps(ASKED)], capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert "".join(line["response"] for line in lines) == "hello there"


def test_a_page_in_a_browser_is_held_to_json(ollama: OllamaStage) -> None:
    # A form can be sent across origins without asking; a page's origin goes with it.
    body, origin = json.dumps(ASKED), {"origin": "http://localhost:3000"}
    sent: Callable[[Mapping[str, str]], httpx.Response] = lambda headers: ollama.client.post(  # noqa: E731
        "/api/generate", content=body, headers=dict(headers)
    )

    assert sent({**FORM, **origin}).status_code == 415
    assert sent({**FORM, "sec-fetch-site": "same-site"}).status_code == 415
    assert sent({"content-type": "text/plain"}).status_code == 415
    assert sent({"content-type": "application/json", **origin}).status_code == 200
    assert sent(FORM).status_code == 200
