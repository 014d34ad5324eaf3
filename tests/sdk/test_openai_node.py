"""The official Node client against a served gateway; the checks are in node/suite.mjs."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sdk.conftest import Place

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def installed() -> None:
    """`make test` installs the client; this is for a test run by hand."""
    assert shutil.which("node"), "install Node 20 or newer (`apt-get install nodejs npm`)"
    if not (NODE / "node_modules" / "openai").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True, timeout=300)


@pytest.mark.timeout(360)
def test_the_node_client_does_what_the_python_client_does(installed: None, place: Place) -> None:
    settings = {
        "BASE_URL": place.base_url,
        "MODEL": place.model,
        "ALIAS": place.alias,
        "API_KEY": place.api_key,
        "BAD_KEY": place.bad_key,
    }

    done = subprocess.run(
        ["node", "suite.mjs"],
        cwd=NODE,
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok ") == done.stdout.count("\n") - 1
