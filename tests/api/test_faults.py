"""What a client sees when an upstream fails: the table in docs/routing.md, row by row."""

import asyncio
import gzip
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from tests.api.remote_stage import RemoteStage, remote_stage
from tests.upstream import (
    CHAT,
    DONE,
    END,
    SSE_HEAD,
    Connection,
    Scene,
    answering,
    chunk,
    chunked,
    event,
    head,
    sending,
    streaming,
    trickling,
)

DOCS = Path(__file__).parents[2] / "docs" / "routing.md"
BEGUN = SSE_HEAD + chunked(chunk("hello"))
JSON_HEAD = head(content_length=100_000)
ERROR = {"error": {"message": "no", "type": "server_error", "code": None, "param": None}}


@dataclass(frozen=True)
class Fault:
    """What the upstream does, and what the client of a whole answer and of a stream is told."""

    whole: Scene | None = None  # None: this happens only to streams
    before: Scene | None = None  # to a stream, before it has said anything
    midway: Scene | None = None  # to a stream that has said "hello", which the client has read
    status: int = 503
    code: str = "engine_unavailable"
    retry_after: str | None = None
    engine: str = "patient"


def everywhere(scene: Scene, **fields: object) -> Fault:
    return Fault(whole=scene, before=scene, **fields)  # type: ignore[arg-type]


