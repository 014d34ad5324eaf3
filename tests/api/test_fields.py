"""Every field of OpenAI's requests is honoured, refused by name, or listed as ignored."""

import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from openai.types import (
    completion_create_params,
    embedding_create_params,
    shared_params,
)
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionFunctionMessageParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import (
    completion_create_params as chat_create_params,
)

from engines.protocol import (
    Choice,
    Grammar,
    JsonObject,
    JsonSchema,
    NamedTool,
    Regex,
)
from gateway.api.openai import chat, completions, embeddings, messages, sampling, tools
from tests.api.conftest import Stage

DOCS = Path(__file__).parents[2] / "docs" / "api.md"
SCHEMA = {"type": "object"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]


def _fields(params: Any) -> Set[str]:
    return get_type_hints(params).keys()


def _wire(struct: type[msgspec.Struct]) -> Set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def _documented(heading: str) -> Mapping[str, str]:
    """Field -> what the table under this heading of docs/api.md says happens to it."""
    section = re.search(
        rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", DOCS.read_text(), re.M | re.S
    )
    assert section is not None, f"docs/api.md has no section {heading}"
    rows = re.findall(r"^\| `([^`]+)`.*?\| (honoured|refused|ignored)", section[1], re.M)
    return dict(rows)


@pytest.mark.parametrize(
    ("params", "struct"),
    [
        (chat_create_params.CompletionCreateParamsStreaming, chat.CreateChatCompletion),
        (completion_create_params.CompletionCreateParamsStreaming, completions.CreateCompletion),
        (embedding_create_params.EmbeddingCreateParams, embeddings.CreateEmbedding),
        (ChatCompletionStreamOptionsParam, sampling.StreamOptions),
        (ChatCompletionSystemMessageParam, messages.SystemMessage),
        (ChatCompletionDeveloperMessageParam, messages.DeveloperMessage),
        (ChatCompletionUserMessageParam, messages.UserMessage),
        (ChatCompletionAssistantMessageParam, messages.AssistantMessage),
        (ChatCompletionToolMessageParam, messages.ToolMessage),
        (ChatCompletionFunctionMessageParam, messages.FunctionMessage),
        (shared_params.FunctionDefinition, tools.Function),
    ],
    ids=lambda value: value.__name__,
)
def test_every_field_of_the_official_client_is_known(
    params: Any, struct: type[msgspec.Struct]
) -> None:
    # A message's role is the tag of its Struct.
    assert _fields(params) - {"role"} <= _wire(struct)


@pytest.mark.parametrize(
    ("heading", "struct", "refused", "ignored"),
    [
        ("openai.chat", chat.CreateChatCompletion, chat.REFUSED.keys(), chat.IGNORED),
        (
            "openai.completions",
            completions.CreateCompletion,
            set[str](),
            completions.IGNORED,
        ),
        ("openai.embeddings", embeddings.CreateEmbedding, set[str](), embeddings.IGNORED),
    ],
)
def test_the_documentation_says_what_happens_to_each_field(
    heading: str, struct: type[msgspec.Struct], refused: Set[str], ignored: Set[str]
) -> None:
    documented = _documented(heading)

    assert documented.keys() == _wire(struct)
    assert {name for name, fate in documented.items() if fate == "refused"} == refused
    assert {name for name, fate in documented.items() if fate == "ignored"} == ignored


