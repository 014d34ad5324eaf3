"""Ollama's official Python client against a served gateway."""

import json
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from ollama import AsyncClient, Client
from pydantic import BaseModel

from tests.sdk.ollama_places import PLACES, OllamaPlace

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
COUNT = [{"role": "user", "content": "Count from 1 to 20."}]
ADA = [{"role": "user", "content": "Answer in JSON with keys name and age: Ada is 36"}]
GREEDY = {"temperature": 0}


class Person(BaseModel):
    name: str
    age: int


def get_weather(city: str) -> str:
    """Get the current weather in a city.

    Args:
      city: the city
    """
    return f"rain in {city}"


@pytest.fixture(scope="module", params=PLACES.values(), ids=PLACES.keys())
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OllamaPlace]:
    with request.param(tmp_path_factory.mktemp("ollama")) as place:
        yield place


@pytest.fixture(scope="module")
def client(place: OllamaPlace) -> Iterator[Client]:
    client = Client(host=place.host, timeout=60)
    yield client
    client._client.close()


def names(client: Client) -> list[str | None]:
    return [model.model for model in client.list().models]


def test_it_chats(client: Client, place: OllamaPlace) -> None:
    answer = client.chat(place.model, CAPITAL, options=GREEDY)

    assert "Paris" in (answer.message.content or "")
    assert answer.message.role == "assistant"
    assert (answer.done, answer.done_reason, answer.model) == (True, "stop", place.model)
    assert answer.eval_count and answer.eval_duration and answer.prompt_eval_count
    assert answer.total_duration and answer.total_duration > 0
    assert answer.created_at and answer.created_at.endswith("Z")


def test_it_streams_what_it_says_whole(client: Client, place: OllamaPlace) -> None:
    parts = list(client.chat(place.model, COUNT, options=GREEDY, stream=True))
    whole = client.chat(place.model, COUNT, options=GREEDY)

    text = "".join(part.message.content or "" for part in parts)
    assert text == ", ".join(str(number) for number in range(1, 21)) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].eval_count == whole.eval_count


async def test_the_async_client_streams_too(place: OllamaPlace) -> None:
    client = AsyncClient(host=place.host, timeout=60)
    pieces = [
        part.message.content or ""
        async for part in await client.chat(place.model, CAPITAL, options=GREEDY, stream=True)
    ]
    await client._client.aclose()

    assert "Paris" in "".join(pieces)


def test_it_calls_tools(client: Client, place: OllamaPlace) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]

    answer = client.chat(place.model, asked, tools=[get_weather], options=GREEDY)

    (call,) = answer.message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Oslo"})
    told = {"role": "tool", "tool_name": "get_weather", "content": get_weather("Oslo")}
    after = client.chat(
        place.model, [*asked, answer.message, told], tools=[get_weather], options=GREEDY
    )
    assert after.message.content


def test_a_tool_call_arrives_whole_in_a_stream(client: Client, place: OllamaPlace) -> None:
    asked = [{"role": "user", "content": "What is the weather in Oslo?"}]

    parts = list(client.chat(place.model, asked, tools=[get_weather], options=GREEDY, stream=True))

    calls = [call for part in parts for call in part.message.tool_calls or []]
    assert [call.function.arguments for call in calls] == [{"city": "Oslo"}]


def test_a_format_is_kept_to(client: Client, place: OllamaPlace) -> None:
    schema = client.chat(
        place.model, ADA, format=Person.model_json_schema(), options=GREEDY
    ).message.content
    some = client.generate(place.model, ADA[0]["content"], format="json", options=GREEDY)

    assert Person.model_validate_json(schema or "") == Person(name="Ada", age=36)
    assert isinstance(json.loads(some.response or ""), dict)


def test_it_generates_and_goes_on_with_a_context(client: Client, place: OllamaPlace) -> None:
    first = client.generate(place.model, "My name is Ada.", options=GREEDY)
    second = client.generate(place.model, "What is my name?", context=first.context, options=GREEDY)
    streamed = list(client.generate(place.model, "My name is Ada.", options=GREEDY, stream=True))

    assert "Ada" in (second.response or "")
    assert "".join(part.response or "" for part in streamed) == first.response
    assert streamed[-1].context == first.context


def test_raw_prompts_stops_and_lengths_are_honoured(client: Client, place: OllamaPlace) -> None:
    options = {"temperature": 0, "num_predict": 2}
    short = client.generate(place.model, "The capital", raw=True, options=options)
    stopped = client.chat(place.model, CAPITAL, options={"temperature": 0, "stop": ["Paris"]})

    assert (short.eval_count, short.done_reason, short.context) == (2, "length", None)
    assert "Paris" not in (stopped.message.content or "")


