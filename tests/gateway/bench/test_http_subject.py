"""Against the gateway on a real socket, and against servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from engines.errors import Overloaded, Unavailable
from engines.protocol import ReasoningDelta
from gateway.bench.http_subject import Server, connected
from gateway.bench.question import Answer, AskFailed, Question, Turn
from tests.fakes import ScriptedEngine, Step
from tests.serving import Server as Gateway
from tests.serving import scripted_gateway, serving, write_policy

SCRIPT: list[Step] = []


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda _: SCRIPT)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, engine: ScriptedEngine) -> Iterator[Gateway]:
    directory = write_policy(tmp_path_factory.mktemp("bench") / "policy")
    with serving(scripted_gateway(directory, {"scripted": engine})) as running:
        yield running


@pytest.fixture(autouse=True)
def script() -> list[Step]:
    SCRIPT[:] = ["hello", " there", " you"]
    return SCRIPT


async def ask(url: str, question: Question, *history: Turn, **options: object) -> Answer:
    server = Server(url=url, model="chat-small", **options)  # type: ignore[arg-type]
    async with connected(server) as subject:
        return await subject.ask(question, history)


QUESTION = Question(text="how are you", max_tokens=50)


async def test_a_chat_answer_is_timed_and_its_tokens_counted(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    answer = await ask(gateway.url + "/v1", QUESTION, Turn("system", "be kind"))

    assert answer.text == "hello there you"
    assert answer.completion_tokens == 3
    assert answer.prompt_tokens == 5
    assert answer.tokens_were_told
    assert list(answer.arrivals) == sorted(answer.arrivals)
    assert answer.arrivals[-1] <= answer.finished_at
    request = engine.requests[-1]
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.sampling.temperature == 0
    assert request.max_tokens == 50


async def test_token_ids_go_to_completions_as_they_are(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    question = Question(token_ids=[5, 6, 7], max_tokens=2, ignore_eos=True, temperature=0.6)

    answer = await ask(gateway.url, question, endpoint="completions")

    request = engine.requests[-1]
    assert list(request.prompt or ()) == [5, 6, 7]
    assert request.sampling.ignore_eos
    assert request.sampling.temperature == 0.6
    assert answer.completion_tokens == 2


async def test_a_conversation_becomes_one_text_for_completions(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    await ask(gateway.url, QUESTION, Turn("user", "hi"), Turn("assistant", "yes"),
              endpoint="completions")  # fmt: skip

    assert engine.requests[-1].prompt == "user: hi\nassistant: yes\nuser: how are you\nassistant:"


async def test_extra_fields_are_added_and_null_takes_one_away(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    answer = await ask(gateway.url, QUESTION, extra={"top_k": 7, "stream_options": None})

    assert engine.requests[-1].sampling.top_k == 7
    assert not answer.tokens_were_told


async def test_thinking_is_the_first_output(gateway: Gateway, script: list[Step]) -> None:
    script[:] = [ReasoningDelta("hm"), "yes"]

    answer = await ask(gateway.url, QUESTION)

    assert len(answer.arrivals) == 2


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([Overloaded("64 are waiting")], "http_503"),
        (["half", Unavailable("the engine died")], "engine_unavailable"),
    ],
)
async def test_a_refusal_and_a_failure_on_the_way_are_told(
    gateway: Gateway, script: list[Step], steps: list[Step], kind: str
) -> None:
    script[:] = steps

    with pytest.raises(AskFailed) as caught:
        await ask(gateway.url, QUESTION)

    assert caught.value.kind == kind


async def test_a_wrong_key_is_told_with_the_way_out(gateway: Gateway) -> None:
    async with respond(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n") as url:
        with pytest.raises(AskFailed, match="--key") as caught:
            await ask(url, QUESTION, key="psk_wrong")

    assert caught.value.kind == "http_401"


@asynccontextmanager
async def respond(answer: bytes | None) -> AsyncIterator[str]:
    """A server that answers every connection with these bytes and closes; None: never."""
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        server.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (HEAD + b'\r\ndata: {"choices": [{"delta": {"content": "half', "cut_off"),
        (HEAD + b"content-length: 500\r\n\r\ndata: {", "cut_off"),
        (b"", "cut_off"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}", "not_streamed"),
        (b"HTTP/1.1 500 Oh\r\ncontent-type: text/html\r\n\r\n<h1>oh</h1>", "http_500"),
        (b"HTTP/1.1 400 No\r\n\r\n" + b'{"detail": "no such field"}', "http_400"),
    ],
)
async def test_what_is_no_whole_stream_is_a_failure(answer: bytes, kind: str) -> None:
    async with respond(answer) as url:
        with pytest.raises(AskFailed) as caught:
            await ask(url, QUESTION)

    assert caught.value.kind == kind


async def test_a_server_that_never_answers_is_given_up() -> None:
    async with respond(None) as url:
        with pytest.raises(AskFailed, match=r"within 0\.05 s") as caught:
            await ask(url, QUESTION, timeout_seconds=0.05)

    assert caught.value.kind == "timeout"


async def test_where_nothing_listens_it_says_so() -> None:
    with pytest.raises(AskFailed, match=r"nothing answers at http://127\.0\.0\.1:9/") as caught:
        await ask("http://127.0.0.1:9", QUESTION)

    assert caught.value.kind == "connect"


async def test_what_is_no_url_is_told() -> None:
    with pytest.raises(AskFailed, match="is not a URL"):
        await ask("localhost", QUESTION)


async def test_token_ids_are_never_sent_to_chat(gateway: Gateway) -> None:
    with pytest.raises(AskFailed, match="--endpoint completions"):
        await ask(gateway.url, Question(token_ids=[1], max_tokens=1))