# Field -> a value, and what then holds of the engine's request.
CHAT_HONOURED: Mapping[str, tuple[Mapping[str, object], object]] = {
    "frequency_penalty": (
        {"frequency_penalty": 0.5},
        lambda r: r.sampling.frequency_penalty == 0.5,
    ),
    "presence_penalty": ({"presence_penalty": -1}, lambda r: r.sampling.presence_penalty == -1),
    "logit_bias": ({"logit_bias": {"7": -100}}, lambda r: r.sampling.logit_bias == {7: -100}),
    "logprobs": ({"logprobs": True}, lambda r: r.logprobs == 0),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 3}, lambda r: r.logprobs == 3),
    "max_tokens": ({"max_tokens": 5}, lambda r: r.max_tokens == 5),
    "max_completion_tokens": ({"max_completion_tokens": 6}, lambda r: r.max_tokens == 6),
    "messages": (
        {"messages": [{"role": "developer", "content": "x", "name": "n"}]},
        lambda r: (
            (r.messages[0].role, r.messages[0].text, r.messages[0].name) == ("system", "x", "n")
        ),
    ),
    "n": ({"n": 1}, lambda r: r.id.endswith("-0")),
    "parallel_tool_calls": (
        {"tools": TOOLS, "parallel_tool_calls": False},
        lambda r: r.parallel_tool_calls is False,
    ),
    "reasoning_effort": ({"reasoning_effort": "low"}, lambda r: r.reasoning_effort == "low"),
    "chat_template_kwargs": (
        {"chat_template_kwargs": {"enable_thinking": False}},
        lambda r: r.reasoning_effort == "none",
    ),
    "response_format": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
            }
        },
        lambda r: r.constraint == JsonSchema(schema=SCHEMA, name="x", strict=True),
    ),
    "seed": ({"seed": 7}, lambda r: r.sampling.seed == 7),
    "stop": ({"stop": ["a", "b"]}, lambda r: list(r.stop) == ["a", "b"]),
    "temperature": ({"temperature": 0}, lambda r: r.sampling.temperature == 0),
    "top_p": ({"top_p": 0.5}, lambda r: r.sampling.top_p == 0.5),
    "tools": ({"tools": TOOLS}, lambda r: r.tools[0].parameters == SCHEMA),
    "tool_choice": (
        {
            "tools": TOOLS,
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
        lambda r: r.tool_choice == NamedTool("f"),
    ),
    "functions": (
        {"functions": [{"name": "f"}]},
        lambda r: [tool.name for tool in r.tools] == ["f"],
    ),
    "function_call": (
        {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
        lambda r: r.tool_choice == NamedTool("f"),
    ),
    "top_k": ({"top_k": 40}, lambda r: r.sampling.top_k == 40),
    "min_p": ({"min_p": 0.1}, lambda r: r.sampling.min_p == 0.1),
    "repetition_penalty": (
        {"repetition_penalty": 1.1},
        lambda r: r.sampling.repeat_penalty == 1.1,
    ),
    "min_tokens": ({"min_tokens": 3}, lambda r: r.sampling.min_tokens == 3),
    "ignore_eos": ({"ignore_eos": True}, lambda r: r.sampling.ignore_eos is True),
    "guided_json": ({"guided_json": SCHEMA}, lambda r: r.constraint == JsonSchema(schema=SCHEMA)),
    "guided_choice": ({"guided_choice": ["a"]}, lambda r: r.constraint == Choice(["a"])),
    "guided_regex": ({"guided_regex": "a+"}, lambda r: r.constraint == Regex("a+")),
    "guided_grammar": (
        {"guided_grammar": 'start: "a"'},
        lambda r: r.constraint == Grammar('start: "a"'),
    ),
    "structured_outputs": (
        {"structured_outputs": {"json_object": True}},
        lambda r: r.constraint == JsonObject(),
    ),
}
# What shows in the answer, not in the engine's request; tested in test_golden.py.
SEEN_IN_THE_ANSWER = {"model", "stream", "stream_options", "service_tier", "modalities"}


@pytest.mark.parametrize("field", CHAT_HONOURED)
def test_an_honoured_field_reaches_the_engine(stage: Stage, field: str) -> None:
    fields, holds = CHAT_HONOURED[field]

    response = stage.chat(**fields)

    assert response.status_code == 200, response.text
    assert callable(holds)
    assert holds(stage.last_request)


def test_every_honoured_chat_field_is_tested() -> None:
    honoured = _wire(chat.CreateChatCompletion) - chat.REFUSED.keys() - chat.IGNORED

    assert honoured == CHAT_HONOURED.keys() | SEEN_IN_THE_ANSWER


@pytest.mark.parametrize("field", chat.REFUSED)
def test_a_refused_chat_field_is_named(stage: Stage, field: str) -> None:
    value = True if field == "store" else {"x": "y"}

    response = stage.chat(**{field: value})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == field


@pytest.mark.parametrize("field", sorted(chat.REFUSED.keys() | chat.IGNORED))
def test_a_field_that_is_null_is_a_field_left_out(stage: Stage, field: str) -> None:
    assert stage.chat(**{field: None}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "prompt": [1, 2]}, "echo"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a"] * 16, "n": 16}, "n"),
        ({"logprobs": 6}, "logprobs"),
    ],
)
def test_what_completions_cannot_do_is_named(
    stage: Stage, fields: dict[str, object], param: str
) -> None:
    response = stage.complete(**fields)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_a_completion_has_openais_own_limit_unless_it_says(stage: Stage) -> None:
    stage.complete()
    assert stage.last_request.max_tokens == 16

    stage.complete(max_tokens=3)
    assert stage.last_request.max_tokens == 3


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a b", ["a b"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_a_prompt_has_four_forms(stage: Stage, prompt: object, expected: list[object]) -> None:
    assert stage.complete(prompt=prompt).status_code == 200

    assert [request.prompt for request in stage.engine.requests] == expected


def test_choices_have_seeds_of_their_own(stage: Stage) -> None:
    stage.chat(n=3, seed=10)

    requests = stage.engine.requests
    assert sorted(r.sampling.seed or 0 for r in requests) == [10, 11, 12]
    assert sorted(r.id[-2:] for r in requests) == ["-0", "-1", "-2"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [[1], "a"]}, "input"),
        ({"input": 5}, "input"),
        ({"input": [10**30]}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"model": ""}, "model"),
    ],
)
def test_what_embeddings_cannot_do_is_named(
    stage: Stage, fields: dict[str, object], param: str
) -> None:
    response = stage.embed(**fields)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_embedding_inputs_may_be_token_ids(stage: Stage) -> None:
    assert stage.embed(input=[[1, 2], [3]], dimensions=8).status_code == 200

    assert stage.engine.embed_requests[0].inputs == [[1, 2], [3]]
    assert stage.engine.embed_requests[0].dimensions == 8


def test_obfuscated_chunks_all_have_a_size_that_says_little(stage: Stage) -> None:
    stage.script = ("a", " considerably longer piece of text", "b")

    response = stage.chat(stream=True, stream_options={"include_obfuscation": True})

    frames = [frame for frame in response.text.split("\n\n") if frame.startswith("data: {")]
    assert {(len(frame) + 2) % 64 for frame in frames} == {0}
    assert all("obfuscation" in frame for frame in frames)


def test_text_is_the_only_modality(stage: Stage) -> None:
    assert stage.chat(modalities=["text"]).status_code == 200

    refused = stage.chat(modalities=["text", "audio"])
    assert refused.json()["error"]["param"] == "modalities"


def test_a_suffix_is_handed_on_with_each_prompt(stage: Stage) -> None:
    assert stage.complete(prompt=["a", "b"], suffix=" and then").status_code == 200
    assert stage.complete(suffix="").status_code == 200

    assert [one.suffix for one in stage.engine.requests] == [" and then", " and then", None]
