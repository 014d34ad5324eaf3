"""What a fresh machine installs is decided here, version by version."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def constraints() -> dict[str, str]:
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(requirement.specifier)) for requirement in pinned)
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in pinned
    }


def test_every_package_that_make_installs_has_one_version_that_fits() -> None:
    asked_for = [
        *PYPROJECT["project"]["dependencies"],
        *PYPROJECT["dependency-groups"]["test"],
        *PYPROJECT["build-system"]["requires"],
    ]
    pinned = constraints()

    for requirement in map(Requirement, asked_for):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in .ci/constraints.txt"
        assert version in requirement.specifier, str(requirement)


def test_every_install_in_the_makefile_is_constrained() -> None:
    makefile = (ROOT / "Makefile").read_text()

    installs = re.findall(r"^.*\binstall .*$", makefile, re.M)
    commands = [line for line in installs if "pip" in line.lower() and "echo" not in line]

    assert commands
    assert [line for line in commands if "$(CONSTRAINTS)" not in line] == []


def test_the_node_client_is_locked_with_a_digest() -> None:
    folder = ROOT / "tests" / "sdk" / "node"
    asked_for = json.loads((folder / "package.json").read_text())["dependencies"]
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]

    for name, version in asked_for.items():
        locked = packages[f"node_modules/{name}"]
        assert locked["version"] == version
        assert locked["integrity"].startswith("sha512-")


def test_ci_runs_the_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"

    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"
    assert "make test" in (ROOT / "README.md").read_text()


def test_make_help_names_every_target_that_the_readme_needs() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout

    for target in ("help", "serve", "test", "check", "clean"):
        assert f"make {target} " in told
