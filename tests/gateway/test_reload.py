"""A running gateway gets another policy: over HTTP, by a signal's function, by the watch."""

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from engines.errors import Unavailable
from engines.protocol import Health
from gateway import hookimpl
from gateway.errors import LedgerUnavailable
from gateway.ledger import AuditEntry
from tests.fakes import Hold, ScriptedEngine
from tests.serving import (
    SCRIPTED_POLICY,
    Server,
    scripted_gateway,
    serving,
    settings_in,
    write_policy,
)

if TYPE_CHECKING:
    from gateway.gateway import Gateway

ENGINES = "".join(f'[{name}]\nkind = "scripted"\n' for name in ("one", "two"))
MODELS = '[chat-small]\n[[chat-small.targets]]\nengine = "one"\nmodel = "scripted-model"\n'
BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}


class CountedEngine(ScriptedEngine):
    """Counts its starts and closes; does not start when told."""

    starts = 0
    closes = 0
    fails = False

    async def start(self) -> None:
        await super().start()
        if self.fails:
            raise Unavailable("no memory left")
        self.starts += 1

    async def close(self) -> None:
        await super().close()
        self.closes += 1

    async def health(self) -> Health:
        return Health(ready=True)


class Stage:
    def __init__(self, directory: Path, server: Server, made: dict[str, list[CountedEngine]]):
        self.directory = directory
        self.server = server
        self.gateway: Gateway = server.gateway
        self.made = made  # every engine that was built, by name
        self.client = httpx.Client(base_url=server.url, timeout=20)

    def write(self, **files: str) -> None:
        for noun, text in files.items():
            (self.directory / f"{noun}.toml").write_text(text)

    def reload(self) -> httpx.Response:
        return self.client.post("/admin/policy/reload")

    def ask(self, **fields: object) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json={**BODY, **fields})


@pytest.fixture
def script() -> list[object]:
    return ["hello", " there"]


@pytest.fixture
def made() -> dict[str, list[CountedEngine]]:
    return {}


@pytest.fixture
def stage(
    tmp_path: Path, script: list[object], made: dict[str, list[CountedEngine]],
    request: pytest.FixtureRequest,
) -> Iterator[Stage]:  # fmt: skip
    directory = write_policy(tmp_path / "policy", {"engines.toml": ENGINES, "models.toml": MODELS})
    settings = settings_in(tmp_path, **getattr(request, "param", {}))
    gateway = scripted_gateway(directory, {}, settings=settings)

    def build(name: str, config: object, site: object) -> CountedEngine:
        engine = CountedEngine(lambda _: script, name=name)  # type: ignore[arg-type, return-value]
        engine.fails = name.startswith("broken")
        made.setdefault(name, []).append(engine)
        return engine

    kinds = gateway.registry._kinds
    kinds["scripted"] = msgspec.structs.replace(kinds["scripted"], build=build)  # type: ignore[arg-type]
    with serving(gateway) as server:
        stage = Stage(directory, server, made)
        yield stage
        stage.client.close()


def test_a_change_is_served_and_told_line_by_line(stage: Stage) -> None:
    before = stage.gateway.policy.digest
    stage.write(models=MODELS + '[extra]\n[[extra.targets]]\nengine = "two"\n')

    told = stage.reload().json()

    assert told["changes"] == ["models.toml: [extra] added"]
    assert (told["previous_digest"], told["digest"]) == (before, stage.gateway.policy.digest)
    shown = stage.client.get("/admin/policy").json()
    assert shown["digest"] == told["digest"] != before
    assert "extra" in shown["policy"]["models"]


def test_nothing_changed_is_no_reload_and_no_audit_row(stage: Stage) -> None:
    serving_before = stage.gateway.serving

    told = stage.reload().json()

    assert (told["changes"], told["digest"]) == ([], told["previous_digest"])
    assert stage.gateway.serving is serving_before
    assert stage.client.get("/admin/audit").json()["rows"] == []


def test_a_comment_changes_the_digest_and_nothing_else(stage: Stage) -> None:
    plugins = dict(stage.gateway.hooks.plugins)
    stage.write(models=MODELS + "# a remark\n")

    told = stage.reload().json()

    assert told["changes"] == []
    assert told["digest"] != told["previous_digest"]
    assert dict(stage.gateway.hooks.plugins) == plugins


def test_a_broken_policy_keeps_the_last_good_one_and_says_every_problem(stage: Stage) -> None:
    good = stage.gateway.serving
    stage.write(models=MODELS.replace("engine", "engin"), teams='[me]\nmodles = ["*"]')

    refused = stage.reload()

    assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")
    message = refused.json()["error"]["message"]
    assert "models.toml: [chat-small] targets[0]" in message
    assert 'did you mean "models"' in message
    assert stage.gateway.serving is good
    assert stage.ask().status_code == 200
    shown = stage.client.get("/admin/policy").json()
    assert len(shown["last_reload"]["problems"]) >= 2

    stage.write(models=MODELS + "# mended", teams=SCRIPTED_POLICY["teams.toml"])
    assert stage.reload().status_code == 200
    assert stage.client.get("/admin/policy").json()["last_reload"]["problems"] == []


