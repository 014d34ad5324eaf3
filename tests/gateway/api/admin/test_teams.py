from tests.gateway.api.admin.conftest import Stage


def test_a_team_is_shown_as_the_policy_sees_it_with_what_it_does_now(stage: Stage) -> None:
    stage.post("keys", {"team": "search", "name": "a"})
    gone = stage.post("keys", {"team": "search", "name": "b"}).json()["key"]["id"]
    stage.delete(f"keys/{gone}")

    teams = {team["name"]: team for team in stage.get("teams").json()["teams"]}
    search = stage.get("teams/search").json()

    assert set(teams) == {"me", "search"}
    assert search == teams["search"]
    assert search["policy"]["models"] == ["chat-*"]
    assert (search["active_keys"], search["calls"], search["limits"]) == (1, 0, None)
    assert teams["me"]["limits"]["name"] == "none"
    assert teams["me"]["calls"] == 1  # this very one


def test_a_team_that_is_not_there_is_a_404_with_the_nearest_name(stage: Stage) -> None:
    refused = stage.get("teams/serch")

    assert refused.status_code == 404
    assert 'did you mean "search"' in refused.json()["error"]["message"]
