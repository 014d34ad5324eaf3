import pytest

from tests.gateway.api.admin.conftest import Stage


def test_a_drained_target_takes_no_calls_until_it_is_resumed(stage: Stage) -> None:
    stage.ask()
    drained = stage.post("targets/drain", {"engine": "scripted", "model": "scripted-model"})
    refused = stage.ask()
    resumed = stage.post("targets/resume", {"engine": "scripted", "model": "scripted-model"})

    assert drained.json() == {
        "engine": "scripted", "model": "scripted-model", "drained": True, "calls": 0,
    }  # fmt: skip
    assert refused.status_code == 503
    assert resumed.json()["drained"] is False
    assert stage.ask().status_code == 200
    [target] = stage.get("targets").json()["targets"]
    assert (target["engine"], target["drained"], target["answered"]) == ("scripted", False, 2)


def test_both_are_in_the_audit_log_with_before_and_after(stage: Stage) -> None:
    stage.post("targets/drain", {"engine": "scripted"})
    stage.post("targets/resume", {"engine": "scripted"})

    drained, resumed = stage.audit()

    assert (drained["action"], drained["subject"]) == ("targets.drain", "scripted")
    assert (drained["before"], drained["after"]) == ({"drained": False}, {"drained": True})
    assert (resumed["before"], resumed["after"]) == ({"drained": True}, {"drained": False})


@pytest.mark.parametrize("action", ["drain", "resume"])
def test_an_engine_that_is_not_there_is_a_404_with_the_nearest_name(
    stage: Stage, action: str
) -> None:
    refused = stage.post(f"targets/{action}", {"engine": "scriptd"})

    assert refused.status_code == 404
    assert 'did you mean "scripted"' in refused.json()["error"]["message"]
    assert stage.audit() == []


@pytest.mark.parametrize("body", [{}, {"engine": ""}, {"engine": "a", "modle": "b"}, []])
def test_a_body_that_is_wrong_is_a_400(stage: Stage, body: object) -> None:
    assert stage.post("targets/drain", body).status_code == 400
