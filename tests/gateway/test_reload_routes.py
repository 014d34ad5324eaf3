"""A reload that brings a plugin with routes of its own, or takes it away."""

import httpx
import pytest
from litestar import get

from gateway import hookimpl
from tests.fakes import Hold
from tests.gateway.test_reload import BODY, Stage, made, script, stage
from tests.serving import SCRIPTED_POLICY

__all__ = ["made", "script", "stage"]  # fixtures

PLAIN = SCRIPTED_POLICY["gateway.toml"]
WITH_METRICS = PLAIN.replace('["anonymous",', '["metrics", "anonymous",')


def test_metrics_answer_as_soon_as_the_policy_has_them_and_no_longer(stage: Stage) -> None:
    def status() -> int:
        return stage.client.get("/metrics").status_code

    before = status()
    stage.write(gateway=WITH_METRICS)
    told = stage.reload().json()
    added = status()
    stage.ask()
    counted = stage.client.get("/metrics").text
    stage.write(gateway=PLAIN)
    stage.reload()

    assert (before, added, status()) == (404, 200, 404)
    assert told["notes"] == []
    assert "penstock_calls_total{" in counted
    assert stage.ask().status_code == 200


def test_a_plugin_that_comes_back_counts_for_its_own_routes(stage: Stage) -> None:
    for text in (WITH_METRICS, PLAIN, WITH_METRICS):
        stage.write(gateway=text)
        assert stage.reload().status_code == 200

    stage.ask()

    [line] = [
        line
        for line in stage.client.get("/metrics").text.splitlines()
        if line.startswith("penstock_calls_total{") and 'endpoint="openai.chat"' in line
    ]
    assert line.endswith(" 1.0")


def test_a_stream_goes_on_while_routes_change(stage: Stage, script: list[object]) -> None:
    hold = Hold()
    script[:] = ["first", hold, " last"]
    body = {**BODY, "stream": True}
    with stage.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        stage.server.wait_until(hold.reached.is_set)
        stage.write(gateway=WITH_METRICS)
        reloaded = httpx.post(f"{stage.server.url}/admin/policy/reload", timeout=20)
        metrics = httpx.get(f"{stage.server.url}/metrics", timeout=20)
        stage.server.run(hold.release)
        lines = [line for line in answer.iter_lines() if line]

    assert (reloaded.status_code, metrics.status_code) == (200, 200)
    assert " last" in lines[-3] + lines[-2]
    assert lines[-1] == "data: [DONE]"


def test_routes_that_cannot_be_served_keep_the_policy_that_is_there(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    @get("/v1/models", name="metrics", opt={"public": True})
    async def taken() -> str:
        return "mine"

    class Greedy:
        @hookimpl
        def register_routes(self) -> list[object]:
            return [taken]

    monkeypatch.setattr("plugins.metrics.Metrics.register_routes", Greedy.register_routes)
    good = stage.gateway.serving
    stage.write(gateway=WITH_METRICS)

    refused = stage.reload()

    assert refused.status_code == 409
    assert "routes cannot be served" in refused.text
    assert stage.gateway.serving is good
    assert stage.ask().status_code == 200
