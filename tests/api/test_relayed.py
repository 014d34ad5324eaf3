"""Calls that a remote engine passes on: through the whole gateway, over real sockets."""

import http.client
import json
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.api.remote_stage import RemoteStage, remote_stage
from tests.upstream import (
    CHAT,
    DONE,
    SSE_HEAD,
    USAGE,
    answering,
    chunk,
    chunked,
    head,
    sending,
    streaming,
)

FILES = {
    "gateway.toml": """
        plugins = ["anonymous", "allow_lists", "defaults", "routing", "remote_engine"]
        [anonymous]
        team = "me"
    """,
    "engines.toml": """
        [up]
        kind = "remote"
        base_url = "{url}"
        refresh_seconds = 0
        passthrough = [
            "responses", "GET responses/*", "DELETE files/*", "audio/speech", "moderations"
        ]
        return_headers = ["x-cost"]
        pass_headers = ["openai-beta"]

        [plain]
        kind = "remote"
        base_url = "{url}"
        refresh_seconds = 0
    """,
    "models.toml": """
        [public]
        aliases = ["alias"]
          [[public.targets]]
          engine = "up"
          model  = "upstream-model"

        [filled]
        defaults = { temperature = 0.25, max_tokens = 99 }
          [[filled.targets]]
          engine = "up"
          model  = "upstream-model"

        [secret]
          [[secret.targets]]
          engine = "up"

        [plain]
          [[plain.targets]]
          engine = "plain"
    """,
    "teams.toml": """
        [me]
        models    = ["*", "!secret"]
        endpoints = ["openai.*", "!openai.passthrough.moderations"]
        limits    = "small"
    """,
    "limits.toml": "[small]\nmax_output_tokens = 1000",
}
ODD = {
    "model": "public",
    "messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}],
    "temperature": 3.5,
    "top_a": 0.2,
    "provider": {"order": ["x"]},
    "store": True,
    "stop": "x" * 1001,  # more than a model here takes
}


@pytest.fixture(scope="module")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteStage]:
    with remote_stage(tmp_path_factory.mktemp("relayed"), FILES) as stage:
        yield stage


@pytest.fixture
def stage(_stage: RemoteStage) -> RemoteStage:
    _stage.upstream.scene = answering(CHAT)
    _stage.upstream.clear()
    return _stage


def test_fields_that_nobody_here_knows_go_to_the_upstream_as_they_are(stage: RemoteStage) -> None:
    response = stage.client.post("/v1/chat/completions", json=ODD)

    assert response.status_code == 200, response.text
    assert stage.upstream.last.json == {
        **ODD, "model": "upstream-model", "max_tokens": 1000,
    }  # fmt: skip


def test_fields_that_nobody_here_knows_come_back_as_they_are(stage: RemoteStage) -> None:
    response = stage.client.post("/v1/chat/completions", json=ODD)

    assert response.json() == {**CHAT, "model": "public"}
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["openai-version"]


def test_the_answers_model_is_the_name_that_was_asked_for(stage: RemoteStage) -> None:
    assert stage.chat(model="alias").json()["model"] == "alias"


def test_policys_defaults_and_caps_are_written_in(stage: RemoteStage) -> None:
    stage.chat(model="filled")
    assert stage.upstream.last.json["temperature"] == 0.25
    assert stage.upstream.last.json["max_tokens"] == 99

    stage.chat(model="filled", temperature=0, max_completion_tokens=5000)
    assert stage.upstream.last.json["temperature"] == 0
    assert stage.upstream.last.json["max_completion_tokens"] == 1000
    assert "max_tokens" not in stage.upstream.last.json


def test_a_stream_is_the_upstreams_own_but_for_names_and_counts(stage: RemoteStage) -> None:
    stage.upstream.scene = streaming(
        chunk("hel", usage=None, vendor={"x": 1.50}),
        b": note\n\n",
        chunk("lo"),
        chunk(),
        USAGE,
        DONE,
    )

    response = stage.chat(model="public", stream=True)

    frames = [json.loads(frame[6:]) for frame in response.text.split("\n\n")[:-2]]
    assert [frame["model"] for frame in frames] == ["public"] * 3
    assert frames[0]["vendor"] == {"x": 1.5}
    assert not any("usage" in frame for frame in frames)
    assert response.text.endswith("data: [DONE]\n\n")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_n_choices_are_one_question_to_the_upstream(stage: RemoteStage) -> None:
    stage.chat(model="public", n=3)

    assert len(stage.upstream.requests) == 1
    assert stage.upstream.last.json["n"] == 3


