"""A served gateway in front of a scripted upstream."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httpx

from engines.remote.engine import RemoteEngine
from gateway.gateway import Gateway
from gateway.hooks import read_policy
from tests.serving import Server, serving, settings_in, write_policy
from tests.upstream import Upstream, playing

# Two engines in front of one upstream: one waits for whatever a busy machine does, the
# other has had enough soon.
POLICY: Mapping[str, str] = {
    "gateway.toml": """
        plugins = ["anonymous", "allow_lists", "defaults", "routing", "remote_engine"]
        [anonymous]
        team = "me"
    """,
    "engines.toml": """
        [patient]
        kind = "remote"
        base_url = "{url}"
        refresh_seconds = 0
        max_answer_bytes = 100_000
        max_event_bytes = 20_000

        [hasty]
        kind = "remote"
        base_url = "{url}"
        refresh_seconds = 0
        first_byte_seconds = 1.0
        idle_seconds = 1.0
        total_seconds = 2.0

        [closed]
        kind = "remote"
        base_url = "http://127.0.0.1:{closed}/v1"
        refresh_seconds = 0
    """,
    "models.toml": "".join(
        f"""
        [{engine}-model]
        breaker = {{ failures = 0 }}  # what one test breaks is not to be held against the next
          [[{engine}-model.targets]]
          engine = "{engine}"
          model  = "upstream-model"
        """
        for engine in ("patient", "hasty", "closed")
    ),
    "teams.toml": '[me]\nmodels = ["*"]\nendpoints = ["*"]\nlimits = "none"',
    "limits.toml": "[none]",
}


class RemoteStage:
    """The gateway, its upstream, and a client."""

    def __init__(self, server: Server, upstream: Upstream, client: httpx.Client) -> None:
        self.server = server
        self.upstream = upstream
        self.client = client

    def engine(self, name: str = "patient") -> RemoteEngine:
        return cast(RemoteEngine, self.server.gateway.engines[name])

    def chat(self, **fields: object) -> httpx.Response:
        body = {"model": "patient-model", "messages": [{"role": "user", "content": "hi"}]}
        return self.client.post("/v1/chat/completions", json=body | fields)

    def assert_nothing_is_left(self, name: str, *, kept: int = 0) -> None:
        """No connection to the upstream but those that are kept for later, no call, no request."""
        engine = self.engine(name)
        self.server.wait_until(lambda: not self.server.gateway.calls and engine.num_running == 0)
        assert self.server.run(lambda: engine.num_connections) == kept
        self.upstream.wait_until(lambda: self.upstream.num_open == kept)


@contextmanager
def remote_stage(
    directory: Path, files: Mapping[str, str] = POLICY, **settings: object
) -> Iterator[RemoteStage]:
    """Open it; `{url}` in the files is the upstream's."""
    with playing() as upstream:
        closed = _closed_port()
        texts = {
            name: text.replace("{url}", upstream.base_url).replace("{closed}", str(closed))
            for name, text in {**POLICY, **files}.items()
        }
        policy = read_policy(write_policy(directory / "policy", texts))
        with (
            serving(Gateway(settings_in(directory, **settings), policy)) as server,
            httpx.Client(base_url=server.url, timeout=30) as client,
        ):
            yield RemoteStage(server, upstream, client)


def _closed_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
