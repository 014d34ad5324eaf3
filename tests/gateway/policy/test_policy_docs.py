"""docs/policy.md is the reference, so it says everything and its examples hold."""

import re
from pathlib import Path

import pytest
from msgspec import Struct

from gateway.hooks import installed_plugins, read_policy, table_of
from gateway.policy import (
    BreakerPolicy,
    CanaryPolicy,
    FallbackPolicy,
    HedgePolicy,
    LimitPolicy,
    MirrorPolicy,
    ModelPolicy,
    PricePolicy,
    RetryPolicy,
    SamplingDefaults,
    TargetPolicy,
    TeamPolicy,
)
from gateway.policy.files import FILES
from gateway.policy.schema import FALLBACK_CODES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "policy.md").read_text()
SECTIONS = dict(
    zip(*[iter(re.split(r"^## (\w+)$", TEXT, flags=re.MULTILINE)[1:])] * 2, strict=True)
)


def _documented(section: str) -> set[str]:
    """The words in the first two columns of a section's tables."""
    rows = re.findall(r"^\| `([^`]+)` \|(?: `([^`]+)` \|)?", SECTIONS[section], re.MULTILINE)
    return {cell for row in rows for cell in row}


def test_there_is_a_section_for_each_file():
    assert [f"{section}.toml" for section in SECTIONS] == list(FILES)


@pytest.mark.parametrize(
    ("section", "table"),
    [
        ("models", ModelPolicy),
        ("models", TargetPolicy),
        ("models", FallbackPolicy),
        ("models", CanaryPolicy),
        ("models", RetryPolicy),
        ("models", BreakerPolicy),
        ("models", HedgePolicy),
        ("models", MirrorPolicy),
        ("models", SamplingDefaults),
        ("teams", TeamPolicy),
        ("limits", LimitPolicy),
        ("prices", PricePolicy),
    ],
)
def test_every_field_is_documented(section: str, table: type[Struct]):
    assert set(table.__struct_fields__) - {"name"} <= _documented(section)


def test_every_plugin_table_is_documented():
    for plugin in installed_plugins():
        table = table_of(installed_plugins()[plugin])
        for field in table.__struct_fields__ if table is not None else ():
            assert f"| `[{plugin}]` | `{field}` |" in SECTIONS["gateway"]


def test_every_word_of_the_reference_is_a_field():
    known = {"plugins", "kind", "", *(f"[{plugin}]" for plugin in installed_plugins())}
    for table in (ModelPolicy, TargetPolicy, FallbackPolicy, SamplingDefaults, TeamPolicy):
        known |= set(table.__struct_fields__)
    for table in (CanaryPolicy, RetryPolicy, BreakerPolicy, HedgePolicy, MirrorPolicy):
        known |= set(table.__struct_fields__)
    known |= {*LimitPolicy.__struct_fields__, *PricePolicy.__struct_fields__}
    for plugin in installed_plugins().values():
        table = table_of(plugin)
        known |= set(table.__struct_fields__ if table is not None else ())

    assert {word for section in SECTIONS for word in _documented(section)} <= known


def test_every_error_that_a_fallback_can_wait_for_is_documented():
    assert ", ".join(f"`{code}`" for code in FALLBACK_CODES) in SECTIONS["models"]


def test_the_examples_are_one_policy_that_loads(tmp_path):
    examples = re.findall(r"```toml\n# (\w+\.toml)\n(.*?)```", TEXT, re.DOTALL)
    for name, content in examples:
        (tmp_path / name).write_text(content)

    policy = read_policy(tmp_path)

    assert sorted(name for name, _ in examples) == sorted(FILES)
    assert list(policy.teams) == ["search", "platform"]


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_policies_that_ship_load(name):
    policy = read_policy(ROOT / "policies" / name)

    assert policy.resolve("starter") is not None
    assert policy.resolve("gpt-4o-mini").name == "starter"


def test_the_policies_that_ship_have_the_same_files_and_public_names():
    dev, prod = (read_policy(ROOT / "policies" / name) for name in ("dev", "prod"))

    for directory in (dev.directory, prod.directory):
        assert {path.name for path in directory.iterdir()} == set(FILES)
    assert dev.models.keys() == prod.models.keys()
    assert dev.aliases == prod.aliases


def test_production_lets_nobody_in_without_a_key():
    assert "api_keys" in read_policy(ROOT / "policies" / "prod").plugins
    assert "anonymous" not in read_policy(ROOT / "policies" / "prod").plugins


@pytest.mark.parametrize(
    ("file", "content"),
    re.findall(
        r"```toml\n# (\w+\.toml)\n(.*?)```", (ROOT / "docs" / "limits.md").read_text(), re.S
    ),
)
def test_the_examples_of_the_limits_page_load(tmp_path, file, content):
    for path in (ROOT / "policies" / "prod").iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    if file == "limits.toml" and "[bulk]" not in content:
        content += "\n[bulk]\n[unlimited]\n"
    (tmp_path / file).write_text(content)

    read_policy(tmp_path)
