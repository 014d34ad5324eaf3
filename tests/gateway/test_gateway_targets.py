"""A served gateway with two engines behind one model: what its operator can see and do."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engines.errors import Overloaded
from engines.protocol import Health
from gateway.errors import NotFound
from tests.fakes import Hold, ScriptedEngine
from tests.serving import SCRIPTED_POLICY, Server, scripted_gateway, serving, write_policy

GATEWAY = SCRIPTED_POLICY["gateway.toml"].replace(
    "[anonymous]", "[routing]\n health_seconds = 0.1\n [anonymous]"
)
MODELS = """
[chat-small]
sticky = "session"
mirror = { engine = "shadow", model = "scripted-model" }
targets = [
  { engine = "gpu0", model = "scripted-model" },
  { engine = "gpu1", model = "scripted-model", priority = 1 },
]

[shared]
sticky = "session"
targets = [
  { engine = "gpu0", model = "scripted-model" },
  { engine = "gpu1", model = "scripted-model" },
]
"""
TEAMS = '[me]\nmodels = ["*"]\nendpoints = ["*"]\nshow_targets = true'
HEADER = "x-penstock-targets"


class Patient(ScriptedEngine):
    """A scripted engine that says of its health what the test wants."""

    health_now = Health(ready=True)

    async def health(self) -> Health:
        return self.health_now


class Stage:
    def __init__(self, engines: dict[str, Patient], server: Server, client: httpx.Client) -> None:
        self.engines = engines
        self.server = server
        self.targets = server.gateway.targets
        self.client = client

    def ask(
        self, path: str = "chat/completions", *, model: str = "chat-small",
        headers: dict[str, str] | None = None, **fields: object,
    ) -> httpx.Response:  # fmt: skip
        prompt = {"messages": [{"role": "user", "content": "hi"}]}
        body = {"model": model, **(prompt if "chat" in path else {"prompt": "hi"}), **fields}
        return self.client.post(f"/v1/{path}", json=body, headers=headers)

    def answered_by(self, **asked: object) -> str:
        """The engine that answered, off the header."""
        answer = self.ask(**asked)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        return answer.headers[HEADER].split(", ")[-1].split("/")[0]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    engines = {name: Patient(name=name) for name in ("gpu0", "gpu1", "shadow")}
    files = {
        "gateway.toml": GATEWAY,
        "engines.toml": "".join(f'[{name}]\nkind = "scripted"\n' for name in engines),
        "models.toml": MODELS,
        "teams.toml": TEAMS,
        "limits.toml": "",
    }
    gateway = scripted_gateway(write_policy(tmp_path / "policy", files), engines)
    with serving(gateway) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        yield Stage(engines, server, client)


def test_the_header_tells_what_was_tried_with_answers_and_with_errors(stage: Stage) -> None:
    full = [Overloaded("full")]
    stage.engines["gpu0"]._script = full

    assert stage.ask().headers[HEADER] == (
        "gpu0/scripted-model;left=overloaded, gpu1/scripted-model"
    )

    stage.engines["gpu1"]._script = full
    refused = stage.ask()
    assert refused.status_code == 503
    assert refused.headers[HEADER].count("left=overloaded") == 2


def test_a_drained_target_gets_no_new_calls_and_what_runs_there_goes_on(stage: Stage) -> None:
    hold = Hold()
    stage.engines["gpu0"]._script = ["first", hold, " last"]
    gateway = stage.server.gateway
    body = {"model": "chat-small", "stream": True, "messages": [{"role": "user", "content": "x"}]}

    with stage.client.stream("POST", "/v1/chat/completions", json=body) as running:
        assert stage.server.run(lambda: gateway.drain_target("gpu0")) == 1
        assert stage.answered_by() == "gpu1"
        stage.server.run(hold.release)
        text = running.read().decode()

    assert "last" in text and "[DONE]" in text
    stage.engines["gpu0"]._script = ["hi"]
    stage.server.run(lambda: gateway.resume_target("gpu0"))
    assert stage.answered_by() == "gpu0"


def test_an_engine_that_is_not_there_cannot_be_drained(stage: Stage) -> None:
    gateway = stage.server.gateway
    for change in (gateway.drain_target, gateway.resume_target):
        with pytest.raises(NotFound, match=r"'gpu9' \(there are: gpu0, gpu1, shadow\)"):
            stage.server.run(lambda change=change: change("gpu9"))


def test_an_engine_that_says_it_is_not_ready_is_left_out_until_it_is(stage: Stage) -> None:
    for ready, engine in (False, "gpu1"), (True, "gpu0"):
        stage.engines["gpu0"].health_now = Health(ready=ready)
        stage.server.wait_until(lambda ready=ready: stage.targets.is_ready("gpu0") is ready)

        assert stage.answered_by() == engine


def test_the_report_has_every_target_and_model_that_was_used(stage: Stage) -> None:
    stage.ask()

    report = stage.server.run(stage.server.gateway.targets_report)

    (target,) = report.targets
    assert (target.engine, target.asked, target.answered, target.in_flight) == ("gpu0", 1, 1, 0)
    assert target.first_output_seconds is not None
    assert [one.model for one in report.models] == ["chat-small"]
    assert report.mirrors.sent == 1


def test_a_session_is_named_by_the_body_or_by_a_header(stage: Stage) -> None:
    by_name = [
        {
            stage.answered_by(model="shared", user=f"u{number}"),
            stage.answered_by(model="shared", prompt_cache_key=f"u{number}", user="another"),
            stage.answered_by(model="shared", path="completions", user=f"u{number}"),
            stage.answered_by(model="shared", headers={"X-Session-Id": f"u{number}"}),
        }
        for number in range(12)
    ]

    assert all(len(engines) == 1 for engines in by_name)
    assert len(set().union(*by_name)) == 2


def test_copies_for_a_mirror_end_when_the_gateway_drains(stage: Stage) -> None:
    hold = Hold()
    stage.engines["shadow"]._script = [hold, "never"]

    assert stage.ask().json()["usage"]["completion_tokens"] == 2
    stage.server.wait_until(hold.reached.is_set)
    stage.server.gateway.begin_drain()

    stage.server.wait_until(lambda: stage.targets.mirrors.report().running == 0)
    assert stage.engines["shadow"].running == 0