@pytest.mark.parametrize("field", ["n", "best_of"])
def test_how_many_answers_there_are_is_still_limited(stage: RemoteStage, field: str) -> None:
    response = stage.chat(model="public", **{field: 1000})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == field
    assert stage.upstream.requests == []


def test_completions_and_embeddings_are_relayed_too(stage: RemoteStage) -> None:
    stage.upstream.scene = answering({"model": "upstream-model", "choices": [{"text": "x",
                                      "finish_reason": "stop"}], "odd": 1})  # fmt: skip
    completion = stage.client.post(
        "/v1/completions", json={"model": "public", "prompt": ["a", "b"], "suffix": "c"}
    )
    assert completion.json()["odd"] == 1
    assert stage.upstream.last.json["suffix"] == "c"

    stage.upstream.scene = answering({"model": "upstream-model", "data": [], "odd": 2,
                                     "usage": {"prompt_tokens": 3, "total_tokens": 3}})  # fmt: skip
    vectors = stage.client.post(
        "/v1/embeddings", json={"model": "public", "input": "a", "task": "search"}
    )
    assert vectors.json()["odd"] == 2
    assert vectors.json()["model"] == "public"
    assert stage.upstream.last.json["task"] == "search"


def test_headers_pass_in_both_directions_only_where_listed(stage: RemoteStage) -> None:
    stage.upstream.scene = answering(CHAT, x_cost="5", x_internal="host-7", set_cookie="a=b",
                                     x_request_id="theirs")  # fmt: skip
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    response = stage.client.post(
        "/v1/chat/completions", json=ODD,
        headers={"authorization": "Bearer mine", "cookie": "c=d", "traceparent": trace,
                 "openai-beta": "x", "x-anything": "1"},
    )  # fmt: skip

    assert response.headers["x-cost"] == "5"
    assert not {"x-internal", "set-cookie"} & set(response.headers)
    got = stage.upstream.last.headers
    assert (got["traceparent"], got["openai-beta"]) == (trace, "x")
    assert not {"authorization", "cookie", "x-anything"} & set(got)
    assert got["x-client-request-id"] == f"{response.headers['x-request-id']}-0"


def test_rerank_is_relayed(stage: RemoteStage) -> None:
    stage.upstream.scene = answering(
        {"id": "r", "model": "upstream-model", "usage": {"total_tokens": 12},
         "results": [{"index": 1, "relevance_score": 0.9, "document": {"text": "b"}}]}
    )  # fmt: skip

    response = stage.client.post(
        "/v1/rerank", json={"model": "public", "query": "q", "documents": ["a", "b"], "top_n": 1}
    )

    assert response.status_code == 200
    assert response.json()["results"][0]["relevance_score"] == 0.9
    assert response.json()["model"] == "public"
    assert stage.upstream.last.path == "/v1/rerank"
    refused = stage.client.post("/v1/rerank", json={"model": "public", "query": "q"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "documents")


def test_a_listed_path_is_passed_through_event_by_event(stage: RemoteStage) -> None:
    events = (
        b'event: response.created\ndata: {"type":"response.created","response":'
        b'{"model":"upstream-model"}}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed","response":'
        b'{"model":"upstream-model","usage":{"input_tokens":4,"output_tokens":2}}}\n\n',
    )
    stage.upstream.scene = streaming(*events)

    response = stage.client.post(
        "/v1/responses?include=x", json={"model": "public", "input": "hi", "stream": True}
    )

    assert response.text == b"".join(events).decode().replace("upstream-model", "public")
    assert stage.upstream.last.path == "/v1/responses?include=x"
    assert stage.upstream.last.json["max_output_tokens"] == 1000


def test_sound_is_passed_through_with_its_type(stage: RemoteStage) -> None:
    stage.upstream.scene = sending(
        head(content_type="audio/mpeg", content_length=4) + b"\xff\xfb\x90\x00"
    )

    response = stage.client.post(
        "/v1/audio/speech", json={"model": "public", "input": "hi", "voice": "x"}
    )

    assert response.content == b"\xff\xfb\x90\x00"
    assert response.headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize("headers", [b"", b"content-type: application/json\r\n"])
def test_an_answer_of_nothing_is_passed_through_as_nothing(
    stage: RemoteStage, headers: bytes
) -> None:
    stage.upstream.scene = sending(b"HTTP/1.1 204 No Content\r\n" + headers + b"\r\n")

    response = stage.client.delete("/v1/files/file-1")

    assert (response.status_code, response.content) == (204, b"")
    assert not {"content-type", "content-length", "transfer-encoding"} & set(response.headers)


def test_a_path_without_a_body_goes_to_the_only_upstream_that_has_it(stage: RemoteStage) -> None:
    stage.upstream.scene = answering({"id": "resp_1"})

    assert stage.client.get("/v1/responses/resp_1").json() == {"id": "resp_1"}
    assert (stage.upstream.last.method, stage.upstream.last.path) == ("GET", "/v1/responses/resp_1")

    named = stage.client.get("/v1/responses/resp_1", headers={"x-penstock-model": "public"})
    assert named.status_code == 200
    unknown = stage.client.get("/v1/responses/resp_1", headers={"x-penstock-model": "secret"})
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/files"),
        ("DELETE", "/v1/responses/x"),
        ("GET", "/v1/responses/..%2f..%2fadmin"),
        ("POST", "/v1/chat"),
        ("GET", "/v1/"),
        ("PUT", "/v1/responses"),
    ],
)
def test_a_path_that_is_not_listed_does_not_exist(
    stage: RemoteStage, method: str, path: str
) -> None:
    response = stage.client.request(method, path)

    assert response.status_code in (404, 405)
    assert response.json()["error"]["code"] in ("unknown_url", "method_not_allowed")
    assert stage.upstream.requests == []


