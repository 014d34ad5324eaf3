"""Measures keys, limits and allow-lists in front of a fixed upstream, beside other gateways.

    python -m tests.front_door --litellm /path/of/a/venv --portkey /path/of/a/node_modules

One worker each, one after another in every round, so that all have the same neighbours; the
ratios are of what the rounds have in common: the median of each gateway's rounds. A script,
not a test; it needs wrk, redis-server, and of the others what is to be compared:
`pip install litellm[proxy]`, `npm install @portkey-ai/gateway`.

What stands in a line:

    penstock, off       no key, no limit: who calls is whoever is on this machine
    penstock, memory    a key, its team's lists, and six limits in two scopes, in memory
    penstock, redis     the same, counted in a Redis
    litellm             its proxy with a master key, which is the one key it has without a
                        database; keys of its own want one, and prisma
    portkey             its gateway, which asks nobody for a key and limits nothing
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.forwarding import ANSWER, POLICY, measure_calls, role, running
from tests.plugins.cost_of_limits import LIMITS
from tests.redis_server import redis_server
from tests.serving import write_policy

UPSTREAM, FIRST_PORT = 9411, 9412
PATH = "/v1/chat/completions"
KEYED = """
    plugins = [
        "api_keys", "allow_lists", "defaults", "routing", "rate_limits", "remote_engine"
    ]
"""
TEAMS = '[me]\nmodels = ["chat-*", "!chat-secret"]\nendpoints = ["openai.*"]\nlimits = "none"'
MASTER_KEY = "sk-front-door-master"
LITELLM = """
model_list:
  - model_name: chat-small
    litellm_params:
      model: openai/upstream-model
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: unused
general_settings:
  master_key: {key}
"""
QUIET = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NODE_ENV": "production"}


@dataclass
class Door:
    """A gateway that runs, and how to ask it."""

    name: str
    port: int
    pid: int
    key: str = "unused"
    headers: Sequence[str] = ()
    per_second: list[float] = field(default_factory=list[float])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"


@contextlib.contextmanager
def penstock(
    name: str, port: int, folder: Path, *, store: str = "memory:", has_keys: bool = True
) -> Iterator[Door]:
    """`penstock serve`, with a key that was made by `penstock keys create`."""
    files = {n: t.replace("{url}", f"http://127.0.0.1:{UPSTREAM}/v1") for n, t in POLICY.items()}
    if has_keys:
        files |= {"gateway.toml": KEYED, "limits.toml": LIMITS, "teams.toml": TEAMS}
    environment = {
        "PENSTOCK_POLICY": str(write_policy(folder / "policy", files)),
        "PENSTOCK_DATA_DIR": str(folder / "data"),
        "PENSTOCK_STORE": store,
    }
    command = [sys.executable, "-m", "gateway"]
    key = "unused"
    if has_keys:
        key = subprocess.run(
            [*command, "keys", "create", "--team", "me", "--name", "front-door"],
            env={**os.environ, **environment}, check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
    serve = [*command, "serve", "--port", str(port), "--log-level", "error"]
    with running(serve, port, environment) as process:
        yield Door(name, port, process.pid, key)


@contextlib.contextmanager
def litellm(venv: Path, port: int, folder: Path) -> Iterator[Door]:
    """LiteLLM's proxy with one worker."""
    folder.mkdir()
    config = folder / "litellm.yaml"
    config.write_text(LITELLM.format(upstream=UPSTREAM, key=MASTER_KEY))
    command = [str(venv / "bin" / "litellm"), "--config", str(config), "--port", str(port)]
    with quiet_running([*command, "--host", "127.0.0.1", "--num_workers", "1"], port) as process:
        yield Door("litellm", port, process.pid, MASTER_KEY)


@contextlib.contextmanager
def portkey(modules: Path, port: int) -> Iterator[Door]:
    """Portkey's gateway; where a call goes is in its headers."""
    script = modules / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    headers = (
        "x-portkey-provider: openai",
        f"x-portkey-custom-host: http://127.0.0.1:{UPSTREAM}/v1",
    )
    with quiet_running(["node", str(script), f"--port={port}", "--headless"], port) as process:
        yield Door("portkey", port, process.pid, headers=headers)


