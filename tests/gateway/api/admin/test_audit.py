import sqlite3
from contextlib import closing

from tests.gateway.api.admin.conftest import Stage


def drain(stage: Stage, times: int) -> None:
    for _ in range(times):
        assert stage.post("targets/drain", {"engine": "scripted"}).status_code == 200


def test_the_log_is_paged_newest_first_and_the_chain_holds(stage: Stage) -> None:
    drain(stage, 5)

    first = stage.get("audit", limit=3).json()
    second = stage.get("audit", limit=3, before=first["next"]).json()
    found = stage.get("audit/verification").json()

    assert [row["seq"] for row in first["rows"] + second["rows"]] == [5, 4, 3, 2, 1]
    assert second["next"] is None
    assert (found["holds"], found["rows"], found["bad_seq"]) == (True, 5, None)
    assert found["head"] == {"seq": 5, "hash": first["rows"][0]["hash"]}
    assert stage.get("audit", action="keys.create").json()["rows"] == []


def test_a_changed_row_is_found_over_http(stage: Stage) -> None:
    drain(stage, 3)
    with closing(sqlite3.connect(stage.gateway.settings.data_dir / "ledger.db")) as database:
        database.execute("DROP TRIGGER audit_log_no_update")
        database.execute("UPDATE audit_log SET after = 'not json' WHERE seq = 2")
        database.commit()

    found = stage.get("audit/verification").json()

    assert (found["holds"], found["bad_seq"], found["rows"]) == (False, 2, 1)
    assert [row["after"] for row in stage.audit()][1] == "not json"


def test_a_head_that_was_noted_elsewhere_is_held_against_the_chain(stage: Stage) -> None:
    drain(stage, 2)
    head = stage.get("audit/verification").json()["head"]

    good = stage.get("audit/verification", **head).json()
    other = stage.get("audit/verification", seq=1, hash=head["hash"]).json()
    ahead = stage.get("audit/verification", seq=3, hash=head["hash"]).json()

    assert [good["holds"], other["holds"], ahead["holds"]] == [True, False, False]
    assert "ends before row 3" in ahead["reason"]
