"""Pulling, making, copying and deleting models: where it is done, by whom, and how it fails."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.errors import RequestRefused, Unavailable
from engines.modelfile_text import Instruction
from engines.protocol import Progress
from gateway.api.ollama import uploads
from tests.api.ollama_stage import OllamaStage, ollama_stage
from tests.fakes import Hold

CONTENT = b"weights" * 1000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MANAGING = [
    ("POST", "/api/pull", {"model": "a"}),
    ("POST", "/api/push", {"model": "chat-small"}),
    ("POST", "/api/create", {"model": "a", "from": "chat-small"}),
    ("POST", "/api/copy", {"source": "chat-small", "destination": "a"}),
    ("DELETE", "/api/delete", {"model": "chat-small"}),
    ("POST", f"/api/blobs/{DIGEST}", {}),
    ("HEAD", f"/api/blobs/{DIGEST}", None),
]


def audited(stage: OllamaStage, action: str) -> list[dict[str, Any]]:
    found = stage.client.get("/admin/audit", params={"action": action})
    return found.json()["rows"]


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaStage]:
    with ollama_stage(tmp_path_factory.mktemp("member"), role="member") as stage:
        yield stage


@pytest.mark.parametrize(("method", "path", "body"), MANAGING, ids=lambda value: str(value)[:20])
def test_managing_wants_the_role_admin(
    member: OllamaStage, method: str, path: str, body: object
) -> None:
    answer = member.client.request(method, path, json=body)

    assert answer.status_code == 403
    assert method == "HEAD" or "role admin" in answer.json()["error"]
    assert member.library.jobs == []
    assert member.library.blobs == {}


def test_how_long_a_model_stays_is_not_for_everybody(member: OllamaStage) -> None:
    kept = member.chat(keep_alive=-1)
    loaded = member.ask("generate", model="chat-small", keep_alive="1h")
    unloaded = member.ask("generate", model="chat-small", keep_alive=0)

    assert (kept.status_code, kept.headers["x-penstock-ignored"]) == (200, "keep_alive")
    assert member.library.requests[-1].keep_alive_seconds is None
    assert (loaded.status_code, loaded.json()["done_reason"]) == (200, "load")
    assert unloaded.status_code == 403
    assert member.library.loaded == {"scripted-model"}


def test_an_admins_keep_alive_counts(ollama: OllamaStage) -> None:
    for given, seconds in (("10m", 600.0), (-1, -1.0), (0, 0.0), (None, None)):
        assert "x-penstock-ignored" not in ollama.chat(keep_alive=given).headers
        assert ollama.last_request.keep_alive_seconds == seconds

    ollama.ask("chat", model="chat-small", messages=[])
    ollama.ask("generate", model="chat-small", keep_alive="1h")
    ollama.ask("embed", model="chat-small", input="", keep_alive=-5)
    assert ollama.library.loaded == {"scripted-model"}
    assert ollama.library.kept_alive == [3600.0, -1.0]
    unloaded = ollama.ask("chat", model="chat-small", keep_alive=0)
    assert unloaded.json()["done_reason"] == "unload"
    assert ollama.library.loaded == set()


def test_a_pulled_model_is_there_at_once(ollama: OllamaStage) -> None:
    before = ollama.chat(model="llama3.2")
    ollama.ask("pull", model="llama3.2")
    after = ollama.chat(model="llama3.2")
    names = [model["name"] for model in ollama.client.get("/api/tags").json()["models"]]

    assert (before.status_code, before.json()) == (404, {"error": "model 'llama3.2' not found"})
    assert after.status_code == 200
    assert "llama3.2" in names
    assert ollama.last_request.model == "llama3.2"


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("chat-small", "scripted-model"),
        ("chat-small:latest", "scripted-model"),
        ("gpt-4o-mini", "scripted-model"),
        ("gpt-4o-mini:latest", "scripted-model"),
        ("plain", "plain"),
        ("plain:latest", "plain"),
        ("tagged:latest", "tagged:latest"),
    ],
)
def test_a_name_without_a_tag_is_its_latest(ollama: OllamaStage, asked: str, model: str) -> None:
    ollama.library.names.extend(["plain", "tagged:latest"])

    answer = ollama.chat(model=asked)

    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == asked
    assert ollama.last_request.model == model


def test_a_name_of_the_policy_means_its_target(ollama: OllamaStage) -> None:
    ollama.ask("push", model="chat-small")
    ollama.ask("create", model="mario", **{"from": "gpt-4o-mini"}, system="You are Mario.")

    assert ollama.library.jobs == [("push", "scripted-model"), ("create", "mario")]
    assert ollama.library.modelfiles["mario"] == [
        Instruction(0, "FROM", "", "scripted-model"),
        Instruction(0, "SYSTEM", "", "You are Mario."),
    ]


def test_a_null_is_left_to_the_base_and_an_empty_text_takes_it_away(ollama: OllamaStage) -> None:
    ollama.ask("create", model="a", **{"from": "chat-small"}, system=None, template=None)
    ollama.ask("create", model="b", **{"from": "chat-small"}, system="", template="")

    said = {
        name: [(one[1], one[3]) for one in modelfile if isinstance(one, Instruction)]
        for name, modelfile in ollama.library.modelfiles.items()
    }
    assert said["a"] == [("FROM", "scripted-model")]
    assert said["b"] == [("FROM", "scripted-model"), ("TEMPLATE", ""), ("SYSTEM", "")]


def test_a_whole_modelfile_is_handed_on_as_it_is(ollama: OllamaStage) -> None:
    ollama.ask("create", model="old", modelfile="FROM tiny\r\nSYSTEM be kind")

    assert ollama.library.modelfiles["old"] == "FROM tiny\r\nSYSTEM be kind"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("pull", {"model": "bare"}),
        ("push", {"model": "bare"}),
        ("create", {"model": "bare", "from": "chat-small"}),
        ("create", {"model": "a", "from": "bare"}),
        ("copy", {"source": "bare", "destination": "a"}),
    ],
)
def test_an_engine_that_keeps_no_files_is_a_400(
    ollama: OllamaStage, path: str, body: dict[str, Any]
) -> None:
    answer = ollama.ask(path, **body)

    assert answer.status_code == 400
    assert answer.json() == {
        "error": "'bare' is a model of an engine that keeps no model files: bare"
    }


def test_a_model_of_such_an_engine_can_still_be_shown(ollama: OllamaStage) -> None:
    shown = ollama.ask("show", model="bare")

    assert shown.status_code == 200
    assert shown.json()["capabilities"] == ["completion"]
    assert shown.json()["modelfile"] == ""


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/show", {"model": "nope"}),
        ("POST", "/api/push", {"model": "nope"}),
        ("POST", "/api/copy", {"source": "nope", "destination": "a"}),
        ("DELETE", "/api/delete", {"model": "nope"}),
        ("POST", "/api/generate", {"model": "nope"}),
        ("POST", "/api/generate", {"model": "nope", "prompt": "hi"}),
        ("POST", "/api/embed", {"model": "nope", "input": "hi"}),
        ("POST", "/api/embeddings", {"model": "nope", "prompt": "hi"}),
    ],
)
def test_a_model_that_is_not_there_is_a_404_in_ollamas_words(
    ollama: OllamaStage, method: str, path: str, body: dict[str, Any]
) -> None:
    answer = ollama.client.request(method, path, json=body)

    assert answer.status_code == 404
    assert answer.json() == {"error": "model 'nope' not found"}


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("pull", {}, "model is required"),
        ("copy", {"source": "chat-small"}, "destination is required"),
        ("copy", {"destination": "a"}, "model is required"),
        ("create", {"model": "a"}, "neither 'from' or 'files' was specified"),
        ("create", {"model": "a", "files": {"a.gguf": "x"}}, "no digest"),
        ("pull", {"model": "a" * 1001}, "model has over 1000 characters"),
    ],
)
def test_what_is_missing_is_a_400(
    ollama: OllamaStage, path: str, body: dict[str, Any], reason: str
) -> None:
    answer = ollama.ask(path, **body)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]


def test_a_pull_that_fails_says_so_in_its_last_line_or_its_status(ollama: OllamaStage) -> None:
    ollama.library.pull_steps = [
        Progress(status="pulling manifest"),
        Unavailable("pull model manifest: the registry is away"),
    ]
    streamed = ollama.ask("pull", model="a", stream=True)
    whole = ollama.ask("pull", model="a")
    ollama.library.pull_steps = [RequestRefused("'a b' is not the name of a model")]
    refused = ollama.ask("pull", model="a b", stream=True)

    assert [json.loads(line) for line in streamed.text.splitlines()] == [
        {"status": "pulling manifest"},
        {"error": "pull model manifest: the registry is away"},
    ]
    assert whole.status_code == 503
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": "'a b' is not the name of a model"},
    )


def test_a_caller_who_leaves_ends_the_pull(ollama: OllamaStage) -> None:
    hold = Hold()
    ollama.library.pull_steps = [Progress(status="pulling manifest"), hold]

    with ollama.client.stream("POST", "/api/pull", json={"model": "a"}) as answer:
        assert "pulling manifest" in next(answer.iter_lines())

    ollama.server.wait_until(lambda: ollama.library.num_ended_early == 1)


def test_what_is_done_to_models_is_in_the_audit_log(ollama: OllamaStage) -> None:
    ollama.ask("pull", model="audited")
    ollama.ask("copy", source="audited", destination="twin")
    ollama.client.request("DELETE", "/api/delete", json={"model": "twin"})
    ollama.ask("create", model="audited2", **{"from": "audited"}, system="a secret")

    pulled, copied, deleted, created = (
        audited(ollama, f"models.{action}")[0] for action in ("pull", "copy", "delete", "create")
    )
    assert (pulled["subject"], pulled["principal"]) == ("shelf/audited", "anonymous")
    assert (copied["subject"], copied["after"]) == ("shelf/audited", {"destination": "twin"})
    assert deleted["subject"] == "shelf/twin"
    assert (created["subject"], created["after"]) == ("shelf/audited2", {"from": "audited"})


def test_a_blob_is_taken_in_and_found_again(ollama: OllamaStage) -> None:
    path = f"/api/blobs/{DIGEST}"

    statuses = [
        ollama.client.head(path).status_code,
        ollama.client.post(path, content=CONTENT).status_code,
        ollama.client.head(path).status_code,
        ollama.client.post(path, content=CONTENT).status_code,
        ollama.client.head(path.replace(":", "-", 1)).status_code,
    ]

    assert statuses == [404, 201, 200, 200, 200]
    assert ollama.library.blobs == {DIGEST: CONTENT}
    assert list((ollama.directory / "data" / "uploads").iterdir()) == []


def test_a_blob_of_another_digest_is_refused_and_gone(ollama: OllamaStage) -> None:
    answer = ollama.client.post(f"/api/blobs/{DIGEST}", content=CONTENT + b"!")

    assert answer.status_code == 400
    assert "the body has digest sha256:" in answer.json()["error"]
    assert ollama.library.blobs == {}
    assert list((ollama.directory / "data" / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:..",
        "x",
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 63,
        "md5:" + "0" * 64,
        "..",
        "%2e%2e",
    ],
)
def test_a_digest_is_never_a_path(ollama: OllamaStage, digest: str) -> None:
    url = httpx.URL(ollama.server.url).copy_with(raw_path=f"/api/blobs/{digest}".encode())

    answer = ollama.client.post(url, content=CONTENT)

    assert answer.status_code in (400, 404)
    assert ollama.library.blobs == {}


def test_blobs_have_a_limit_of_their_own(tmp_path: Path) -> None:
    with ollama_stage(tmp_path, max_blob_bytes=len(CONTENT), max_body_bytes=100) as stage:

        def endless() -> Iterator[bytes]:
            while True:
                yield CONTENT

        fits = stage.client.post(f"/api/blobs/{DIGEST}", content=CONTENT)
        declared = stage.client.post(f"/api/blobs/sha256:{'0' * 64}", content=CONTENT + b"!")
        try:
            streamed = stage.client.post(f"/api/blobs/sha256:{'0' * 64}", content=endless())
        except httpx.HTTPError:
            streamed = None  # we stop reading; a client that goes on writing may see just that

        assert fits.status_code == 201
        assert declared.status_code == 413
        assert "7000 bytes" in declared.json()["error"]
        assert streamed is None or streamed.status_code == 413
        assert list((tmp_path / "data" / "uploads").iterdir()) == []


def test_a_full_disk_is_an_honest_failure(
    ollama: OllamaStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "SPARE_BYTES", 2**62)

    answer = ollama.client.post(f"/api/blobs/{DIGEST}", content=CONTENT)

    assert answer.status_code == 503
    assert answer.json() == {"error": "there is no room for this file on the gateway's disk"}


def test_a_path_of_this_dialect_that_is_not_there_answers_in_its_shape(
    ollama: OllamaStage,
) -> None:
    missing, wrong = ollama.client.get("/api/nothing"), ollama.client.get("/api/chat")

    assert missing.status_code == 404
    assert wrong.status_code == 405
    assert isinstance(missing.json()["error"], str)
    assert isinstance(wrong.json()["error"], str)