def test_a_template_may_come_with_a_request(client: Client, place: OllamaPlace) -> None:
    if place.kind == "scripted":
        pytest.skip("a script has no templates")
    turn = "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n"
    question = CAPITAL[0]["content"]

    own = client.generate(place.model, question, template=turn, options=GREEDY)
    usual = client.generate(place.model, question, options=GREEDY)
    with pytest.raises(ollama.ResponseError, match="template cannot be used") as caught:
        client.generate(place.model, question, template="{{ call .Prompt }}")

    assert own.response == usual.response
    assert own.prompt_eval_count == usual.prompt_eval_count
    assert caught.value.status_code == 400


def test_logprobs_come_with_the_tokens(client: Client, place: OllamaPlace) -> None:
    answer = client.generate(place.model, "hi", logprobs=True, options={"num_predict": 2})

    assert len(answer.logprobs or []) == 2
    assert all(one.logprob <= 0 for one in answer.logprobs or [])


def test_it_embeds(client: Client, place: OllamaPlace) -> None:
    several = client.embed(place.model, ["one", "two words"])
    one = client.embeddings(place.model, "one")

    assert len(several.embeddings) == 2
    assert list(one.embedding) == pytest.approx(list(several.embeddings[0]))
    assert several.prompt_eval_count


def test_it_lists_shows_loads_and_unloads(client: Client, place: OllamaPlace) -> None:
    loaded = client.generate(place.model, keep_alive="10m")
    running = [model.model for model in client.ps().models]
    shown = client.show(place.model)
    unloaded = client.generate(place.model, keep_alive=0)

    assert place.model in names(client)
    assert all(model.digest and model.modified_at for model in client.list().models)
    assert (loaded.done_reason, loaded.response) == ("load", "")
    assert running == [place.model]
    assert shown.details is not None
    assert shown.details.family == "llama"
    assert "completion" in (shown.capabilities or [])
    assert (shown.modelinfo or {})["general.architecture"] == "llama"
    assert unloaded.done_reason == "unload"
    assert client.ps().models == []


def test_a_model_is_made_copied_pushed_pulled_and_deleted(
    client: Client, place: OllamaPlace
) -> None:
    digest = client.create_blob(place.weights)
    name = f"{place.registry}/mine:v1"

    steps = list(
        client.create(
            "mine",
            files={"model.gguf": digest},
            system="You are helpful.",
            parameters={"temperature": 0, "stop": ["END"]},
            license="MIT",
            stream=True,
        )
    )
    assert steps[-1].status == "success"
    assert "mine:latest" in names(client) or "mine" in names(client)
    assert client.copy("mine", name).status == "success"
    pushed = list(client.push(name, stream=True))
    assert client.delete(name).status == "success"
    with pytest.raises(ollama.ResponseError):
        client.chat(name, CAPITAL)
    pulled = list(client.pull(name, stream=True))
    answer = client.chat(name, CAPITAL)
    client.delete(name)
    client.delete("mine")

    assert pushed[-1].status == pulled[-1].status == "success"
    assert any(step.total and step.digest for step in pulled)
    assert "Paris" in (answer.message.content or "")
    assert not [one for one in names(client) if "mine" in (one or "")]


def test_what_is_not_streamed_ends_with_success(client: Client, place: OllamaPlace) -> None:
    assert client.create("twin", from_=place.model, system="Be brief.").status == "success"
    assert client.chat("twin", CAPITAL, options=GREEDY).message.content
    assert client.delete("twin").status == "success"


def test_a_model_that_is_not_there_is_a_404(client: Client) -> None:
    for ask in (
        lambda: client.chat("no-such-model", CAPITAL),
        lambda: list(client.chat("no-such-model", CAPITAL, stream=True)),
        lambda: client.generate("no-such-model", "hi"),
        lambda: client.show("no-such-model"),
        lambda: client.delete("no-such-model"),
        lambda: client.copy("no-such-model", "other"),
        lambda: client.embed("no-such-model", "hi"),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            ask()

        assert caught.value.status_code == 404
        assert caught.value.error == "model 'no-such-model' not found"


def test_a_client_that_leaves_early_is_no_trouble(client: Client, place: OllamaPlace) -> None:
    for part in client.chat(place.model, COUNT, stream=True):
        assert not part.done
        break

    assert client.chat(place.model, CAPITAL, options=GREEDY).done
