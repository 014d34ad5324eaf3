"""A model behind a URL: any server that speaks OpenAI's dialect, a running gateway for one.

What is there to compare is what the server tells: the prompt as it was rendered
is not. Speeds include the network.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.parity import wire
from gateway.parity.answer import Answer, Failure, Notes
from gateway.parity.problems import CannotCompare
from gateway.parity.prompt_set import CHAT, COMPLETIONS, EMBEDDINGS, Prompt
from gateway.parity.side import Manner
from gateway.policy.problems import way_out

_PATHS = {CHAT: "chat/completions", COMPLETIONS: "completions", EMBEDDINGS: "embeddings"}
_CONNECT_SECONDS = 10.0
# The request was understood and is refused; other statuses say nothing about it.
_REFUSED = frozenset({400, 413, 415, 422, 501})
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Refused(Exception):
    """A status that is no answer."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.code, self.message = wire.problem_in(body)


class _Garbled(Exception):
    """An answer that is none."""


class UrlSide:
    """One server and the name by which it knows the model."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        name: str,
        key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Raises `CannotCompare` for what is no HTTP URL."""
        self.name = name
        self.model = model
        self._base = _base_of(url)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._transport = transport
        self._http = self._client()
        self._models: Sequence[str] = ()
        self._has_answered = False
        self._has_logprobs = True
        self._tells_usage = True

    async def check(self, prompts: Sequence[Prompt]) -> None:
        """Is a server there, and which models does it list?

        What it makes of the prompts, it alone knows.
        """
        async with self._client() as http:
            try:
                response = await http.get(f"{self._base}/models", timeout=_CONNECT_SECONDS)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise CannotCompare(f"no server answers at {self._base}: {_said(error)}") from None
        if response.status_code == 401:
            raise self._not_let_in()
        try:
            self._models = [model.id for model in wire.MODELS.decode(response.content).data]
        except _UNREADABLE:
            self._models = ()  # a server without that endpoint may answer all the same

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator["UrlSide", None]:
        """Keep connections to the server."""
        async with self._http:
            yield self

    async def ask(self, prompt: Prompt, manner: Manner) -> Answer:
        """Ask once, without log-probabilities where those are refused."""
        wants = manner.logprobs and self._has_logprobs
        body = prompt.asked(self.model, max_tokens=manner.max_tokens, logprobs=wants)
        answer = await self._asked(prompt, body, manner)
        if answer.failure is None or answer.failure.kind == "failed":
            return answer
        plain = prompt.asked(self.model, max_tokens=manner.max_tokens, logprobs=False)
        if plain == body:
            return answer
        answer = await self._asked(prompt, plain, manner)
        # Was it the log-probabilities? Then they need not be asked for again.
        self._has_logprobs = answer.failure is not None
        return answer

    async def _asked(self, prompt: Prompt, body: dict[str, Any], manner: Manner) -> Answer:
        try:
            async with asyncio.timeout(manner.timeout_seconds):
                answer = await self._answered(prompt, body)
            self._has_answered = True
            return answer
        except TimeoutError:
            message = f"no answer within {manner.timeout_seconds:g} seconds"
            failure = Failure(kind="failed", code="timeout", message=message)
        except _Refused as error:
            failure = self._failure(error)
        except _Garbled as error:
            failure = Failure(kind="failed", code="garbled", message=str(error))
        except httpx.HTTPError as error:
            failure = Failure(kind="failed", code="unavailable", message=_said(error))
        return Answer(failure=failure)

    async def _answered(self, prompt: Prompt, body: dict[str, Any]) -> Answer:
        url = f"{self._base}/{_PATHS[prompt.endpoint]}"
        if prompt.endpoint == EMBEDDINGS:
            return _vectors(await self._whole(url, body))
        notes = Notes()
        streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with self._http.stream("POST", url, json=streamed) as response:
            if response.status_code != 200:
                raise _Refused(response.status_code, await response.aread())
            if response.headers.get("content-type", "").startswith("application/json"):
                _note(await response.aread(), notes)  # it does not stream
            else:
                await _listen(response, notes)
        if notes.completion_tokens is None and self._tells_usage:
            await self._count(url, body, notes)
        return notes.answer()

    async def _count(self, url: str, body: dict[str, Any], notes: Notes) -> None:
        """Some servers count only answers that are not streamed."""
        data = await self._whole(url, body)
        try:
            whole = wire.ANSWER.decode(data)
        except _UNREADABLE as error:
            raise _garbled(error) from None
        self._tells_usage = whole.usage is not None
        if whole.usage is not None:
            notes.prompt_tokens = whole.usage.prompt_tokens
            notes.completion_tokens = whole.usage.completion_tokens

    async def _whole(self, url: str, body: dict[str, Any]) -> bytes:
        response = await self._http.post(url, json=body)
        if response.status_code != 200:
            raise _Refused(response.status_code, response.content)
        return response.content

    def _failure(self, refused: _Refused) -> Failure:
        """Why a status is no answer. Raises `CannotCompare` if every prompt will get the same."""
        if refused.status == 401:
            raise self._not_let_in()
        if refused.status == 404 and not self._has_answered and self.model not in self._models:
            raise CannotCompare(
                f"{self.name} has no model {self.model!r}{way_out(self.model, self._models)}; "
                f"{self.name}#NAME asks for another"
            )
        return Failure(
            kind="refused" if refused.status in _REFUSED else "failed",
            code=refused.code or f"http_{refused.status}",
            message=f"{refused.message} (HTTP {refused.status})",
        )

    def _client(self) -> httpx.AsyncClient:
        # How long an answer may take is the manner's business.
        timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        return httpx.AsyncClient(headers=self._headers, timeout=timeout, transport=self._transport)

    def _not_let_in(self) -> CannotCompare:
        return CannotCompare(
            f"{self.name} lets nobody in without a valid key (HTTP 401); give one with --key"
        )


def _base_of(url: str) -> str:
    """The URL that paths are put after; one without a path gets `/v1`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CannotCompare(f"{url!r} is not a URL like http://127.0.0.1:8080/v1")
    base = url.rstrip("/")
    return base if parts.path.strip("/") else f"{base}/v1"


async def _listen(response: httpx.Response, notes: Notes) -> None:
    """Read server-sent events to the end (WHATWG HTML, section 9.2), as far as servers use them."""
    async for line in response.aiter_lines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field != "data" or not value:
            continue
        if value == "[DONE]":
            return
        _note(value.encode(), notes)
    if notes.finish_reason is None:
        raise _Garbled("the stream ended before its answer did")


def _note(data: bytes, notes: Notes) -> None:
    try:
        answer = wire.ANSWER.decode(data)
    except _UNREADABLE as error:
        raise _garbled(error) from None
    if answer.error:
        code, message = wire.problem_of(answer.error)
        raise _Garbled(f"the stream broke off: {message or code}")
    wire.note(answer, notes)


def _garbled(error: Exception) -> _Garbled:
    return _Garbled(f"what came is no answer of OpenAI's dialect: {error}")


def _vectors(data: bytes) -> Answer:
    try:
        found = wire.EMBEDDINGS.decode(data)
    except _UNREADABLE as error:
        raise _Garbled(f"what came are no embeddings: {error}") from None
    ordered = sorted(found.data, key=lambda vector: vector.index)
    return Answer(
        vectors=[vector.embedding for vector in ordered],
        prompt_tokens=found.usage.prompt_tokens if found.usage is not None else None,
    )


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
