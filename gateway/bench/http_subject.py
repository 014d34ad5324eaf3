"""Asks an OpenAI-compatible server over HTTP.

Plain aiohttp: no client library between the socket and the clock (decision
0019). Connections are kept and never limited in number, so that no question
waits for another inside the client.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import aiohttp
from msgspec import Struct

from gateway.bench.question import Answer, AskFailed, Question, Turn
from gateway.bench.stream import AnswerStream, failure_of

Endpoint = Literal["chat", "completions"]

CONNECT_SECONDS = 10.0
PATHS: Mapping[Endpoint, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
}


class Server(Struct, frozen=True, kw_only=True):
    """Where to ask, and how."""

    url: str  # base URL, with or without /v1
    model: str
    name: str = ""  # in reports; empty: the URL
    key: str = ""
    endpoint: Endpoint = "chat"
    extra: Mapping[str, Any] = {}  # body fields to add; null takes a field away
    timeout_seconds: float = 600.0

    @property
    def base(self) -> str:
        """The URL that paths are put after."""
        return self.url.rstrip("/").removesuffix("/v1")


class HttpSubject:
    """Implements `Subject`; made by `connected`."""

    shares_process = False

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self.name = server.name or server.base
        self._server = server
        self._session = session
        self._url = server.base + PATHS[server.endpoint]

    async def ask(self, question: Question, history: Sequence[Turn]) -> Answer:
        """Ask one question. Raises `AskFailed`."""
        body = json.dumps(self._body(question, history)).encode()
        try:
            async with self._session.post(self._url, data=body) as response:
                return await self._read(response)
        except aiohttp.ClientConnectorError as error:
            raise AskFailed("connect", f"nothing answers at {self._url}: {error}") from None
        except TimeoutError:
            seconds = self._server.timeout_seconds
            raise AskFailed("timeout", f"no whole answer within {seconds:g} s") from None
        except aiohttp.InvalidURL:
            raise AskFailed("connect", f"{self._url!r} is not a URL") from None
        except (aiohttp.ClientError, OSError) as error:
            raise AskFailed("cut_off", f"{type(error).__name__}: {error}") from None

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        if response.status != 200:
            raise _refusal(response.status, await response.text(errors="replace"))
        if response.content_type != "text/event-stream":
            raise AskFailed(
                "not_streamed", f"the answer is {response.content_type}, not an event stream"
            )
        stream = AnswerStream()
        async for data in response.content.iter_any():
            stream.feed(data, time.perf_counter())
        return stream.answer(time.perf_counter())

    def _body(self, question: Question, history: Sequence[Turn]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._server.model,
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if question.ignore_eos:
            body["ignore_eos"] = True  # vLLM's field; SGLang, llama.cpp and Penstock take it too
        if self._server.endpoint == "completions":
            body["prompt"] = list(question.token_ids) or transcript(question, history)
        elif question.token_ids:
            raise AskFailed("unsendable", "chat takes no token ids; use --endpoint completions")
        else:
            turns = [*history, Turn("user", question.text)]
            body["messages"] = [{"role": turn.role, "content": turn.text} for turn in turns]
        body.update(self._server.extra)
        return {name: value for name, value in body.items() if value is not None}


@asynccontextmanager
async def connected(server: Server) -> AsyncGenerator[HttpSubject, None]:
    """The server as a subject; its connections close with the block."""
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    if server.key:
        headers["authorization"] = f"Bearer {server.key}"
    timeout = aiohttp.ClientTimeout(total=server.timeout_seconds, sock_connect=CONNECT_SECONDS)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers=headers, timeout=timeout
    ) as session:
        yield HttpSubject(server, session)
    # aiohttp closes TLS connections one turn of the loop later.
    await asyncio.sleep(0)


def transcript(question: Question, history: Sequence[Turn]) -> str:
    """A conversation as one text, for an endpoint that knows no messages."""
    if not history:
        return question.text
    turns = [*history, Turn("user", question.text)]
    return "\n".join(f"{turn.role}: {turn.text}" for turn in turns) + "\nassistant:"


def _refusal(status: int, body: str) -> AskFailed:
    try:
        told: Any = json.loads(body)
        told = told.get("error", told)
    except (ValueError, AttributeError):
        told = body[:300] or "no reason was given"
    message = failure_of(told, "").message
    if status == 401:
        message += "; pass a key with --key or PENSTOCK_API_KEY"
    return AskFailed(f"http_{status}", message)
