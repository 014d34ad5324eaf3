from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from engines.protocol import FinishReason, GenerateRequest, Usage
from gateway import Call, Principal, Target
from gateway.call import ClientAddress, Tried
from gateway.errors import Problem, Unauthenticated, problem_of
from gateway.policy import ModelPolicy, Policy, TargetPolicy
from plugins.access_log import AccessLog


def a_call() -> Call:
    policy = Policy(
        directory=Path("p"),
        digest="0123456789abcdef",
        plugins=[],
        tables={},
        engines={},
        models={},
        teams={},
        limits={},
        aliases={},
    )
    return Call(
        id="req_1",
        endpoint="openai.chat",
        policy=policy,
        client=ClientAddress("127.0.0.1", 5000),
        headers={"authorization": "Bearer canary-key"},
        started_at=100.0,
    )


def finish(call: Call) -> None:
    call.principal = Principal(name="laptop", team="me", key_id="k3v90q2mxw7a")
    call.model = ModelPolicy(name="chat-small", targets=[TargetPolicy(engine="gpu0")])
    call.target = Target("gpu0", "a")
    call.tried = [Tried("gpu1", "a b", "overloaded"), Tried("gpu0", "a")]
    call.requests = [GenerateRequest(id="req_1", model="a", prompt="canary-prompt")]
    call.streams = True
    call.status = 200
    call.tally(0).set(Usage(prompt_tokens=12, cached_tokens=4, completion_tokens=7))
    call.finish_reason = FinishReason.STOP
    call.first_output_at = 100.25
    call.finished_at = 101.5


async def logged(call: Call, error: Exception | None = None) -> list[dict[str, Any]]:
    with capture_logs() as entries:
        try:
            async with AccessLog().observe(call):
                finish(call)
                if error is not None:
                    raise error
        except RuntimeError:
            pass
    return [dict(entry) for entry in entries]


async def test_a_call_is_one_line_that_says_who_what_and_how_it_ended() -> None:
    [entry] = await logged(a_call())

    assert entry == {
        "event": "call_finished",
        "log_level": "info",
        "call": "req_1",
        "endpoint": "openai.chat",
        "model": "chat-small",
        "engine": "gpu0",
        "targets": "gpu1/a%20b;left=overloaded, gpu0/a",
        "team": "me",
        "key": "k3v90q2mxw7a",
        "status": 200,
        "outcome": "ok",
        "finish_reason": "stop",
        "prompt_tokens": 12,
        "cached_tokens": 4,
        "completion_tokens": 7,
        "first_output_seconds": 0.25,
        "seconds": 1.5,
        "stream": True,
        "client": "127.0.0.1",
        "policy": "0123456789ab",
    }


async def test_neither_prompt_nor_key_is_in_the_line() -> None:
    assert "canary" not in repr(await logged(a_call()))


async def test_a_call_that_breaks_is_logged_too() -> None:
    assert len(await logged(a_call(), RuntimeError("broken"))) == 1


async def test_a_refused_call_is_logged_cleanly() -> None:
    call = a_call()

    with capture_logs() as entries:
        async with AccessLog().observe(call):
            call.status = 401
            call.error = problem_of(Unauthenticated("no"))
            call.finished_at = 100.001

    [entry] = entries
    assert (entry["team"], entry["outcome"], entry["log_level"]) == (
        "-",
        "unauthenticated",
        "warning",
    )
    assert not {"key", "model", "engine", "targets", "first_output_seconds"} & entry.keys()


@pytest.mark.parametrize(
    ("status", "level"),
    [(200, "info"), (304, "info"), (404, "warning"), (429, "warning"), (503, "error")],
)
async def test_the_level_follows_the_status(status: int, level: str) -> None:
    call = a_call()

    with capture_logs() as entries:
        async with AccessLog().observe(call):
            call.status = status

    assert [entry["log_level"] for entry in entries] == [level]


async def test_a_stream_that_fails_after_its_200_is_logged_as_what_it_is() -> None:
    call = a_call()

    with capture_logs() as entries:
        async with AccessLog().observe(call):
            call.status = 200
            call.error = Problem(code="engine_error", status=502, message="died", source="engine")

    assert [(entry["status"], entry["log_level"]) for entry in entries] == [(200, "error")]
