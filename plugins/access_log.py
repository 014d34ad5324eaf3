"""Logs one line for each call: who, what, how it ended. Never a prompt, never a key."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from gateway import Call, hookimpl

MAX_CLIENT_ID_LENGTH = 128

log: Any = structlog.get_logger("penstock.calls")


class AccessLog:
    """Writes `call_finished` when a call's last byte is out, or its client gone."""

    @hookimpl
    @asynccontextmanager
    async def observe(self, call: Call) -> AsyncGenerator[None, None]:
        """Around the whole call."""
        try:
            yield
        finally:
            _write(call)


def _write(call: Call) -> None:
    fields: dict[str, Any] = {
        "call": call.id,
        "endpoint": call.endpoint,
        "model": call.model.name if call.model else None,
        "engine": call.target.engine if call.target else None,
        "targets": call.targets or None,
        "team": call.principal.team,
        "key": call.principal.key_id,
        "status": call.status,
        "outcome": call.outcome,
        "finish_reason": call.finish_reason.value if call.finish_reason else None,
        "prompt_tokens": call.usage.prompt_tokens,
        "cached_tokens": call.usage.cached_tokens,
        "completion_tokens": call.usage.completion_tokens,
        "first_output_seconds": _rounded(_first_output_seconds(call)),
        "seconds": _rounded(call.seconds),
        "stream": call.streams,
        "client": call.client.host,
        "client_request_id": _client_request_id(call),
        "policy": call.policy.digest[:12] or None,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    _level_of(call)("call_finished", **known)


def _client_request_id(call: Call) -> str | None:
    """What the caller calls this call, so that its log and ours can be laid side by side.

    Only ever shown: a caller that could choose a call's id could choose another's.
    """
    given = call.headers.get("x-client-request-id") or call.headers.get("x-request-id")
    return given[:MAX_CLIENT_ID_LENGTH] if given else None


def _level_of(call: Call) -> Any:
    # A stream that broke was a 200 when it began; its error knows better.
    status = max(call.status or 0, call.error.status if call.error else 0)
    if status >= 500:
        return log.error
    return log.warning if status >= 400 else log.info


def _first_output_seconds(call: Call) -> float | None:
    return None if call.first_output_at is None else call.first_output_at - call.started_at


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