FAULTS: Mapping[str, Fault] = {
    "refuses the connection": Fault(whole=sending(), before=sending(), engine="closed"),
    "hangs before its headers": everywhere(sending(then="hang"), engine="hasty"),
    "hangs in mid-answer": Fault(
        whole=sending(JSON_HEAD + b'{"id":', then="hang"),
        before=sending(SSE_HEAD, then="hang"),
        midway=sending(then="hang"),
        engine="hasty",
    ),
    "resets the connection": Fault(
        whole=sending(JSON_HEAD + b'{"id":', then="reset"),
        before=sending(SSE_HEAD, then="reset"),
        midway=sending(then="reset"),
    ),
    "closes the connection": Fault(
        whole=sending(JSON_HEAD + b'{"id":'),
        before=sending(SSE_HEAD),
        midway=sending(),
    ),
    "ends too early": Fault(
        whole=answering(b'{"id": "x", "choices": ['),
        before=streaming(),
        midway=sending(END),
    ),
    "sends half an event": Fault(
        before=streaming(chunk("hello")[:-20]),
        midway=sending(chunked(chunk(" there")[:-20]) + END),
    ),
    "sends garbage": Fault(
        whole=answering(b"\x00\xff<<garbage>>"),
        before=streaming(b"data: \xff\xfe<<garbage>>\n\n"),
        midway=sending(chunked(b"data: {not json}\n\n")),
    ),
    "is not HTTP": everywhere(sending(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")),
    "429 with Retry-After": everywhere(
        answering(ERROR, "429 Too Many Requests", retry_after=7),
        code="server_is_overloaded",
        retry_after="7",
    ),
    "429 without money": everywhere(
        answering({"error": {"message": "pay", "code": "insufficient_quota"}}, "429 Too Many")
    ),
    "500": everywhere(answering(ERROR, "500 Internal Server Error")),
    "503": everywhere(
        answering(b"<html>busy</html>", "503 No", content_type="text/html", retry_after=3),
        retry_after="3",
    ),
    "401, 402, 403": everywhere(
        answering({"error": {"message": "bad key sk-upstream-12345678"}}, "401 Unauthorized")
    ),
    "redirects": everywhere(
        answering(b"", "307 Temporary Redirect", location="http://169.254.169.254/latest")
    ),
    "trickles": Fault(
        whole=trickling(JSON_HEAD, b" "),
        before=trickling(SSE_HEAD, chunked(b": wait\n\n")),
        midway=trickling(b"", chunked(b": wait\n\n")),
        engine="hasty",
    ),
    "sends the wrong content type": everywhere(answering(b"<html>", content_type="text/html")),
    "200 with an error in it": Fault(
        whole=answering(ERROR),
        before=streaming(event(ERROR)),
        midway=sending(chunked(event(ERROR))),
    ),
    "answers without an end": Fault(
        whole=trickling(head(transfer_encoding="chunked"), chunked(b" " * 5000), every=0.0),
        before=trickling(SSE_HEAD, chunked(b"x" * 5000), every=0.0),
        midway=trickling(b"", chunked(b"x" * 5000), every=0.0),
    ),
    "sends huge headers": everywhere(sending(head(x_huge="x" * 100_000, content_length=2) + b"{}")),
    "compresses": everywhere(answering(gzip.compress(b" " * 1_000_000), content_encoding="gzip")),
}
WHOLE = [name for name, fault in FAULTS.items() if fault.whole is not None]
BEFORE = [name for name, fault in FAULTS.items() if fault.before is not None]
MIDWAY = [name for name, fault in FAULTS.items() if fault.midway is not None]


@pytest.fixture(scope="module")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteStage]:
    with remote_stage(tmp_path_factory.mktemp("faults")) as stage:
        yield stage


@pytest.fixture
def stage(_stage: RemoteStage) -> RemoteStage:
    _stage.upstream.scene = answering(CHAT)
    _stage.upstream.clear()
    return _stage


def play(stage: RemoteStage, fault: Fault, scene: Scene | None, **fields: object) -> httpx.Response:
    assert scene is not None
    stage.upstream.scene = scene
    return stage.chat(model=f"{fault.engine}-model", **fields)


def assert_refused(response: httpx.Response, fault: Fault) -> None:
    assert response.status_code == fault.status, response.text
    assert response.json()["error"]["code"] == fault.code
    assert response.headers.get("retry-after") == fault.retry_after
    assert response.headers["content-type"] == "application/json"
    assert "sk-upstream" not in response.text
    assert "169.254" not in response.text + str(response.headers)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_that_fails_is_an_honest_status(stage: RemoteStage, name: str) -> None:
    fault = FAULTS[name]

    response = play(stage, fault, fault.whole)

    assert_refused(response, fault)
    assert_closed(stage, fault)


@pytest.mark.parametrize("name", BEFORE)
def test_a_stream_that_fails_before_it_said_anything_is_an_honest_status(
    stage: RemoteStage, name: str
) -> None:
    fault = FAULTS[name]

    response = play(stage, fault, fault.before, stream=True)

    assert_refused(response, fault)
    assert_closed(stage, fault)


@pytest.mark.parametrize("name", MIDWAY)
def test_a_stream_that_fails_later_ends_with_an_error_event(stage: RemoteStage, name: str) -> None:
    fault = FAULTS[name]
    was_read = threading.Event()

    async def scene(connection: Connection) -> None:
        await connection.send(BEGUN)
        await asyncio.to_thread(was_read.wait, 20)
        assert fault.midway is not None
        await fault.midway(connection)

    stage.upstream.scene = scene
    body = {"model": f"{fault.engine}-model", "messages": [], "stream": True}
    with stage.client.stream("POST", "/v1/chat/completions", json=body) as response:
        frames = response.iter_lines()
        first = next(frames)
        was_read.set()
        rest = "\n".join(frames)

    assert response.status_code == 200
    assert '"content":"hello"' in first
    last = rest.rstrip().rpartition("\n")[2]
    assert last.startswith('data: {"error":{')
    assert fault.code in last
    assert "[DONE]" not in rest
    assert_closed(stage, fault)


def assert_closed(stage: RemoteStage, fault: Fault) -> None:
    """Connections are closed but for one that had a whole answer on it, which may be kept."""
    stage.server.wait_until(lambda: not stage.server.gateway.calls)
    engine = stage.engine(fault.engine)
    kept = stage.server.run(lambda: engine.num_connections)
    assert kept <= 1
    assert stage.server.run(lambda: engine.num_running) == 0
    others = sum(
        stage.server.run(lambda each=each: stage.engine(each).num_connections)
        for each in ("patient", "hasty")
    )
    stage.upstream.wait_until(lambda: stage.upstream.num_open <= others)


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422])
def test_a_refusal_that_the_client_can_act_on_keeps_its_status_and_its_words(
    stage: RemoteStage, status: int
) -> None:
    body = {"error": {"message": "upstream-model has no such knob", "type": "invalid_request_error",
                      "param": "knob", "code": "unknown_knob"}, "hint": [1, 2]}  # fmt: skip
    stage.upstream.scene = answering(body, f"{status} No")

    for stream in (False, True):
        response = stage.chat(stream=stream, knob=1)

        assert response.status_code == status
        body["error"]["message"] = "patient-model has no such knob"  # type: ignore[index]
        assert response.json() == body
        assert response.headers["x-penstock-error-source"] == "upstream"
        assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 422])
