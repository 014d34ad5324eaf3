from typing import Any

import pytest

from gateway.oidc import IssuerPolicy, TeamUnknown, principal_of
from gateway.oidc.claims import claim_at

TEAMS = {"search", "apps", "ünï"}


def a_policy(**changes: Any) -> IssuerPolicy:
    return IssuerPolicy(**{"issuer": "https://x.example", "audiences": ["penstock"], **changes})


def team(policy: IssuerPolicy, **claims: Any) -> str:
    return principal_of("corp", policy, {"sub": "alice", **claims}, TEAMS).team


def role(policy: IssuerPolicy, **claims: Any) -> str:
    return principal_of("corp", policy, {"sub": "a", "team": "apps", **claims}, TEAMS).role


def test_the_claim_names_the_team() -> None:
    assert team(a_policy(), team="search") == "search"
    assert team(a_policy(), team=["search"]) == "search"
    assert team(a_policy(), team=["search", "people", 7, None]) == "search"
    assert team(a_policy(team_claim="department"), department="apps") == "apps"


@pytest.mark.parametrize(
    "claim",
    [None, "", "people", [], ["people"], ["search", "apps"], {"search": 1}, 7, True, "Search",
     " search", "search ", "ѕearch", "search\0", "s\u200bearch", "u\u0308ni\u0308"],
)  # fmt: skip
def test_a_claim_that_names_no_team_or_two_is_of_nobody(claim: Any) -> None:
    with pytest.raises(TeamUnknown):
        team(a_policy(), team=claim)


def test_letters_that_are_not_ascii_are_letters() -> None:
    assert team(a_policy(), team="ünï") == "ünï"


def test_the_policy_may_say_which_value_is_which_team() -> None:
    mapped = a_policy(team_claim="groups", teams={"cn=ml,dc=x": "search", "cn=all,dc=x": "apps"})

    assert team(mapped, groups=["cn=all,dc=x"]) == "apps"
    assert team(mapped, groups=["cn=all,dc=x", "cn=ml,dc=x"]) == "search"
    for groups in (["search"], "apps", [], None):
        with pytest.raises(TeamUnknown):
            team(mapped, groups=groups)


def test_a_claim_may_be_deeper_or_have_a_name_like_a_path() -> None:
    assert team(a_policy(team_claim="/org/unit"), org={"unit": "apps"}) == "apps"
    assert team(a_policy(team_claim="https://x/team"), **{"https://x/team": "apps"}) == "apps"
    assert claim_at({"a/b": {"c~d": 1}}, "/a~1b/c~0d") == 1
    assert claim_at({"a": "text"}, "/a/0") is None
    assert claim_at({"a": ["b"]}, "/a/0") is None


def test_an_admin_is_who_the_policy_says() -> None:
    policy = a_policy(role_claim="/realm_access/roles", admin_values=["gate-admin"])

    assert role(policy, realm_access={"roles": ["x", "gate-admin"]}) == "admin"
    assert role(policy, realm_access={"roles": "gate-admin"}) == "admin"
    for roles in (["Gate-Admin"], ["gate-admin2"], [], None, {"gate-admin": 1}, [["gate-admin"]]):
        assert role(policy, realm_access={"roles": roles}) == "member"
    assert role(policy, role="admin", roles=["gate-admin"], admin=True) == "member"


def test_without_a_rule_nobody_is_an_admin() -> None:
    assert role(a_policy(), role="admin", roles=["admin"], admin=True) == "member"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"issuer": "http://login.example.com"}, "is not https"),
        ({"issuer": "login.example.com"}, "is not a plain URL"),
        ({"issuer": "https://user:pass@login.example.com"}, "is not a plain URL"),
        ({"issuer": "https://login.example.com#x"}, "is not a plain URL"),
        ({"issuer": "https://login.example.com?x=1"}, "has a query"),
        ({"issuer": "ftp://localhost"}, "is not https"),
        ({"issuer": "http://localhost.evil.example"}, "is not https"),
        ({"issuer": "https://[::1"}, "is no URL"),
        ({"jwks_url": "http://login.example.com/keys"}, "is not https"),
        ({"role_claim": "roles"}, "go together"),
        ({"admin_values": ["admin"]}, "go together"),
    ],
)
def test_an_issuer_that_cannot_be_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        a_policy(**changes)


@pytest.mark.parametrize(
    "url", ["http://localhost:9", "http://127.0.0.1:9", "http://[::1]:9", "https://x.example/a/"]
)
def test_on_this_machine_http_will_do(url: str) -> None:
    assert a_policy(issuer=url).issuer == url