def test_check_says_what_a_reload_would_do_and_does_nothing(stage: Stage) -> None:
    good = stage.gateway.serving
    stage.write(engines=ENGINES + '[three]\nkind = "scripted"\n')
    found = stage.client.post("/admin/policy/check").json()
    stage.write(engines="nonsense")
    broken = stage.client.post("/admin/policy/check").json()

    assert (found["holds"], found["changes"]) == (True, ["engines.toml: [three] added"])
    assert (broken["holds"], broken["digest"]) == (False, None)
    assert broken["problems"][0].startswith("engines.toml: line 1")
    assert stage.gateway.serving is good
    assert "three" not in stage.made


def test_an_engine_that_does_not_start_keeps_the_last_good_policy(stage: Stage) -> None:
    good = stage.gateway.serving
    stage.write(engines=ENGINES + '[fine]\nkind = "scripted"\n[broken]\nkind = "scripted"\n')

    refused = stage.reload()

    assert refused.status_code == 409
    assert "engine 'broken' did not start: no memory left" in refused.json()["error"]["message"]
    assert stage.gateway.serving is good
    assert (stage.made["fine"][0].starts, stage.made["fine"][0].closes) == (1, 1)
    assert stage.made["one"][0].closes == 0


def test_engines_come_and_go_and_those_that_did_not_change_run_on(stage: Stage) -> None:
    one, two = stage.made["one"][0], stage.made["two"][0]
    stage.write(engines='[one]\nkind = "scripted"\n[three]\nkind = "scripted"\n')

    stage.reload()
    stage.server.wait_until(lambda: two.closes == 1)

    assert (one.starts, one.closes) == (1, 0)
    assert stage.made["three"][0].starts == 1
    assert set(stage.gateway.engines) == {"one", "three"}
    assert stage.gateway.engines["one"] is one


def test_a_stream_is_not_disturbed_by_an_engine_that_is_replaced(
    stage: Stage, script: list[object]
) -> None:
    hold = Hold()
    script[:] = ["first", hold, " last"]
    old = stage.made["one"][0]
    with stage.client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as run:
        stage.server.wait_until(hold.reached.is_set)
        script[:] = ["new"]
        stage.write(
            engines='[one]\nkind = "scripted"\nnumber = 7\n',
            models=MODELS.replace("chat-small", "renamed"),
        )
        told = httpx.post(f"{stage.server.url}/admin/policy/reload", timeout=20).json()
        other = httpx.post(
            f"{stage.server.url}/v1/chat/completions", json={**BODY, "model": "renamed"}, timeout=20
        )
        assert old.closes == 0
        stage.server.run(hold.release)
        text = run.read().decode()

    assert "engines.toml: [one] number: 0 -> 7" in told["changes"]
    assert other.json()["choices"][0]["message"]["content"] == "new"
    assert " last" in text and text.endswith("data: [DONE]\n\n")
    stage.server.wait_until(lambda: old.closes == 1)
    assert stage.made["one"][1].closes == 0


@pytest.mark.parametrize("stage", [{"drain_seconds": 0.05}], indirect=True)
def test_a_stream_that_outlives_the_drain_of_its_engine_ends_with_an_error_event(
    stage: Stage, script: list[object]
) -> None:
    script[:] = ["first", Hold()]
    with stage.client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}) as run:
        lines = run.iter_lines()
        next(lines)
        stage.write(engines='[one]\nkind = "scripted"\nnumber = 7\n')
        httpx.post(f"{stage.server.url}/admin/policy/reload", timeout=20)
        events = [line for line in lines if line]

    assert "error" in json.loads(events[-1].removeprefix("data: "))


def test_a_plugin_whose_table_stays_keeps_what_it_knows(stage: Stage) -> None:
    before = dict(stage.gateway.hooks.plugins)
    table = '[routing]\nhealth_seconds = 60\n[anonymous]\nteam = "me"\n'
    listed = 'plugins = ["routing", "anonymous", "allow_lists", "defaults", "usage"]\n'
    stage.write(gateway=listed + table)

    told = stage.reload().json()

    after = stage.gateway.hooks.plugins
    assert list(after) == ["routing", "anonymous", "allow_lists", "defaults", "usage"]
    assert after["allow_lists"] is before["allow_lists"]
    assert after["routing"] is not before["routing"]
    assert told["changes"][:2] == [
        'gateway.toml: plugins: "usage" added',
        'gateway.toml: plugins: "api_keys" removed',
    ]
    assert stage.ask().status_code == 200


