"""Ollama's official Node client; the checks are in node/ollama_suite.mjs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sdk.ollama_places import PLACES

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def installed() -> None:
    """`make test` installs the client; this is for a test run by hand."""
    assert shutil.which("node"), "install Node 20 or newer (`apt-get install nodejs npm`)"
    if not (NODE / "node_modules" / "ollama").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, timeout=300)


@pytest.mark.timeout(360)
@pytest.mark.parametrize("kind", PLACES)
def test_the_node_client_does_what_the_python_client_does(
    installed: None, kind: str, tmp_path: Path
) -> None:
    with PLACES[kind](tmp_path) as place:
        settings = {
            "HOST": place.host,
            "MODEL": place.model,
            "REGISTRY": place.registry,
        }

        done = subprocess.run(
            ["node", "ollama_suite.mjs"],
            cwd=NODE,
            env={"PATH": os.environ["PATH"], **settings},
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok ") == done.stdout.count("\n") - 1
