import csv
import io

import pytest

from tests.gateway.api.admin.conftest import Stage
from tests.gateway.ledger.records import a_record


def test_a_call_is_counted_with_who_what_and_how_much(stage: Stage) -> None:
    stage.ask()
    stage.ask(stream=True)
    assert stage.ask(max_tokens=-1).status_code == 400
    stage.until_written(3)

    [total] = stage.get("usage", by="team,model,outcome", outcome="ok").json()["rows"]
    rows = stage.get("usage", by="call").json()["rows"]

    assert (total["team"], total["model"], total["calls"]) == ("me", "chat-small", 2)
    assert (total["prompt_tokens"], total["completion_tokens"]) == (2, 4)
    newest, streamed, whole = rows
    assert (newest["outcome"], newest["status"], newest["model"]) == ("bad_request", 400, None)
    assert (whole["streamed"], streamed["streamed"]) == (False, True)
    assert (whole["engine"], whole["endpoint"], whole["status"]) == ("scripted", "openai.chat", 200)
    assert 0 < whole["first_output_seconds"] <= whole["seconds"]
    assert whole["policy"] == stage.gateway.policy.digest[:12]
    assert whole["cost_micros"] is None


def test_neither_content_nor_credentials_are_in_it(stage: Stage) -> None:
    stage.script[:] = ["canary-answer"]
    stage.ask(messages=[{"role": "user", "content": "canary-prompt"}], user="canary-user")
    stage.until_written(1)

    assert "canary" not in stage.get("usage", by="call").text


def test_admin_calls_and_strangers_leave_no_record(stage: Stage) -> None:
    stage.get("keys")
    stage.client.get("/healthz")
    stage.client.get("/v1/models", headers={"x-forwarded-for": "192.0.2.1"})
    stage.client.get("/v1/models")
    stage.until_written(1)

    assert [row["endpoint"] for row in stage.get("usage", by="call").json()["rows"]] == [
        "openai.models"
    ]


def test_pages_say_where_the_next_one_begins(stage: Stage) -> None:
    stage.run(stage.gateway.ledger.usage.insert([a_record(f"r{n}", model=f"m{n}") for n in "abc"]))

    first = stage.get("usage", by="model", limit=2).json()
    second = stage.get("usage", by="model", limit=2, offset=first["next_offset"]).json()

    assert [row["model"] for row in first["rows"] + second["rows"]] == ["ma", "mb", "mc"]
    assert (first["next_offset"], second["next_offset"]) == (2, None)


@pytest.mark.parametrize(
    ("query", "calls"),
    [
        ({"from": "2026-03-01", "to": "2026-03-01"}, 1),
        ({"from": "2026-03-02"}, 0),
        ({"to": "2026-02-28"}, 0),
        ({"from": "2026-03-01T12:00:00Z"}, 1),
        ({"from": "2026-03-01T13:00:00+01:00"}, 1),
        ({"to": "2026-03-01T12:00:00Z"}, 0),
        ({"key": "k3v90q2mxw7a", "team": "search"}, 1),
        ({"key": "another"}, 0),
    ],
)
def test_from_to_and_filters_narrow(stage: Stage, query: dict[str, str], calls: int) -> None:
    stage.run(stage.gateway.ledger.usage.insert([a_record()]))

    [total] = stage.get("usage", **query).json()["rows"]

    assert total["calls"] == calls


def test_csv_has_the_same_rows_and_no_formulas(stage: Stage) -> None:
    names = ['=HYPERLINK("http://x")', "+1", "-1", "@x", 'a,"b"\nc', "plain"]
    stage.run(
        stage.gateway.ledger.usage.insert(
            [a_record(f"r{index}", model=name) for index, name in enumerate(names)]
        )
    )

    answer = stage.get("usage", by="model", format="csv", limit=5)
    rows = list(csv.DictReader(io.StringIO(answer.text)))

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["x-penstock-next-offset"] == "5"
    assert len(rows) == 5
    assert {row["model"][0] for row in rows} == {"'", "a"}
    assert rows[-1]["model"] == 'a,"b"\nc'
    assert {row["prompt_tokens"] for row in rows} == {"10"}
    assert {row["cost_micros"] for row in rows} == {""}


def test_it_says_what_is_on_its_way_to_the_ledger(stage: Stage) -> None:
    stage.ask()
    stage.until_written(1)

    recording = stage.get("usage").json()["recording"]

    assert recording["written"] == 1
    assert (recording["dropped"], recording["spooled"], recording["refused"]) == (0, 0, 0)
