"""Talks to a running gateway over HTTP, as any client does.

Failures become `click.ClickException`s that say what to type next.
"""

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import click
import httpx

DEFAULT_URL = "http://127.0.0.1:8080"


class GatewayClient:
    """One gateway, by the URL that it prints when it starts (with or without `/v1`)."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        # Only connecting is timed: a first token may wait for a model to load.
        timeout = httpx.Timeout(None, connect=5.0)
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def __enter__(self) -> "GatewayClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def is_up(self) -> bool:
        """Does a gateway answer at this URL?"""
        try:
            return self._http.get("/healthz", timeout=1.0).status_code == 200
        except httpx.HTTPError:
            return False

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """GET a JSON answer; what is None in the query is left out."""
        return self._asked("GET", path, query).json()

    def get_text(self, path: str, query: Mapping[str, Any] | None = None) -> str:
        """GET an answer as it is."""
        return self._asked("GET", path, query).text

    def post(self, path: str) -> Any:
        """POST without a body; the JSON answer."""
        return self._asked("POST", path, None).json()

    def _asked(self, method: str, path: str, query: Mapping[str, Any] | None) -> httpx.Response:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        with self._explained():
            response = self._http.request(method, path, params=given)
            _raise_for(response)
            return response

    def chat(self, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Stream a chat completion's chunks."""
        with (
            self._explained(),
            self._http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as r,
        ):
            if r.status_code != 200:
                r.read()
                _raise_for(r)
            for line in r.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line[len("data: ") :])
                if chunk.get("error"):
                    raise click.ClickException(chunk["error"]["message"])
                yield chunk

    @contextmanager
    def _explained(self) -> Generator[None, None, None]:
        try:
            yield
        except httpx.ConnectError:
            raise click.ClickException(
                f"no gateway answers at {self.url}; start one with `penstock serve`, "
                "or name it with --url"
            ) from None
        except httpx.HTTPError as error:
            raise click.ClickException(f"talking to {self.url} failed: {error}") from None


def client_options(command: Any) -> Any:
    """The options of every command that talks to a gateway."""
    command = click.option(
        "--key",
        envvar=["PENSTOCK_API_KEY", "OPENAI_API_KEY"],
        help="API key, where the gateway wants one.  [env: PENSTOCK_API_KEY, OPENAI_API_KEY]",
    )(command)
    return click.option(
        "--url",
        envvar="PENSTOCK_URL",
        help=f"The gateway's base URL.  [env: PENSTOCK_URL; default: {DEFAULT_URL}]",
    )(command)


def default_url() -> str:
    """Where a gateway with this environment's settings would listen."""
    host = os.environ.get("PENSTOCK_HOST") or "127.0.0.1"
    host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    port = os.environ.get("PENSTOCK_PORT") or "8080"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _raise_for(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.text[:500]
    if response.status_code == 401:
        message += "; pass a key with --key or PENSTOCK_API_KEY"
    raise click.ClickException(f"{message} (HTTP {response.status_code})")
