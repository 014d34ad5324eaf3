"""What the fields of Ollama's requests make of the request that the engine gets."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engines.errors import Unavailable
from engines.protocol import (
    Finished,
    FinishReason,
    GenerateRequest,
    JsonObject,
    JsonSchema,
    TextDelta,
    Timing,
    ToolCallDelta,
    Usage,
)
from gateway.api.ollama import chat, create, embed, generate
from gateway.api.ollama.options import HONOURED, IGNORED
from tests.api.ollama_stage import OllamaStage
from tests.fakes import Hold

# The options of the official Python client, of Ollama 0.33 and of its older versions.
CLIENTS_OPTIONS = """
    numa num_ctx num_batch num_gpu main_gpu low_vram f16_kv logits_all vocab_only use_mmap use_mlock
    embedding_only num_thread num_keep seed num_predict top_k top_p tfs_z typical_p repeat_last_n
    temperature repeat_penalty presence_penalty frequency_penalty mirostat mirostat_tau mirostat_eta
    penalize_newline stop min_p draft_num_predict
"""
DOCS = (Path(__file__).parents[2] / "docs" / "ollama-api.md").read_text()
Holds = Callable[[GenerateRequest], bool]
OPTIONS: Mapping[str, tuple[object, Holds]] = {
    "temperature": (0.5, lambda r: r.sampling.temperature == 0.5),
    "top_k": (7, lambda r: r.sampling.top_k == 7),
    "top_p": (0.9, lambda r: r.sampling.top_p == 0.9),
    "min_p": (0.1, lambda r: r.sampling.min_p == 0.1),
    "repeat_penalty": (1.1, lambda r: r.sampling.repeat_penalty == 1.1),
    "presence_penalty": (1, lambda r: r.sampling.presence_penalty == 1),
    "frequency_penalty": (-1, lambda r: r.sampling.frequency_penalty == -1),
    "seed": (42.0, lambda r: r.sampling.seed == 42),
    "num_predict": (5, lambda r: r.max_tokens == 5),
    "stop": ("END", lambda r: r.stop == ["END"]),
    "num_ctx": (50, lambda r: True),
}


def test_every_option_that_clients_know_is_honoured_or_ignored_by_name() -> None:
    assert set(CLIENTS_OPTIONS.split()) == HONOURED | IGNORED
    assert OPTIONS.keys() == HONOURED


def test_the_docs_name_every_option_and_field() -> None:
    bodies = (chat.Chat, generate.Generate, embed.Embed, create.Create)
    fields = {field.encode_name for body in bodies for field in msgspec.structs.fields(body)}

    older = {"name", "quantization"}
    missing = {name for name in fields | HONOURED | IGNORED if f"`{name}`" not in DOCS}
    assert missing - older == set()


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_reaches_the_engine(ollama: OllamaStage, option: str) -> None:
    value, holds = OPTIONS[option]

    for path in (ollama.chat, ollama.generate):
        answer = path(options={option: value})
        assert answer.status_code == 200, answer.text
        assert "x-penstock-ignored" not in answer.headers
        assert holds(ollama.last_request)


@pytest.mark.parametrize(
    ("options", "holds"),
    [
        ({"num_predict": -1}, lambda r: r.max_tokens is None),
        ({"num_predict": -2}, lambda r: r.max_tokens is None),
        ({"seed": -1}, lambda r: r.sampling.seed is None),
        ({"top_k": -1}, lambda r: r.sampling.top_k == 0),
        ({"temperature": None}, lambda r: r.sampling.temperature is None),
        ({"stop": ["a", ""]}, lambda r: r.stop == ["a"]),
    ],
)
def test_ollamas_ways_to_say_nothing(
    ollama: OllamaStage, options: dict[str, Any], holds: Holds
) -> None:
    assert ollama.chat(options=options).status_code == 200
    assert holds(ollama.last_request)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": "hot"}, "option temperature must be a number"),
        ({"temperature": -1}, "option temperature is -1"),
        ({"top_p": 1.5}, "option top_p is 1.5"),
        ({"seed": 1.5}, "option seed"),
        ({"num_predict": 2**40}, "option num_predict is"),
        ({"stop": 3}, "option stop must be"),
        ({"stop": ["x"] * 65}, "option stop can be 64 texts"),
        ({"stop": "x" * 1001}, "option stop can be 64 texts of up to 1000 characters"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(
    ollama: OllamaStage, options: dict[str, Any], reason: str
) -> None:
    answer = ollama.chat(options=options)

    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}
    assert reason in answer.json()["error"]


def test_what_had_no_effect_is_told_in_a_header(ollama: OllamaStage) -> None:
    answer = ollama.chat(keepalive="5m", options={"temprature": 0.5, "num_gpu": 99, "top_k": 1})

    assert answer.status_code == 200
    assert answer.headers["x-penstock-ignored"] == "keepalive, options.temprature, options.num_gpu"


def test_a_header_cannot_be_forged_with_a_fields_name(ollama: OllamaStage) -> None:
    answer = ollama.chat(**{"a\r\nset-cookie: b": 1, "é": 2, "x" * 99: 3, "fine": 4})

    assert answer.headers["x-penstock-ignored"] == "fine"
    assert "set-cookie" not in answer.headers


def test_a_context_longer_than_the_models_is_not_made_and_not_kept_secret(
    ollama: OllamaStage,
) -> None:
    long = ollama.chat(options={"num_ctx": 4096})
    short = ollama.chat(options={"num_ctx": 50})
    refused = ollama.generate(prompt="word " * 150, options={"num_ctx": 4096})

    assert long.headers["x-penstock-num-ctx"] == "100"
    assert "x-penstock-num-ctx" not in short.headers
    assert refused.status_code == 400
    assert "this model's context is 100 tokens; the prompt has 150" in refused.json()["error"]


@pytest.mark.parametrize(
    ("given", "constraint"),
    [
        ("json", JsonObject()),
        ({"type": "object"}, JsonSchema(schema={"type": "object"})),
        ("", None),
        (None, None),
    ],
)
def test_a_format_is_a_constraint(ollama: OllamaStage, given: Any, constraint: Any) -> None:
    ollama.generate(format=given)

    assert ollama.last_request.constraint == constraint


@pytest.mark.parametrize(
    ("given", "effort"),
    [(True, "medium"), (False, "none"), ("low", "low"), ("max", "max"), (None, None)],
)
def test_think_is_an_effort(ollama: OllamaStage, given: Any, effort: str | None) -> None:
    ollama.chat(think=given)

    assert ollama.last_request.reasoning_effort == effort


def test_a_model_that_cannot_think_says_so(ollama: OllamaStage) -> None:
    ollama.library.able = frozenset({"chat"})  # type: ignore[arg-type]

    refused, fine = ollama.chat(think=True), ollama.chat(think=False)

    assert refused.status_code == 400
    assert refused.json() == {"error": '"chat-small" does not support thinking'}
    assert fine.status_code == 200


def test_a_prompt_is_a_conversation_unless_it_is_raw(ollama: OllamaStage) -> None:
    ollama.generate(prompt="hi", system="be kind")
    chatted = ollama.last_request
    raw = ollama.generate(prompt="<s>hi", raw=True)

    assert [(one.role, one.text) for one in chatted.messages] == [
        ("system", "be kind"),
        ("user", "hi"),
    ]
    assert ollama.last_request.prompt == "<s>hi"
    assert "context" not in raw.json()


def test_a_model_without_a_template_goes_on_from_the_prompt(ollama: OllamaStage) -> None:
    ollama.library.able = frozenset({"complete"})  # type: ignore[arg-type]

    ollama.generate(prompt="once upon")

    assert ollama.last_request.prompt == "once upon"


def test_a_context_goes_on_with_the_conversation(ollama: OllamaStage) -> None:
    first = ollama.generate(prompt="I am Ada", system="be kind").json()["context"]
    lines = ollama.generate(prompt="who am I?", context=first, stream=True).text.splitlines()
    second = json.loads(lines[-1])["context"]
    ollama.generate(prompt="and now?", context=second, system="be rude")

    assert all(isinstance(number, int) for number in first)
    assert [(one.role, one.text) for one in ollama.last_request.messages] == [
        ("system", "be rude"),
        ("user", "I am Ada"),
        ("assistant", "hello there"),
        ("user", "who am I?"),
        ("assistant", "hello there"),
        ("user", "and now?"),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"raw": True, "system": "x"}, "raw mode does not support template, system, or context"),
        ({"raw": True, "context": [1]}, "raw mode does not support"),
        ({"context": [1, 2, 3]}, "context is not what an earlier answer"),
        ({"template": "{{ .Prompt }}"}, "this model's engine takes no template"),
        ({"template": "{{ .Prompt }}", "suffix": "x"}, "suffix fills a gap"),
        ({"images": ["x"]}, "images[0] is not valid base64"),
        ({"format": "xml"}, "format is 'xml'"),
        ({"think": "a lot"}, "think is 'a lot'"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs must be between 0 and 20"),
        ({"keep_alive": "soon"}, "keep_alive is 'soon'"),
        ({"model": ""}, "model is required"),
        ({"options": []}, "options must be an object"),
        ({"suffix": "x", "system": "y"}, "suffix fills a gap"),
    ],
)
def test_what_cannot_be_done_is_a_400_that_says_so(
    ollama: OllamaStage, fields: dict[str, Any], reason: str
) -> None:
    answer = ollama.generate(**fields)

    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"error"}
    assert reason in answer.json()["error"]
    assert ollama.library.requests == []


def test_a_suffix_is_handed_on_with_the_prompt(ollama: OllamaStage) -> None:
    ollama.generate(prompt="def f(", suffix="    return x")

    assert (ollama.last_request.prompt, ollama.last_request.suffix) == ("def f(", "    return x")


def test_figures_are_the_engines_own_in_nanoseconds(ollama: OllamaStage) -> None:
    ollama.script = [
        "hi",
        Finished(
            reason=FinishReason.LENGTH,
            usage=Usage(prompt_tokens=7, completion_tokens=3),
            timing=Timing(loading=1.0, prefill=0.25, decode=0.5),
        ),
    ]

    answer = ollama.chat().json()

    assert answer["done_reason"] == "length"
    assert answer["load_duration"] == 1_000_000_000
    assert (answer["prompt_eval_count"], answer["prompt_eval_duration"]) == (7, 250_000_000)
    assert (answer["eval_count"], answer["eval_duration"]) == (3, 500_000_000)


def test_a_call_that_was_cut_off_is_given_as_text(ollama: OllamaStage) -> None:
    ollama.script = [
        ToolCallDelta(index=0, id="c", name="f"),
        ToolCallDelta(index=0, arguments='{"x": 1'),
        Finished(reason=FinishReason.LENGTH, usage=Usage(completion_tokens=2)),
    ]

    message = ollama.chat().json()["message"]

    assert message == {"role": "assistant", "content": '{"x": 1'}


def test_a_failure_on_the_way_is_the_last_line(ollama: OllamaStage) -> None:
    ollama.script = ["one", TextDelta(" two"), Unavailable("the card fell out")]

    answer = ollama.chat(stream=True)
    lines = [json.loads(line) for line in answer.text.splitlines()]

    assert answer.status_code == 200
    assert [line["message"]["content"] for line in lines[:2]] == ["one", " two"]
    assert lines[2:] == [{"error": "the card fell out"}]


def test_a_failure_before_the_first_line_is_a_status(ollama: OllamaStage) -> None:
    ollama.script = [Unavailable("the card fell out")]

    answer = ollama.chat(stream=True)

    assert answer.status_code == 503
    assert answer.json() == {"error": "the card fell out"}


def test_a_client_that_hangs_up_ends_its_request(ollama: OllamaStage) -> None:
    hold = Hold()
    ollama.script = ["one", hold]

    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "chat-small", "messages": messages}
    with ollama.client.stream("POST", "/api/chat", json=body) as answer:
        assert "one" in next(answer.iter_lines())

    ollama.server.wait_until(lambda: ollama.library.num_closed_early == 1)
    assert ollama.library.running == 0


def test_texts_to_embed_lose_their_ends_not_in_silence(ollama: OllamaStage) -> None:
    texts = ["one two", "word " * 300]
    ollama.library.max_embed_tokens = 40

    cut = ollama.ask("embed", model="chat-small", input=texts)
    old = ollama.ask("embeddings", model="chat-small", prompt=texts[1])
    refused = ollama.ask("embed", model="chat-small", input=texts, truncate=False)

    assert len(cut.json()["embeddings"]) == 2
    assert cut.headers["x-penstock-truncated"] == old.headers["x-penstock-truncated"] == "1"
    assert cut.json()["prompt_eval_count"] == 40
    assert refused.status_code == 400
    assert "context is 40 tokens; the prompt has 300" in refused.json()["error"]
