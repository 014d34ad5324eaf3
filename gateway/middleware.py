"""Opens the `Call`, observes it, identifies the caller, and closes everything at the end.

The outermost thing around every handler, and plain ASGI. It runs in the
request's own task and stays there: a client that hangs up cancels that task,
wherever it is (queued, in prefill, in mid-stream), and the clean-up that
follows is not cancelled again. So an engine's stream is closed by the task
that opened it, at once, and never by the garbage collector.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AsyncExitStack
from operator import methodcaller
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.bodies import ClientGone
from gateway.api.problems import problem_frame, problem_of_any, problem_reply
from gateway.api.replies import SECURITY_HEADERS, encoded
from gateway.call import Call, ClientAddress, new_call_id
from gateway.credentials import CHALLENGE, presented_credential
from gateway.endpoints import ADMIN
from gateway.errors import (
    STATUS,
    Forbidden,
    Problem,
    RequestTimeout,
    Unauthenticated,
)
from gateway.gateway import Gateway
from gateway.hang_up import HangUp, hang_up_of
from gateway.hooks import Hooks
from gateway.networks import true_client
from gateway.permission import has_needed_role
from gateway.serving import Serving
from gateway.within import within

log = structlog.get_logger()

SLOW_BYTES_PER_SECOND = 16 * 1024  # of a body; a client that is slower is waited for, but not long
_SECURITY_HEADERS = encoded(SECURITY_HEADERS)
_SECURITY_NAMES = frozenset(name for name, _ in _SECURITY_HEADERS)
_decode = methodcaller("decode", "latin-1")


class CallMiddleware(ASGIMiddleware):
    """Makes one `Call` of every request that reaches a handler."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Run one call from first byte to last."""
        serving = self._gateway.serving
        call = self._open(scope, serving)
        state = scope["state"]
        state["gateway"], state["call"] = self._gateway, call
        body_seconds = self._gateway.settings.body_seconds
        wire = _Wire(call, receive, send, hang_up_of(scope), body_seconds=body_seconds)
        self._gateway.calls[call.id] = call
        bound = structlog.contextvars.bind_contextvars(call=call.id)
        try:
            async with serving.hooks.observe(call):
                try:
                    await self._answer(call, scope, wire, next_app)
                finally:
                    call.task = None
                    wire.stop_watching()
                    await _closed(call.resources)
                    call.finished_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - of an `observe` hook
            await self._refuse(call, error, scope, wire)
        finally:
            structlog.contextvars.reset_contextvars(**bound)
            self._gateway.end_call(call)

    def _open(self, scope: Any, serving: Serving) -> Call:
        handler = scope["route_handler"]
        headers = _headers_of(scope)
        return Call(
            id=new_call_id(),
            endpoint=handler.opt.get("endpoint") or handler.name or "-",
            policy=serving.policy,
            serving=serving,
            task=asyncio.current_task(),
            client=self._client_of(scope, headers),
            headers=headers,
        )

    def _client_of(self, scope: Any, headers: Mapping[str, str]) -> ClientAddress:
        peer = ClientAddress(*scope["client"]) if scope.get("client") else ClientAddress(None)
        proxies = self._gateway.settings.trusted_proxies
        host = true_client(peer.host, headers.get("x-forwarded-for"), proxies)
        return peer if host == peer.host else ClientAddress(host)

    async def _answer(self, call: Call, scope: Scope, wire: "_Wire", next_app: ASGIApp) -> None:
        try:
            if not scope["route_handler"].opt.get("public"):
                await self._identify(call)
                await self._authorize(call)
            await next_app(scope, wire.receive, wire.send)
        except asyncio.CancelledError:
            if call.stopped is not None and not wire.client_gone:
                _forget_cancellation()
                await _stop(call, call.stopped, scope, wire)
                return
            if not wire.client_gone:
                call.error = call.error or _closed_by_us()
                if wire.started:
                    raise
                _forget_cancellation()
                reply = problem_reply(_closed_by_us(), dialect=call.dialect)
                await reply(scope, wire.receive, wire.send)
                return
            _forget_cancellation()
            call.error = _client_closed()
        except ClientGone:
            call.error = _client_closed()
        except Exception as error:  # noqa: BLE001 - the last place that can still answer
            await self._refuse(call, error, scope, wire)

    async def _identify(self, call: Call) -> None:
        presented_credential(call.headers)  # two different ones: refused, whoever would read them
        principal = await _hooks(call).identify(call, call.headers)
        if principal is None:
            raise Unauthenticated(
                "no valid API key was given; send one as `Authorization: Bearer <key>` "
                "(`penstock keys create` makes one)",
                headers=CHALLENGE,
            )
        call.principal = principal

    async def _authorize(self, call: Call) -> None:
        """Refuse by endpoint, before a byte of the body is read and whatever the handler does.

        Which model is asked for is only known later: gateway/pipeline.py asks again.
        """
        if not has_needed_role(call):
            raise Forbidden(
                f"{call.endpoint} is for callers with the role {ADMIN}; "
                f"`penstock keys create --role {ADMIN}` makes a key that has it"
            )
        await _hooks(call).authorize(call)

    async def _refuse(self, call: Call, error: Exception, scope: Scope, wire: "_Wire") -> None:
        problem = problem_of_any(error, scope)
        if problem.code == "internal":
            log.error("call_failed", exc_info=error)
        call.error = call.error or problem
        if wire.started:
            return  # nothing honest can be added to a half-sent answer; it stays unfinished
        reply = problem_reply(problem, dialect=call.dialect)
        await reply(scope, wire.receive, wire.send)


