import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.app import open_gateway
from gateway.cli.ollama_log import log_ollama_variables
from gateway.ollama_variables import OF_THE_COMMAND_LINE, TWIN_SETTINGS, WITHOUT_TWIN
from gateway.settings import read_settings, shipped_policy

Said = Callable[[dict[str, str]], dict[str, str]]
PAGE = Path(__file__).parents[3] / "docs" / "from-ollama.md"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_policy("dev"), tmp_path / "policy"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, policy: Path) -> Said:
    """Variable -> what a gateway with this environment logs of it."""

    def of(environ: dict[str, str]) -> dict[str, str]:
        whole = {
            "PENSTOCK_DATA_DIR": str(tmp_path / "data"), "PENSTOCK_POLICY": str(policy), **environ,
        }  # fmt: skip
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        settings = read_settings(whole)
        with capture_logs() as logs:
            log_ollama_variables(settings, open_gateway(settings), whole)
        return {
            entry["variable"]: f"{entry['event'].removeprefix('ollama_variable_')}: "
            f"{entry.get('twin') or entry.get('reason')}"
            for entry in logs
        }

    return of


def test_each_variable_is_told_once_with_its_twin(said: Said) -> None:
    assert said({"OLLAMA_HOST": "0.0.0.0", "OLLAMA_NUM_PARALLEL": "4", "OLLAMA_DEBUG": "1"}) == {
        "OLLAMA_HOST": "taken: PENSTOCK_HOST and PENSTOCK_PORT",
        "OLLAMA_NUM_PARALLEL": "taken: engines.toml [laptop] num_slots",
        "OLLAMA_DEBUG": "taken: PENSTOCK_LOG_LEVEL",
    }


def test_what_has_a_value_of_its_own_outranks_the_variable(said: Said, policy: Path) -> None:
    (policy / "engines.toml").write_text('[laptop]\nkind = "gguf"\nnum_slots = 2\n')

    assert said(
        {"OLLAMA_HOST": "0.0.0.0", "PENSTOCK_PORT": "9000", "OLLAMA_NUM_PARALLEL": "4"}
    ) == {
        "OLLAMA_HOST": "outranked: PENSTOCK_HOST and PENSTOCK_PORT",
        "OLLAMA_NUM_PARALLEL": "outranked: engines.toml [laptop] num_slots",
    }


def test_what_has_no_twin_is_told_with_the_reason(said: Said) -> None:
    found = said({"OLLAMA_NOPRUNE": "1", "OLLAMA_WHATEVER": "1", "OLLAMA_NUM_PARALLEL": "x"})

    assert "nothing is pruned" in found["OLLAMA_NOPRUNE"]
    assert "nothing here knows it" in found["OLLAMA_WHATEVER"]
    assert "no value that can be used" in found["OLLAMA_NUM_PARALLEL"]


def test_what_concerns_only_a_conversation_is_not_told(said: Said) -> None:
    assert said({"OLLAMA_NOHISTORY": "1"}) == {}


def test_the_docs_have_every_variable() -> None:
    from engines.gguf.environment import TWINS

    page = PAGE.read_text()
    known = {*TWIN_SETTINGS, *WITHOUT_TWIN, *OF_THE_COMMAND_LINE, *TWINS}

    assert [name for name in sorted(known) if f"`{name}`" not in page] == []
