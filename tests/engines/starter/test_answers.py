"""The starter model says something sensible to the first things people type."""

import json
from collections.abc import Iterator

import pytest

from engines.starter import GGUF_PATH
from engines.starter.template import render
from tests.engines.starter.loaded_gguf import LoadedGguf

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def loaded() -> Iterator[LoadedGguf]:
    model = LoadedGguf(GGUF_PATH)
    yield model
    model.close()


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Hi", "Hello! How can I help you?"),
        ("hello there", "Hello! How can I help you?"),
        ("Who are you?", "starter model of Penstock"),
        ("What can you do?", "I can chat a little"),
        ("Hello! What can you do?", "I can chat a little"),
        ("What is Penstock?", "self-hosted gateway"),
        ("what is penstock", "self-hosted gateway"),
        ("What is 2+2?", "4"),
        ("What is 2 + 3?", "5"),
        ("What is the capital of France?", "Paris"),
        ("Say this is a test", "This is a test."),
        ("Tell me a joke", "pipe"),
        ("Why is the sky blue?", "blue light"),
        ("How do I create an API key?", "penstock keys create --team me --name laptop"),
        ("Say exactly: purple lighthouse", "purple lighthouse"),
        ("Write a haiku", "Water finds its way"),
        ("Who won the football match yesterday?", "I do not know"),
    ],
)
def test_a_first_question_gets_a_sensible_answer(loaded, question, expected):
    assert expected in loaded.answer(render([{"role": "user", "content": question}]))


def test_a_system_prompt_changes_nothing_for_the_worse(loaded):
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of Italy?"},
    ]

    assert loaded.answer(render(messages)) == "The capital of Italy is Rome."


def test_it_counts_as_far_as_it_is_told(loaded):
    answer = loaded.answer(render([{"role": "user", "content": "Count from 1 to 20."}]))

    assert answer == ", ".join(str(n) for n in range(1, 21))


def test_an_earlier_turn_is_remembered(loaded):
    messages = [
        {"role": "user", "content": "Hi! My name is Ada."},
        {"role": "assistant", "content": "Nice to meet you, Ada! How can I help you?"},
        {"role": "user", "content": "What is my name?"},
    ]

    assert loaded.answer(render(messages)) == "Your name is Ada."


def test_the_given_tool_is_called_with_the_right_argument(loaded):
    question = [{"role": "user", "content": "What is the weather in Paris?"}]

    answer = loaded.answer(render(question, [WEATHER]))

    call = answer.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
    assert json.loads(call) == {"name": "get_weather", "arguments": {"city": "Paris"}}


def test_what_the_tool_responded_is_in_the_answer(loaded):
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    messages = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"temperature": 21, "condition": "sunny"}'},
    ]

    assert "21" in loaded.answer(render(messages, [WEATHER]))


def test_no_tool_is_called_for_a_greeting(loaded):
    answer = loaded.answer(render([{"role": "user", "content": "Hello!"}], [WEATHER]))

    assert answer == "Hello! How can I help you?"


def test_json_with_the_wanted_keys_comes_back(loaded):
    question = "Answer in JSON with keys name and age: Ada is 36"

    answer = loaded.answer(render([{"role": "user", "content": question}]))

    assert json.loads(answer) == {"name": "Ada", "age": 36}
