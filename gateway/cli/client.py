"""Talks to a running gateway over HTTP, as any client does.

Failures become `click.ClickException`s that say what to type next.
"""

import json
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast

import click
import httpx

from gateway.cli.address import DEFAULT_URL, default_url

KEY_PREFIX = "sk-penstock-"  # `gateway.keys.PREFIX`, which takes half a second to import

__all__ = [
    "DEFAULT_URL",
    "KEY_PREFIX",
    "GatewayAnswered",
    "GatewayClient",
    "client_options",
    "default_url",
]
_WITHOUT_WORDS = {
    401: "a valid key is wanted",
    403: "this wants the role admin, or a team that may use this endpoint",
}


class GatewayAnswered(click.ClickException):
    """A gateway answered with an error, which has an HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(f"{message} (HTTP {status})")
        self.said = message
        self.status = status


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

    def glimpse(self, path: str) -> Any:
        """GET a JSON answer at once or not at all: None for whatever goes wrong."""
        try:
            response = self._http.get(path, timeout=1.0)
            return response.json() if response.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """GET a JSON answer; what is None in the query is left out."""
        return self._asked("GET", path, query=query).json()

    def get_text(self, path: str, query: Mapping[str, Any] | None = None) -> str:
        """GET an answer as it is."""
        return self._asked("GET", path, query=query).text

    def post(self, path: str, body: object = None) -> Any:
        """POST a JSON body, or none; the JSON answer, None where it is empty."""
        answer = self._asked("POST", path, body=body)
        return answer.json() if answer.content else None

    def delete(self, path: str, body: object) -> None:
        """DELETE what a JSON body names."""
        self._asked("DELETE", path, body=body)

    def has(self, path: str) -> bool:
        """Does HEAD find something there? Anything but yes and no is an error."""
        with self._explained():
            response = self._http.head(path)
            if response.status_code == 404:
                return False
            _raise_for(response)
            return True

    def upload(self, path: str, content: Iterable[bytes], size: int) -> None:
        """POST bytes as they are."""
        with self._explained():
            # With its length said beforehand the gateway can refuse what has no room.
            headers = {"content-length": str(size), "content-type": "application/octet-stream"}
            _raise_for(self._http.post(path, content=content, headers=headers))

    def stream(
        self,
        path: str,
        body: Mapping[str, Any],
        on_headers: Callable[[Mapping[str, str]], None] = lambda _: None,
    ) -> Generator[dict[str, Any], None, None]:
        """POST a JSON body; the lines of the answer as they come. Raises for one with an error.

        Closing the generator hangs up, which is how a gateway is told to stop.
        """
        with self._explained(), self._http.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                response.read()
                _raise_for(response)
            on_headers(response.headers)
            for line in response.iter_lines():
                if not line.strip():
                    continue
                found = json.loads(line)
                if found.get("error"):
                    raise click.ClickException(_said(found) or line)
                yield found

    def _asked(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: object = None
    ) -> httpx.Response:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        with self._explained():
            response = self._http.request(method, path, params=given, json=body)
            _raise_for(response)
            return response

    @contextmanager
    def _explained(self) -> Generator[None, None, None]:
        try:
            yield
        except httpx.ConnectError:
            raise click.ClickException(
                f"no gateway answers at {self.url}; start one with `penstock serve`, "
                "or name it with --url"
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise click.ClickException(f"talking to {self.url} failed: {reason}") from None


def client_options(command: Any) -> Any:
    """The options of every command that talks to a gateway."""
    command = click.option(
        "--key",
        envvar="PENSTOCK_API_KEY",
        callback=_key,
        help="API key, where the gateway wants one.  "
        "[env: PENSTOCK_API_KEY, or OPENAI_API_KEY if it holds a key of Penstock's]",
    )(command)
    return click.option(
        "--url",
        envvar="PENSTOCK_URL",
        help=f"The gateway's base URL.  [env: PENSTOCK_URL, OLLAMA_HOST; default: {DEFAULT_URL}]",
    )(command)


def _key(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    """The key that was given, else OPENAI_API_KEY's if it is one of ours.

    Who has a key of OpenAI's in the environment neither wants to send it elsewhere nor to
    be refused for it where no key is needed.
    """
    if given:
        return given
    other = os.environ.get("OPENAI_API_KEY", "")
    return other if other.startswith(KEY_PREFIX) else None


def _said(answer: object) -> str | None:
    """The message of an error, as OpenAI's dialect or as Ollama's has it."""
    error: object = cast("dict[str, object]", answer).get("error") if _is_table(answer) else None
    if _is_table(error):
        error = cast("dict[str, object]", error).get("message")
    return error if isinstance(error, str) else None


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _raise_for(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    try:
        message = _said(response.json())
    except ValueError:
        message = None
    # What HEAD is answered has no body to say why.
    message = (
        message
        or response.text[:500]
        or _WITHOUT_WORDS.get(response.status_code, response.reason_phrase)
    )
    if response.status_code == 401:
        message += "; pass a key with --key or PENSTOCK_API_KEY"
    raise GatewayAnswered(message, response.status_code)
