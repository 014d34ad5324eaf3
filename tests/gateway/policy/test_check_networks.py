"""What a policy may say of networks, and of the teams that tokens are mapped to."""

from pathlib import Path

import pytest

from gateway.hooks import read_policy
from gateway.policy import PolicyInvalid
from gateway.policy.explain import explain
from tests.gateway.policy.directories import load, problems_of, write

OIDC = """
plugins = ["oidc", "allow_lists", "routing"]
[oidc.issuers.corp]
issuer    = "https://login.example.com/"
audiences = ["penstock"]
"""


def teams(networks: str) -> str:
    return f'[search]\nmodels = ["*"]\nendpoints = ["*"]\nnetworks = {networks}\n'


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        ('["10.0.0.7/8"]', 'networks[0]: "10.0.0.7/8" has bits set outside its mask; write 10.0'),
        ('["*", "!example.com"]', 'networks[1]: "!example.com" is not a network'),
        ('["!10.0.0.0/8"]', "networks: only denies, so no address is allowed"),
        ("[]", "networks: an empty list is not a list with something in it"),
        ('"10.0.0.0/8"', 'networks: "10.0.0.0/8" is not a list'),
    ],
)
def test_a_network_that_cannot_be_is_told_with_its_place(
    tmp_path: Path, networks: str, said: str
) -> None:
    [problem] = problems_of(write(tmp_path, teams=teams(networks), limits=""))

    assert problem.startswith(f"teams.toml: [search] {said}")


def test_networks_are_told_of_in_an_explanation(tmp_path: Path) -> None:
    policy = load(write(tmp_path, teams=teams('["10.0.0.0/8"]'), limits=""))

    told = explain(policy, team="search", endpoint="openai.models", model=None)

    assert told[-1].text == 'only from an address in "10.0.0.0/8"'


def test_that_an_admin_endpoint_wants_a_role_is_told_in_an_explanation(tmp_path: Path) -> None:
    policy = load(write(tmp_path, teams=teams('["*"]'), limits=""))

    told = explain(policy, team="search", endpoint="admin.models", model=None)

    assert told[-1].text == 'only with the role admin, like every "admin.*"'


def oidc_problems(tmp_path: Path, gateway: str) -> list[str]:
    directory = write(tmp_path, gateway=gateway, engines="", models="", limits="", teams="[apps]\n")
    try:
        read_policy(directory)
    except PolicyInvalid as error:
        return list(error.problems)
    return []


def test_an_issuer_is_a_table_of_its_own(tmp_path: Path) -> None:
    assert oidc_problems(tmp_path, OIDC) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            '[oidc.issuers.corp.teams]\n"cn=all" = "aps"',
            '[oidc] issuers.corp.teams."cn=all": "aps" is not in teams.toml',
        ),
        ('algorithms = ["none"]', '[oidc] issuers.corp.algorithms[0]: "none" is not one of'),
        ('algorithms = ["HS256"]', '[oidc] issuers.corp.algorithms[0]: "HS256" is not one of'),
        ("audience = []", '[oidc] issuers.corp: unknown key "audience" (did you mean "audiences"'),
        ('role_claim = "roles"', "[oidc] issuers.corp: role_claim and admin_values go together"),
        (
            '[oidc.issuers.two]\nissuer = "https://login.example.com/"\naudiences = ["x"]',
            "[oidc]: two issuers have the same `issuer`",
        ),
        (
            '[oidc.issuers.two]\nissuer = "http://login.example.com/"\naudiences = ["x"]',
            "[oidc] issuers.two: issuer 'http://login.example.com/' is not https",
        ),
    ],
)
def test_an_issuer_that_cannot_be_is_told_with_its_place(
    tmp_path: Path, more: str, said: str
) -> None:
    [problem] = oidc_problems(tmp_path, f"{OIDC}\n{more}")

    assert problem.startswith(f"gateway.toml: {said}")


def test_the_plugin_without_an_issuer_is_told_what_it_needs(tmp_path: Path) -> None:
    problems = oidc_problems(tmp_path, 'plugins = ["oidc", "routing"]')
    assert 'gateway.toml: [oidc]: this table is missing: the plugin needs "issuers"' in problems

    problems = oidc_problems(tmp_path, 'plugins = ["oidc", "routing"]\n[oidc]\nissuers = {}')
    assert problems == ["gateway.toml: [oidc]: no issuer: add a table [oidc.issuers.NAME]"]
