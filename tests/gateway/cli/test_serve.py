import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from gateway.cli import main
from gateway.cli.serve import bound_socket, curl_line, settle_memory
from gateway.hooks import read_policy
from gateway.settings import shipped_policy

HEAVY = ("torch", "llama_cpp", "litestar", "sqlalchemy", "numpy", "httpx", "rich")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from gateway.cli import main\n"
        "result = CliRunner().invoke(main, ['--help'])\n"
        "assert 'serve' in result.output, result.output\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )

    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert shown.stdout.strip() == "[]", shown.stderr


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        result = CliRunner().invoke(main, ["serve", "--port", str(port)])

    assert result.exit_code == 1
    assert f"port {port} is in use on 127.0.0.1" in result.output
    assert "--port" in result.output


def test_without_a_chosen_port_the_next_free_one_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with bound_socket("127.0.0.1", port, only_this_port=False) as listener:
            chosen = listener.getsockname()[1]

    assert port < chosen < port + 20


def test_a_policy_that_does_not_hold_is_told_whole_and_nothing_starts(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text('plugins = ["acces_log"]')

    result = CliRunner().invoke(main, ["serve", "--port", "0", "--policy", str(tmp_path)])

    assert result.exit_code == 1
    assert "the policy does not hold" in result.output
    assert "access_log" in result.output


def test_a_missing_policy_directory_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["serve", "--policy", str(tmp_path / "nowhere")])

    assert result.exit_code == 1
    assert "nowhere" in result.output


def test_a_setting_that_cannot_be_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PORT", "many")

    result = CliRunner().invoke(main, ["serve"])

    assert result.exit_code == 1
    assert "PENSTOCK_PORT='many'" in result.output


def test_a_ledger_that_is_none_ends_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("this is no database" * 100)
    environment = {**os.environ, "PENSTOCK_DATA_DIR": str(tmp_path)}

    shown = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--port", "0"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip

    assert shown.returncode == 1
    assert "ledger.db" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_the_collector_is_told_what_lives_as_long_as_the_process() -> None:
    before = gc.get_threshold()

    settle_memory()

    try:
        assert gc.get_freeze_count() > 1000
        assert gc.isenabled()
        assert gc.get_threshold()[0] > before[0]
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_the_curl_line_has_a_key_where_the_policy_wants_one() -> None:
    dev = curl_line("http://127.0.0.1:8080", read_policy(shipped_policy("dev")))
    prod = curl_line("http://127.0.0.1:8080", read_policy(shipped_policy("prod")))

    assert "authorization" not in dev
    assert '"model": "starter"' in dev
    assert "$PENSTOCK_API_KEY" in prod


class Served(subprocess.Popen[str]):
    """A process, and what it printed at its end."""

    last_words = ""


@contextmanager
def served(directory: Path, **settings: str) -> Iterator[tuple[Served, str]]:
    """`penstock serve` in a process of its own, and the URL that it printed."""
    environment = {
        **os.environ,
        "PENSTOCK_DATA_DIR": str(directory),
        "PYTHONUNBUFFERED": "1",
        **settings,
    }
    with Served(
        [sys.executable, "-m", "gateway", "serve", "--port", "0", "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if found := re.search(r"base URL\s+(http://[\d.]+:\d+)/v1", line):
                yield process, found[1]
                break
        else:
            pytest.fail(seen)
        process.last_words = process.stderr.read()
        process.wait(timeout=20)


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_where_it_is_answers_there_and_stops_when_told(
    tmp_path: Path, told: signal.Signals
) -> None:
    with served(tmp_path) as (process, url):
        alive = httpx.get(f"{url}/healthz", timeout=10)
        ready = httpx.get(f"{url}/readyz", timeout=10)
        process.send_signal(told)

    assert alive.json() == {"status": "ok"}
    assert ready.status_code == 200
    assert process.returncode == 0
    assert "Aborted" not in process.last_words
    assert "Traceback" not in process.last_words


def test_a_hang_up_signal_reloads_the_policy_and_serves_on(tmp_path: Path) -> None:
    policy = Path(shutil.copytree(shipped_policy("dev"), tmp_path / "policy"))
    with served(tmp_path / "data", PENSTOCK_POLICY=str(policy)) as (process, url):
        before = httpx.get(f"{url}/admin/policy", timeout=10).json()["digest"]
        with (policy / "teams.toml").open("a") as teams:
            teams.write("[new]\n")
        process.send_signal(signal.SIGHUP)
        for _ in range(500):
            shown = httpx.get(f"{url}/admin/policy", timeout=10).json()
            if shown["digest"] != before:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)

    assert "new" in shown["policy"]["teams"]
    assert shown["last_reload"]["by"] == "SIGHUP"
    assert process.returncode in (0, -signal.SIGTERM)


def test_a_closed_terminal_ends_the_gateway(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "PENSTOCK_DATA_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--port", "0"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        seen = b""
        while b"stop it" not in seen:
            seen += os.read(ours, 4096)
        os.close(ours)
        process.send_signal(signal.SIGHUP)

        assert process.wait(timeout=30) in (0, 1, -signal.SIGTERM)


def test_a_stream_that_outlives_the_drain_ends_with_an_error_event(tmp_path: Path) -> None:
    body = {
        "model": "starter",
        "messages": [{"role": "user", "content": "Count from 1 to 50."}],
        "ignore_eos": True,
        "n": 16,
        "stream": True,
    }
    lines: list[str] = []
    with (
        served(tmp_path, PENSTOCK_DRAIN_SECONDS="0.1") as (process, url),
        httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as answer,
    ):
        for line in answer.iter_lines():
            if not lines:
                process.send_signal(signal.SIGTERM)
            lines.append(line)

    events = [line for line in lines if line]
    assert "error" in json.loads(events[-1].removeprefix("data: "))
    assert process.returncode == 0
