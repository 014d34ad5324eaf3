"""docs/oidc.md names every field and every reason, and its example holds."""

import re
from pathlib import Path

from gateway.hooks import read_policy
from gateway.oidc import IssuerPolicy
from tests.gateway.oidc.test_hostile_tokens import FORGED

TEXT = (Path(__file__).parents[3] / "docs" / "oidc.md").read_text()


def test_every_field_of_an_issuer_is_documented_and_no_other() -> None:
    table = TEXT.partition("| key | what it means")[2].partition("\n\n")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == list(IssuerPolicy.__struct_fields__)


def test_every_reason_of_a_refusal_is_documented() -> None:
    table = TEXT.partition("| reason | what to look at")[2]

    assert {reason for _, reason in FORGED.values()} <= set(re.findall(r"`(\w+)`", table))


def test_the_example_is_a_policy_that_loads(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n# gateway\.toml\n(.*?)```", TEXT, re.S)
    (tmp_path / "gateway.toml").write_text(example)
    (tmp_path / "teams.toml").write_text("[search]\n[apps]\n")
    for noun in ("engines", "models", "limits"):
        (tmp_path / f"{noun}.toml").write_text("")

    table = read_policy(tmp_path).tables["oidc"]

    assert table.issuers["corp"].teams == {"ml-research": "search", "everyone": "apps"}