def test_a_plugin_with_routes_keeps_what_it_knows_when_its_table_changes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithRoutes:
        @hookimpl
        def register_routes(self) -> list[object]:
            return []

    monkeypatch.setattr(
        "plugins.routing.Routing.register_routes", WithRoutes.register_routes, raising=False
    )
    before = stage.gateway.hooks.plugins["routing"]
    stage.write(gateway=SCRIPTED_POLICY["gateway.toml"] + "[routing]\nhealth_seconds = 60\n")

    told = stage.reload().json()

    [note] = told["notes"]
    assert note.startswith('plugin "routing" serves routes of its own and stays as it is')
    assert stage.gateway.hooks.plugins["routing"] is before


def test_a_plugin_that_does_not_start_keeps_the_last_good_policy(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        @hookimpl
        @asynccontextmanager
        async def lifespan(self, gateway: object) -> AsyncGenerator[None, None]:
            raise ConnectionError("nobody there")
            yield

    monkeypatch.setattr("plugins.usage.Usage.lifespan", Broken.lifespan, raising=False)
    good = stage.gateway.serving
    stage.write(gateway=SCRIPTED_POLICY["gateway.toml"].replace('["anon', '["usage", "anon'))

    refused = stage.reload()

    assert refused.status_code == 409
    assert "a plugin did not start: nobody there" in refused.json()["error"]["message"]
    assert stage.gateway.serving is good


def test_a_reload_that_cannot_be_audited_is_not_made(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(entry: AuditEntry) -> None:
        raise LedgerUnavailable

    monkeypatch.setattr(stage.gateway.audit, "record", refuse)
    good = stage.gateway.serving
    stage.write(engines=ENGINES + '[three]\nkind = "scripted"\n')

    assert stage.reload().status_code == 503
    assert stage.gateway.serving is good
    assert stage.made["three"][0].closes == 1


def test_a_signal_reloads_and_the_log_says_what_changed(stage: Stage) -> None:
    before = stage.gateway.policy.digest
    stage.write(engines=ENGINES + '[three]\nkind = "scripted"\n')

    with capture_logs() as logs:
        stage.gateway.begin_reload("SIGHUP")
        stage.server.wait_until(lambda: stage.gateway.policy.digest != before)
        stage.server.wait_until(lambda: stage.gateway.reloader.last is not None)

    [entry] = [entry for entry in logs if entry["event"] == "policy_reloaded"]
    assert (entry["by"], entry["changes"]) == ("SIGHUP", ["engines.toml: [three] added"])
    [row] = stage.client.get("/admin/audit").json()["rows"]
    assert (row["action"], row["principal"], row["role"]) == ("policy.reload", "SIGHUP", "system")
    assert row["before"] == {"digest": before}


def test_a_signal_on_a_broken_policy_is_logged_and_nothing_more(stage: Stage) -> None:
    stage.write(models="nonsense")

    with capture_logs() as logs:
        stage.gateway.begin_reload("SIGHUP")
        stage.server.wait_until(lambda: stage.gateway.reloader.last is not None)

    [entry] = [entry for entry in logs if entry["event"] == "policy_reload_failed"]
    assert entry["problems"][0].startswith("models.toml: line 1")
    assert stage.ask().status_code == 200


@pytest.mark.parametrize("stage", [{"watch_seconds": 0.02}], indirect=True)
def test_a_watched_directory_is_taken_over_when_it_has_settled(stage: Stage) -> None:
    good = stage.gateway.policy.digest
    stage.write(models="nonsense")
    stage.server.wait_until(lambda: stage.gateway.reloader.last is not None)
    assert stage.gateway.policy.digest == good

    stage.write(models=MODELS, engines=ENGINES + '[three]\nkind = "scripted"\n')

    stage.server.wait_until(lambda: "three" in stage.gateway.engines)
    last = stage.gateway.reloader.last
    assert last is not None
    assert (last.by, last.problems) == ("watch", ())


def test_what_a_reload_begins_and_ends_does_not_name_the_call_that_asked(stage: Stage) -> None:
    stage.write(engines='[one]\nkind = "scripted"\n[three]\nkind = "scripted"\n')
    retired = stage.gateway.reloader._retiring

    with capture_logs(processors=[merge_contextvars]) as logs:
        assert stage.reload().status_code == 200
        stage.server.wait_until(lambda: not retired)

    named = {entry["event"]: "call" in entry for entry in logs}
    assert named["policy_reloaded"]
    assert (named["engine_started"], named["retired"]) == (False, False)


def test_a_drain_does_not_name_the_call_that_ran_when_the_signal_came(stage: Stage) -> None:
    def signalled() -> None:
        with bound_contextvars(call="req_1"):
            stage.gateway.begin_drain()

    with capture_logs(processors=[merge_contextvars]) as logs:
        stage.server.run(signalled)
        stage.server.wait_until(lambda: not stage.gateway.ready)

    [told] = [entry for entry in logs if entry["event"] == "gateway_draining"]
    assert "call" not in told