@pytest.mark.parametrize(
    "body", [b"<html>too large, says db3</html>", b"", b'["no"]', b'{"error":"\xff"}'], ids=repr
)
def test_a_refusal_without_words_for_the_client_keeps_its_status_in_our_words(
    stage: RemoteStage, status: int, body: bytes
) -> None:
    stage.upstream.scene = answering(body, f"{status} No", content_type="text/html")

    for stream in (False, True):
        response = stage.chat(stream=stream)

        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"
        assert response.json()["error"]["message"] == f"the upstream refused the request ({status})"
        assert response.headers["x-penstock-error-source"] == "upstream"
        assert response.headers["x-should-retry"] == "false"


def test_a_model_that_the_upstream_lacks_is_told_in_our_words(stage: RemoteStage) -> None:
    body = {"error": {"message": "The model `upstream-model` does not exist", "code": "x"}}
    stage.upstream.scene = answering(body, "404 Not Found")

    response = stage.chat()

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert "upstream-model" not in response.text


def test_a_prompt_that_is_too_long_is_told_as_the_upstream_told_it(stage: RemoteStage) -> None:
    body = {"error": {"message": "maximum context length is 10", "type": "invalid_request_error",
                      "param": "messages", "code": "context_length_exceeded"}}  # fmt: skip
    stage.upstream.scene = answering(body, "400 Bad Request")

    response = stage.chat()

    assert (response.status_code, response.json()) == (400, body)


def test_a_prompt_that_is_too_long_is_never_a_failure(stage: RemoteStage) -> None:
    body = {"error": {"code": 500, "message": "the request exceeds the available context size",
                      "type": "server_error"}}  # fmt: skip
    stage.upstream.scene = answering(body, "500 Internal Server Error")

    response = stage.chat()

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert "available context size" in response.json()["error"]["message"]


def test_the_official_client_raises_what_it_raises_at_the_source(stage: RemoteStage) -> None:
    client = openai.OpenAI(base_url=f"{stage.server.url}/v1", api_key="unused", max_retries=0)
    ask = client.chat.completions.create
    hi: list[dict[str, str]] = [{"role": "user", "content": "hi"}]

    with client:
        stage.upstream.scene = answering(ERROR, "422 No")
        with pytest.raises(openai.UnprocessableEntityError):
            ask(model="patient-model", messages=hi)  # type: ignore[arg-type]
        stage.upstream.scene = answering(ERROR, "500 No")
        with pytest.raises(openai.InternalServerError):
            ask(model="patient-model", messages=hi)  # type: ignore[arg-type]
        stage.upstream.scene = streaming(chunk("hello"), event(ERROR))
        with pytest.raises(openai.APIError, match="upstream"):
            for _ in ask(model="patient-model", messages=hi, stream=True):  # type: ignore[arg-type]
                pass


def test_a_body_that_goes_on_after_the_answer_is_not_waited_for(stage: RemoteStage) -> None:
    stage.upstream.scene = sending(
        SSE_HEAD + chunked(chunk("hello")) + chunked(chunk()) + chunked(DONE), then="hang"
    )

    response = stage.chat(stream=True)

    assert response.text.endswith("data: [DONE]\n\n")
    assert_closed(stage, Fault())


def test_a_stream_without_its_last_line_is_whole_if_the_answer_is(stage: RemoteStage) -> None:
    stage.upstream.scene = sending(SSE_HEAD + chunked(chunk("hello")) + chunked(chunk()) + END)

    response = stage.chat(stream=True)

    assert response.text.endswith("data: [DONE]\n\n")
    assert "error" not in response.text


def test_the_table_of_the_docs_has_these_faults() -> None:
    section = re.search(r"^## Faults$(.*?)(?=^## |\Z)", DOCS.read_text(), re.M | re.S)
    assert section is not None

    rows = re.findall(r"^\| ([^|]+?) \|", section[1], re.M)[1:]

    assert {row for row in rows if "400" not in row} == set(FAULTS)
