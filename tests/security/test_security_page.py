"""docs/security.md names tests that exist, and every test of this folder is on it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAGE)))


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_the_page_names_is_there(named: str) -> None:
    path, _, name = named.partition("::")

    assert (ROOT / path).is_file()
    if name:
        tree = ast.parse((ROOT / path).read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, functions)}


def test_every_file_of_attacks_is_on_the_page() -> None:
    here = {f"tests/security/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}

    assert here - {f"tests/security/{Path(__file__).name}"} <= {n.partition("::")[0] for n in NAMED}


def test_every_hole_that_a_test_is_named_after_is_on_the_page() -> None:
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = {
        f"CVE-{year}-{number}" for year, number in re.findall(r"def test_cve_(\d+)_(\d+)_", tests)
    }
    named |= {
        "GHSA-" + found.replace("_", "-")
        for found in re.findall(r"def test_ghsa_(\w{4}_\w{4}_\w{4})_", tests)
    }

    assert named
    assert {name for name in named if name not in PAGE} == set()
