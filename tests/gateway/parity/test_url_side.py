import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from gateway.parity.answer import Answer
from gateway.parity.problems import CannotCompare
from gateway.parity.prompt_set import COMPLETIONS, EMBEDDINGS, Prompt, shipped_prompts
from gateway.parity.side import Manner
from gateway.parity.url_side import UrlSide
from tests.fakes import ScriptedEngine
from tests.gateway.parity.places import compared, policy_side, prompt
from tests.serving import Server, scripted_gateway, serving, write_policy

Handler = Callable[[httpx.Request], httpx.Response]
MODELS = {"object": "list", "data": [{"id": "small"}, {"id": "large"}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = write_policy(tmp_path_factory.mktemp("url") / "policy")
    with serving(scripted_gateway(directory, {"scripted": ScriptedEngine()})) as running:
        yield running


async def test_a_running_gateway_is_equal_to_its_own_policy(tmp_path: Path, server: Server) -> None:
    local = policy_side(tmp_path / "dev", ScriptedEngine())
    remote = UrlSide(server.url, "chat-small", name="there")

    report = await compared([local, remote], shipped_prompts())

    assert report.holds
    assert report.comparisons[0].num_answered == len(shipped_prompts()) - 1  # one is too long
    assert report.sides[1].first_output_seconds is not None


async def test_a_model_that_a_gateway_has_not_is_named_with_the_nearest(server: Server) -> None:
    side = UrlSide(f"{server.url}/v1", "chat-smal", name="there")

    await side.check([])
    with pytest.raises(CannotCompare, match=r"there has no model 'chat-smal' \(did you mean"):
        async with side.opened() as asker:
            await asker.ask(prompt(), Manner())


async def test_where_nothing_listens_the_url_is_named() -> None:
    side = UrlSide("http://127.0.0.1:9", "m", name="there")

    with pytest.raises(CannotCompare, match=r"no server answers at http://127\.0\.0\.1:9/v1: "):
        await side.check([])


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://", "localhost:8080"])
def test_what_is_no_url_is_named(url: str) -> None:
    with pytest.raises(CannotCompare, match="is not a URL like"):
        UrlSide(url, "m", name=url)


async def asked(handler: Handler, what: Prompt | None = None, **manner: object) -> Answer:
    """What a server that answers like this is heard to say."""

    def serve(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=MODELS)
        return handler(request)

    transport = httpx.MockTransport(serve)
    side = UrlSide("http://upstream/v1/", "small", name="there", transport=transport)
    await side.check([])
    async with side.opened() as asker:
        return await asker.ask(what or prompt(), Manner(**manner))  # type: ignore[arg-type]


def stream(*chunks: object, done: bool = True) -> httpx.Response:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    text = "".join([": hello\n\n", *lines, "data: [DONE]\n\n" if done else ""])
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


def chunk(finish: str | None = None, **delta: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


async def test_a_stream_is_put_together_with_thinking_calls_and_usage() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        call = {"index": 0, "id": "c", "function": {"name": "add", "arguments": '{"x"'}}
        more = {"index": 0, "function": {"arguments": ": 1}"}}
        return stream(
            chunk(role="assistant", content=""),
            chunk(reasoning="hm"),
            chunk(reasoning_content=" so"),
            chunk(content="naïve"),
            chunk(tool_calls=[call]),
            chunk(tool_calls=[more]),
            chunk("tool_calls"),
            USAGE,
        )

    answer = await asked(handler)

    assert (answer.text, answer.reasoning) == ("naïve", "hm so")
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("add", '{"x": 1}')]
    assert (answer.finish_reason, answer.prompt_tokens) == ("tool_calls", 7)
    assert answer.failure is None


async def test_the_body_is_the_users_with_model_and_stream() -> None:
    bodies: list[dict[str, object]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return stream(chunk("stop", content="x"), USAGE)

    await asked(handler, prompt(stop=["x"], chat_template_kwargs={"enable_thinking": False}))

    assert bodies[0] == {
        "messages": [{"role": "user", "content": "hi"}],
        "stop": ["x"],
        "chat_template_kwargs": {"enable_thinking": False},
        "model": "small",
        "temperature": 0,
        "max_tokens": 128,
        "logprobs": True,
        "top_logprobs": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_log_probabilities_are_given_up_where_they_are_refused() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "logprobs" in json.loads(request.content):
            return httpx.Response(400, json={"error": {"message": "no logprobs here"}})
        return stream(chunk("stop", content="x"), USAGE)

    assert (await asked(handler)).text == "x"


async def test_log_probabilities_are_read_in_both_endpoints_shapes() -> None:
    chat_entry = {
        "token": "é", "bytes": [195, 169], "logprob": -0.5,
        "top_logprobs": [{"token": "e", "logprob": -0.6}],
    }  # fmt: skip
    lists = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -0.6}]}

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/chat/completions"):
            choice = {"delta": {"content": "é"}, "logprobs": {"content": [chat_entry]}}
        else:
            choice = {"text": "a", "logprobs": lists}
        return stream({"choices": [{**choice, "finish_reason": "stop"}]}, USAGE)

    chat = await asked(handler)
    completion = await asked(handler, Prompt(name="c", endpoint=COMPLETIONS, body={"prompt": "x"}))

    assert (chat.logprobs[0].token, chat.logprobs[0].top[0].token) == ("é".encode(), b"e")
    assert [top.token for top in completion.logprobs[0].top] == [b"a", b"b"]
    assert completion.text == "a"


async def test_a_server_that_does_not_stream_is_understood() -> None:
    whole = {
        "choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }

    answer = await asked(lambda _: httpx.Response(200, json=whole))

    assert (answer.text, answer.prompt_tokens, answer.finish_reason) == ("hello", 3, "stop")


async def test_a_server_that_counts_only_whole_answers_is_asked_for_one() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content).get("stream"):
            return stream(chunk("stop", content="x"))
        return httpx.Response(200, json=USAGE)

    answer = await asked(handler)

    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("x", 7, 2)


@pytest.mark.parametrize(
    ("response", "kind", "code", "said"),
    [
        (httpx.Response(400, json={"error": {"code": "no_tools", "message": "not here"}}),
         "refused", "no_tools", "not here (HTTP 400)"),
        (httpx.Response(404, json={"detail": "Not Found"}), "failed", "http_404", "Not Found"),
        (httpx.Response(503, text="<html>busy"), "failed", "http_503", "<html>busy"),
        (httpx.Response(200, text="<html>hi"), "failed", "garbled", "ended before"),
        (stream(chunk(content="half"), done=False), "failed", "garbled", "ended before"),
        (stream({"error": {"message": "engine died"}}), "failed", "garbled", "engine died"),
        (stream({"choices": 7}), "failed", "garbled", "no answer of OpenAI's dialect"),
        (httpx.Response(200, json=[1]), "failed", "garbled", "no answer of OpenAI's dialect"),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_told(
    response: httpx.Response, kind: str, code: str, said: str
) -> None:
    answer = await asked(lambda _: response, logprobs=False)

    assert answer.failure is not None
    assert (answer.failure.kind, answer.failure.code) == (kind, code)
    assert said in answer.failure.message


async def test_a_connection_that_breaks_is_a_failure_of_that_prompt() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("connection reset", request=request)

    answer = await asked(handler)

    assert answer.failure is not None
    assert (answer.failure.code, answer.failure.message) == ("unavailable", "connection reset")


async def test_without_a_valid_key_nothing_is_compared() -> None:
    with pytest.raises(CannotCompare, match="lets nobody in without a valid key"):
        await asked(lambda _: httpx.Response(401, json={"error": {"message": "who?"}}))


async def test_a_key_is_sent_and_to_nobody_else() -> None:
    seen: list[str | None] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(302, headers={"location": "http://elsewhere/v1/models"})

    transport = httpx.MockTransport(serve)
    side = UrlSide("http://upstream", "m", name="there", key="sk-1", transport=transport)
    await side.check([])
    async with side.opened() as asker:
        answer = await asker.ask(prompt(), Manner())

    assert seen == ["Bearer sk-1"] * 2
    assert answer.failure is not None
    assert answer.failure.code == "http_302"


async def test_embeddings_come_in_the_order_of_their_inputs() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/embeddings"
        data = [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": [1.0, 0.0]}]
        return httpx.Response(200, json={"data": data, "usage": {"prompt_tokens": 4}})

    vectors = Prompt(name="v", endpoint=EMBEDDINGS, body={"input": ["a", "b"]})

    answer = await asked(handler, vectors)

    assert [list(vector) for vector in answer.vectors] == [[1.0, 0.0], [0.0, 1.0]]
    assert answer.prompt_tokens == 4