@contextlib.contextmanager
def quiet_running(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server whose own talk is not ours."""
    shell = ["sh", "-c", 'exec "$0" "$@" >/dev/null 2>&1', *command]
    with running(shell, port, QUIET) as process:
        yield process


def asked_once(door: Door) -> None:
    """Wait for the first good answer, and see that it is the upstream's."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {door.key}"}
    headers |= {name: value.strip() for name, _, value in (h.partition(":") for h in door.headers)}
    body = b'{"model": "chat-small", "messages": [{"role": "user", "content": "Hello!"}]}'
    deadline = time.monotonic() + 120
    while True:
        try:
            asked = urllib.request.Request(door.url, data=body, headers=headers)
            with urllib.request.urlopen(asked, timeout=60) as response:
                text = response.read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
            continue
        assert b"How can I help you today?" in text, text[:300]
        assert b"How can I help you today?" in ANSWER
        return


def refuses_others(door: Door) -> None:
    """A gateway that is said to check keys must refuse one that it does not have."""
    wrong = urllib.request.Request(
        door.url, data=b"{}",
        headers={"content-type": "application/json", "authorization": "Bearer sk-nobody"},
    )  # fmt: skip
    try:
        urllib.request.urlopen(wrong, timeout=60)
    except urllib.error.HTTPError as error:
        assert error.code in (400, 401, 403), error.code
    else:
        raise AssertionError(f"{door.name} took a key that it does not have")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.front_door")
    parser.add_argument("--litellm", type=Path, help="a venv that has litellm[proxy]")
    parser.add_argument("--portkey", type=Path, help="a node_modules that has @portkey-ai/gateway")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("calls are sent by wrk, which is not installed here (Debian: apt install wrk)")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(role("upstream", UPSTREAM))
        redis = stack.enter_context(redis_server())
        port = FIRST_PORT
        doors: list[Door] = []
        for opened in opening(options, folder, redis.url):
            doors.append(stack.enter_context(opened(port)))
            port += 1
        for door in doors:
            asked_once(door)
            if door.key != "unused":
                refuses_others(door)
        measure(doors, options)
        told(doors)


Opening = Callable[[int], contextlib.AbstractContextManager[Door]]


def opening(options: argparse.Namespace, folder: Path, redis_url: str) -> Iterator[Opening]:
    """Each gateway that is compared, to be opened on a port."""
    stores: Mapping[str, str] = {"memory": "memory:", "redis": redis_url}
    yield lambda port: penstock("penstock, off", port, folder / "off", has_keys=False)
    for name, url in stores.items():
        yield lambda port, name=name, url=url: penstock(
            f"penstock, {name}", port, folder / name, store=url
        )
    if options.litellm:
        yield lambda port: litellm(options.litellm, port, folder / "litellm")
    if options.portkey:
        yield lambda port: portkey(options.portkey, port)


def measure(doors: Sequence[Door], options: argparse.Namespace) -> None:
    for number in range(options.rounds):
        print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}")  # noqa: T201
        for door in doors:
            line = measure_calls(door.url, door.pid, options.seconds, door.key, door.headers)
            door.per_second.append(float(line.split()[0]))
            print(f"  {door.name:18} {line}", flush=True)  # noqa: T201


def told(doors: Sequence[Door]) -> None:
    """Medians, and how many times as many calls each Penstock takes as each of the others."""
    medians = {door.name: statistics.median(door.per_second) for door in doors}
    others = [name for name in medians if not name.startswith("penstock")]
    print("| gateway | calls/s |" + "".join(f" times {name} |" for name in others))  # noqa: T201
    print("|---|--:|" + "--:|" * len(others))  # noqa: T201
    for name, median in medians.items():
        ratios = "".join(f" {median / max(1.0, medians[other]):.1f} |" for other in others)
        print(f"| {name} | {median:,.0f} |{ratios}")  # noqa: T201


if __name__ == "__main__":
    main()
