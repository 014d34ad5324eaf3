import json
import threading

import httpx

from tests.fakes import Hold
from tests.gateway.api.admin.conftest import Stage

STREAM = {
    "model": "chat-small",
    "stream": True,
    "messages": [{"role": "user", "content": "hi"}],
}


def in_flight(stage: Stage) -> dict[str, object]:
    [call] = stage.get("calls", endpoint="openai.chat").json()["calls"]
    return call


def test_a_call_in_flight_is_listed_until_it_ends(stage: Stage) -> None:
    hold = Hold()
    stage.script[:] = ["first", hold, " last"]
    with httpx.stream("POST", f"{stage.server.url}/v1/chat/completions", json=STREAM) as running:
        stage.server.wait_until(hold.reached.is_set)
        call = in_flight(stage)
        stage.server.run(hold.release)
        running.read()

    assert call["id"] == running.headers["x-request-id"]
    assert (call["team"], call["model"], call["engine"]) == ("me", "chat-small", "scripted")
    assert (call["streamed"], call["client"]) == (True, "127.0.0.1")
    assert call["policy"] == stage.gateway.policy.digest[:12]
    stage.server.wait_until(lambda: not stage.gateway.calls)
    assert [found["endpoint"] for found in stage.get("calls").json()["calls"]] == ["admin.calls"]


def test_a_stream_that_is_cancelled_ends_with_an_event_and_frees_its_engine(stage: Stage) -> None:
    stage.script[:] = ["first", Hold(), " never"]
    with httpx.stream("POST", f"{stage.server.url}/v1/chat/completions", json=STREAM) as running:
        lines = running.iter_lines()
        next(lines)
        ended = stage.delete(f"calls/{in_flight(stage)['id']}")
        events = [line for line in lines if line]

    assert ended.status_code == 200
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert (error["code"], "ended by whoever runs" in error["message"]) == ("cancelled", True)
    assert "never" not in "".join(events)
    stage.server.wait_until(lambda: stage.engine.running == 0)
    assert stage.engine.num_closed_early == 1


def test_several_sequences_of_one_call_are_cancelled_together(stage: Stage) -> None:
    stage.script[:] = ["first", Hold(), " never"]
    body = {**STREAM, "n": 3}
    with httpx.stream("POST", f"{stage.server.url}/v1/chat/completions", json=body) as running:
        lines = running.iter_lines()
        next(lines)
        stage.delete(f"calls/{in_flight(stage)['id']}")
        events = [line for line in lines if line]

    assert "cancelled" in events[-1]
    stage.server.wait_until(lambda: stage.engine.running == 0)


def test_a_call_that_is_cancelled_before_its_first_output_is_an_honest_410(stage: Stage) -> None:
    hold = Hold()
    stage.script[:] = [hold]
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(stage.ask()))
    asking.start()
    stage.server.wait_until(hold.reached.is_set)

    ended = httpx.delete(f"{stage.server.url}/admin/calls/{in_flight(stage)['id']}", timeout=20)
    asking.join(20)

    assert ended.status_code == 200
    [answer] = answers
    assert (answer.status_code, answer.headers["x-should-retry"]) == (410, "false")
    assert answer.json()["error"]["code"] == "cancelled"
    stage.until_written(1)
    [record] = stage.get("usage", by="call").json()["rows"]
    assert (record["outcome"], record["status"]) == ("cancelled", 410)


def test_cancelling_is_in_the_audit_log_and_a_call_that_is_gone_is_a_404(stage: Stage) -> None:
    stage.script[:] = ["first", Hold()]
    with httpx.stream("POST", f"{stage.server.url}/v1/chat/completions", json=STREAM) as running:
        lines = running.iter_lines()
        next(lines)
        call_id = in_flight(stage)["id"]
        stage.delete(f"calls/{call_id}")
        assert list(lines)
    stage.server.wait_until(lambda: call_id not in stage.gateway.calls)

    assert stage.delete(f"calls/{call_id}").status_code == 404
    [row] = stage.audit()
    assert (row["action"], row["subject"]) == ("calls.cancel", call_id)
    assert row["before"]["team"] == "me"


def test_calls_are_found_by_team_and_page(stage: Stage) -> None:
    assert stage.get("calls", team="search").json() == {"calls": [], "next": None}
    first = stage.get("calls", limit=1).json()["calls"]
    assert stage.get("calls", after="req_z").json()["calls"] == []
    assert len(first) == 1
