"""The official Python client against a served gateway."""

import json
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.sdk.conftest import Place

CAPITAL: Any = [{"role": "user", "content": "What is the capital of France?"}]
COUNT: Any = [{"role": "user", "content": "Count from 1 to 20."}]
ADA: Any = [{"role": "user", "content": "Answer in JSON with keys name and age: Ada is 36"}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
GET_WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture
def client(place: Place) -> Iterator[OpenAI]:
    with OpenAI(base_url=place.base_url, api_key=place.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(place: Place) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=place.base_url, api_key=place.api_key, max_retries=0) as client:
        yield client


def test_it_chats(client: OpenAI, place: Place) -> None:
    answer = client.chat.completions.create(model=place.model, messages=CAPITAL, temperature=0)

    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == place.model
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (answer._request_id or "").startswith("req_")


def test_it_streams_what_it_says_whole(client: OpenAI, place: Place) -> None:
    whole = client.chat.completions.create(model=place.model, messages=COUNT, temperature=0)

    with client.chat.completions.create(
        model=place.model,
        messages=COUNT,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)

    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == ", ".join(str(number) for number in range(1, 21))
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(bool(piece) for piece in pieces) > 1
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_without_the_option_has_no_usage(client: OpenAI, place: Place) -> None:
    with client.chat.completions.create(
        model=place.model, messages=CAPITAL, temperature=0, stream=True
    ) as stream:
        assert all(chunk.choices and chunk.usage is None for chunk in stream)


async def test_the_async_client_streams_too(async_client: AsyncOpenAI, place: Place) -> None:
    pieces: list[str] = []
    async with await async_client.chat.completions.create(
        model=place.model, messages=CAPITAL, temperature=0, stream=True
    ) as stream:
        async for chunk in stream:
            pieces.append(chunk.choices[0].delta.content or "")

    assert "Paris" in "".join(pieces)


def test_a_json_schema_is_answered_with_its_json(client: OpenAI, place: Place) -> None:
    answer = client.chat.completions.create(
        model=place.model,
        messages=ADA,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "person",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                    "required": ["name", "age"],
                    "additionalProperties": False,
                },
            },
        },
    )

    assert json.loads(answer.choices[0].message.content or "") == {"name": "Ada", "age": 36}


def test_the_clients_own_parser_gets_its_type(client: OpenAI, place: Place) -> None:
    answer = client.chat.completions.parse(
        model=place.model, messages=ADA, temperature=0, response_format=Person
    )

    assert answer.choices[0].message.parsed == Person(name="Ada", age=36)


def test_a_tool_is_called_with_the_right_argument(client: OpenAI, place: Place) -> None:
    answer = client.chat.completions.create(
        model=place.model, messages=WEATHER, tools=[GET_WEATHER], temperature=0
    )

    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}


def test_a_streamed_tool_call_is_put_together(client: OpenAI, place: Place) -> None:
    with client.chat.completions.stream(
        model=place.model, messages=WEATHER, tools=[GET_WEATHER], temperature=0
    ) as stream:
        answer = stream.get_final_completion()

    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].id
    assert calls[0].function.name == "get_weather"
    assert json.loads(calls[0].function.arguments) == {"city": "Oslo"}


def test_an_answer_can_be_sent_back_as_it_came(client: OpenAI, place: Place) -> None:
    asked = client.chat.completions.create(
        model=place.model, messages=WEATHER, tools=[GET_WEATHER], temperature=0
    )
    message = asked.choices[0].message
    assert message.tool_calls is not None
    back: Any = [
        *WEATHER,
        message.model_dump(),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain, 7 degrees"},
    ]

    answer = client.chat.completions.create(
        model=place.model, messages=back, tools=[GET_WEATHER], temperature=0
    )

    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content


def test_choices_and_logprobs(client: OpenAI, place: Place) -> None:
    answer = client.chat.completions.create(
        model=place.model, messages=CAPITAL, temperature=0, n=2, logprobs=True, top_logprobs=2
    )

    first, second = answer.choices
    assert first.message.content == second.message.content
    assert first.logprobs is not None
    tokens = first.logprobs.content or []
    text = b"".join(bytes(token.bytes or []) for token in tokens).decode()
    assert text == first.message.content
    assert all(token.logprob <= 0 for token in tokens)


def test_completions_go_on(client: OpenAI, place: Place) -> None:
    answer = client.completions.create(
        model=place.model, prompt=["Once", "Twice"], max_tokens=3, temperature=0, echo=True
    )

    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text.startswith("Once")
    assert answer.choices[1].finish_reason in ("length", "stop")


def test_embeddings_are_unit_vectors_in_either_encoding(client: OpenAI, place: Place) -> None:
    texts = ["hello there", "good morning"]

    # Without an encoding the client asks for base64 and decodes it.
    decoded = client.embeddings.create(model=place.model, input=texts)
    numbers = client.embeddings.create(model=place.model, input=texts, encoding_format="float")

    for one, other in zip(decoded.data, numbers.data, strict=True):
        assert math.isclose(math.hypot(*one.embedding), 1, rel_tol=1e-4)
        assert one.embedding == pytest.approx(other.embedding, rel=1e-5, abs=1e-7)
    assert [entry.index for entry in decoded.data] == [0, 1]
    assert decoded.usage.prompt_tokens > 0


def test_models_are_listed_and_found(client: OpenAI, place: Place) -> None:
    listed = {model.id for model in client.models.list()}

    assert {place.model, place.alias} <= listed
    assert client.models.retrieve(place.model).id == place.model


def test_an_alias_answers_under_its_own_name(client: OpenAI, place: Place) -> None:
    answer = client.chat.completions.create(model=place.alias, messages=CAPITAL, max_tokens=2)

    assert answer.model == place.alias
    assert answer.choices[0].finish_reason == "length"


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="nobody/nothing:1b", messages=CAPITAL)
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"

    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody/nothing:1b")


def test_a_bad_field_is_a_bad_request_that_names_it(client: OpenAI, place: Place) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=place.model, messages=CAPITAL, temperature=3)

    assert raised.value.param == "temperature"
    assert raised.value.type == "invalid_request_error"
    assert (raised.value.request_id or "").startswith("req_")


def test_a_bad_key_is_an_authentication_error(place: Place) -> None:
    with (
        OpenAI(base_url=place.base_url, api_key=place.bad_key, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as raised,
    ):
        client.models.list()

    assert raised.value.code == "invalid_api_key"


def test_a_prompt_that_is_too_long_says_so(client: OpenAI, place: Place) -> None:
    long: Any = [{"role": "user", "content": "hello " * 20_000}]

    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=place.model, messages=long, stream=True)

    assert raised.value.code == "context_length_exceeded"


def test_an_echoed_prompt_is_scored_where_the_engine_can(client: OpenAI, place: Place) -> None:
    asked = {"model": place.model, "prompt": "One, two, three", "echo": True, "max_tokens": 4}
    if place.kind == "gguf":
        with pytest.raises(openai.BadRequestError, match="does not score prompts"):
            client.completions.create(**asked, logprobs=1, temperature=0)
        return

    choice = client.completions.create(**asked, logprobs=1, temperature=0).choices[0]

    scores = choice.logprobs
    assert choice.text.startswith("One, two, three")
    assert scores is not None
    assert "".join(scores.tokens or []) == choice.text
    if place.kind == "paged":
        assert scores.token_logprobs[0] is None
        assert all(value <= 0 for value in scores.token_logprobs[1:])
        lengths = [len(token) for token in scores.tokens]
        assert scores.text_offset == [sum(lengths[:at]) for at in range(len(lengths))]