class _Wire:
    """The connection as a handler sees it: marks what passes, and notices a hang-up.

    Once the body is read, a client that leaves has the call's task cancelled; when the
    answer is complete, nothing more happens. Who tells of it is the server's `HangUp`, or a
    watcher where there is none.
    """

    def __init__(
        self,
        call: Call,
        receive: Receive,
        send: Send,
        hang_up: HangUp | None,
        *,
        body_seconds: float,
    ) -> None:
        self.started = False
        self.client_gone = False
        self._call = call
        self._receive = receive
        self._send = send
        self._hang_up = hang_up
        self._has_body = False
        self._complete = False
        self._body_seconds = body_seconds  # how much longer we wait for the body
        self._watcher: asyncio.Task[None] | None = None

    async def receive(self) -> Any:
        """The next piece of the body, or that the client is gone."""
        if self._has_body:
            return await self._disconnected()
        message = await self._next_piece()
        if message["type"] == "http.disconnect":
            self.client_gone = True
        elif not message.get("more_body", False):
            self._has_body = True
            self._watch_out()
        return message

    async def _disconnected(self) -> Any:
        """That the client has left, once it has."""
        if self._watcher is not None:
            await asyncio.shield(self._watcher)
        else:
            await self._end_of_messages()
        return {"type": "http.disconnect"}

    def _watch_out(self) -> None:
        """From now on, cancel the call's task when the client leaves."""
        task = self._call.task
        assert task is not None
        if self._hang_up is not None:
            self._hang_up.listen(lambda: self._left(task))
        else:
            self._watcher = asyncio.create_task(self._watch(task))

    async def _next_piece(self) -> Any:
        """Raises `RequestTimeout`. Only our own waiting counts, and what arrives buys more time."""
        began_at = time.monotonic()
        try:
            message = await within(self._body_seconds, cast("Awaitable[Any]", self._receive()))
        except TimeoutError:
            raise RequestTimeout("the request's body did not come in time") from None
        if message.get("more_body"):
            self._body_seconds += len(message.get("body", b"")) / SLOW_BYTES_PER_SECOND
            self._body_seconds -= time.monotonic() - began_at
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on, with the headers that every answer carries."""
        if message["type"] == "http.response.start":
            self.started = True
            self._call.status = message["status"]
            message["headers"] = self._completed([*message.get("headers", ())])
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True
        return self._send(message)

    def stop_watching(self) -> None:
        """End the watcher; the answer is out or will never be."""
        self._complete = True
        # Task and wire would hold each other, and with them the body, until the
        # garbage collector comes by.
        if self._hang_up is not None:
            self._hang_up.forget()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def _completed(self, given: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        call = self._call
        milliseconds = int((time.monotonic() - call.started_at) * 1000)
        headers = {
            "x-request-id": call.id,
            "openai-processing-ms": str(milliseconds),
            **call.response_headers,
        }
        names = dict(given)
        more = _SECURITY_HEADERS
        if not _SECURITY_NAMES.isdisjoint(names):
            more = [header for header in more if header[0] not in names]
        return [*given, *encoded(headers), *more]

    async def _watch(self, task: "asyncio.Task[Any]") -> None:
        await self._end_of_messages()
        self._left(task)

    async def _end_of_messages(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _left(self, task: "asyncio.Task[Any]") -> None:
        if not self._complete:
            self.client_gone = True
            task.cancel("the client hung up")


def _hooks(call: Call) -> Hooks:
    assert call.serving is not None, "the middleware opened the call"
    return call.serving.hooks


async def _stop(call: Call, problem: Problem, scope: Scope, wire: _Wire) -> None:
    """Tell the client that somebody ended its call, in so far as it can still be told."""
    call.error = problem
    if not wire.started:
        await problem_reply(problem, dialect=call.dialect)(scope, wire.receive, wire.send)
    elif call.streams:
        frame = problem_frame(problem, dialect=call.dialect)
        await wire.send({"type": "http.response.body", "body": frame, "more_body": False})


def _headers_of(scope: Any) -> dict[str, str]:
    """Lower-case names; a header that came twice is joined, so that none of it is lost."""
    given: list[tuple[bytes, bytes]] = scope["headers"]
    fields = dict(given)
    names = map(str.lower, map(_decode, fields))
    headers = dict(zip(names, map(_decode, fields.values()), strict=True))
    if len(headers) == len(given):
        return headers
    headers.clear()
    for key, held in given:
        name, value = key.decode("latin-1").lower(), held.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _closed(resources: AsyncExitStack) -> None:
    """Close what the call opened, to the end, also when the task is cancelled meanwhile."""
    try:
        await resources.aclose()
    except Exception as error:  # one failed clean-up must not hide the answer
        log.error("call_clean_up_failed", exc_info=error)


def _forget_cancellation() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _client_closed() -> Problem:
    return Problem(
        code="client_closed",
        status=STATUS["client_closed"],
        message="the client closed the connection",
        source="gateway",
    )


def _closed_by_us() -> Problem:
    return Problem(
        code="unavailable",
        status=STATUS["unavailable"],
        message="the gateway is shutting down",
        source="gateway",
        retry_after=1.0,
    )