def test_a_team_is_allowed_one_path_and_not_another(stage: RemoteStage) -> None:
    response = stage.client.post("/v1/moderations", json={"model": "public", "input": "x"})

    assert response.status_code == 403
    assert "openai.passthrough.moderations" in response.json()["error"]["message"]
    assert stage.upstream.requests == []


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/rerank", "/v1/chat/completions"])
def test_a_model_that_the_team_may_not_use_does_not_exist(stage: RemoteStage, path: str) -> None:
    body = {"query": "q", "documents": [], "messages": []}

    for model in ("secret", "no-such"):
        response = stage.client.post(path, json={"model": model, **body})
        assert response.status_code in (400, 404)
        answers = response.json()["error"]["message"].replace(model, "M")
        assert "secret" not in answers
    both = [
        re.sub("secret|no-such", "M",
               stage.client.post(path, json={"model": m, "odd": 1, **body}).text)
        for m in ("secret", "no-such")
    ]  # fmt: skip
    assert both[0] == both[1]
    assert stage.upstream.requests == []


def test_a_path_is_served_only_for_models_whose_upstream_has_it(stage: RemoteStage) -> None:
    response = stage.client.post("/v1/responses", json={"model": "plain", "input": "x"})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"model=public", "application/x-www-form-urlencoded", 415),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x", 415),
        (b"{", "application/json", 400),
        (b'{"model":5}', "application/json", 400),
        (b'{"model":"public","model":"secret"}', "application/json", 400),
        (b"[" * 1000, "application/json", 400),
    ],
)
def test_a_body_that_cannot_be_checked_is_not_passed_on(
    stage: RemoteStage, content: bytes, content_type: str, status: int
) -> None:
    for path in ("/v1/responses", "/v1/chat/completions"):
        response = stage.client.post(path, content=content, headers={"content-type": content_type})

        assert response.status_code == status
    assert stage.upstream.requests == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_before_the_headers_frees_everything(
    stage: RemoteStage, stream: bool
) -> None:
    stage.upstream.scene = sending(then="hang")
    open_before = stage.upstream.num_open
    client = http.client.HTTPConnection(httpx.URL(stage.server.url).netloc.decode())
    body = json.dumps({"model": "public", "messages": [], "stream": stream})

    client.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    stage.upstream.wait_until(lambda: len(stage.upstream.requests) == 1)
    client.close()

    stage.upstream.wait_until(lambda: stage.upstream.num_open < max(open_before, 1))
    stage.server.wait_until(
        lambda: not stage.server.gateway.calls and stage.engine("up").num_running == 0
    )


def test_a_client_that_hangs_up_in_mid_stream_frees_everything(stage: RemoteStage) -> None:
    stage.upstream.scene = sending(SSE_HEAD + chunked(chunk("hello")), then="hang")
    body = {"model": "public", "messages": [], "stream": True}

    with stage.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        assert "hello" in next(lines)
        kept = stage.server.run(lambda: stage.engine("up").num_connections) - 1

    stage.upstream.wait_until(lambda: stage.upstream.num_open <= kept)
    stage.server.wait_until(
        lambda: not stage.server.gateway.calls and stage.engine("up").num_running == 0
    )
