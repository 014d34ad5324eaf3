"""Commands where no gateway runs: each starts one for itself, and the models stay."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docker_registry import DockerRegistry, docker_registry
from tests.gateway.cli.typing_user import typing_user

Ran = subprocess.CompletedProcess[str]
Machine = Callable[..., Ran]

PORT_OF_NOBODY = "9"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PENSTOCK_", "OLLAMA_")) and not name.endswith("_API_KEY")
    }
    data_dir = tmp_path_factory.mktemp("fresh")
    return {**ours, "PENSTOCK_DATA_DIR": str(data_dir), "PENSTOCK_PORT": PORT_OF_NOBODY}


@pytest.fixture(scope="module")
def machine(environment: dict[str, str]) -> Machine:
    """Types one command on a machine where nothing runs."""

    def typed(*words: str, stdin: str | None = None) -> Ran:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words],
            stdin=subprocess.DEVNULL if stdin is None else None, input=stdin,
            capture_output=True, text=True, timeout=50, env=environment, check=False,
        )  # fmt: skip

    return typed


@pytest.fixture(scope="module")
def registry() -> Iterator[DockerRegistry]:
    with docker_registry() as running:
        yield running


@pytest.mark.timeout(180)  # five processes that each import a gateway
def test_a_model_goes_to_a_registry_and_comes_back_when_it_is_run(
    machine: Machine, registry: DockerRegistry
) -> None:
    name = f"{registry.host}/team/mine"
    modelfile = "FROM starter\nPARAMETER temperature 0\nSYSTEM You are Penstock."

    made = machine("create", "mine", "-f", "-", stdin=modelfile)
    copied = machine("cp", "mine", name)
    pushed = machine("push", name)
    removed = machine("rm", "mine", name)
    answered = machine("run", name, "What is Penstock?")

    assert (made.returncode, copied.returncode, removed.returncode) == (0, 0, 0), made.stderr
    assert pushed.returncode == 0, pushed.stderr
    assert "gateway" in answered.stdout, answered.stderr
    assert "pulling manifest" in answered.stderr  # it was not there any more


def test_what_the_gateway_logs_is_kept_out_of_the_way(
    machine: Machine, environment: dict[str, str]
) -> None:
    result = machine("pull", "no/name/of/a/model/at/all")

    assert result.returncode == 1
    assert "no/name/of/a/model/at/all" in result.stderr
    assert "call_finished" not in result.stderr
    assert "call_finished" in (Path(environment["PENSTOCK_DATA_DIR"]) / "command.log").read_text()


@pytest.mark.parametrize("words", [["ps"], ["stop", "starter"]])
def test_what_concerns_a_running_gateway_starts_none(machine: Machine, words: list[str]) -> None:
    result = machine(*words)

    assert result.returncode == 1
    assert "no gateway answers at http://127.0.0.1:9" in result.stderr


def test_ollamas_host_on_another_machine_is_never_replaced(
    machine: Machine, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(environment, "PENSTOCK_PORT")
    monkeypatch.setitem(environment, "OLLAMA_HOST", "http://no-such-host.invalid:9")

    result = machine("list")

    assert result.returncode == 1
    assert "no gateway answers at http://no-such-host.invalid:9" in result.stderr


@pytest.mark.timeout(180)
def test_a_conversation_with_a_real_model(environment: dict[str, str]) -> None:
    with typing_user("run", "starter", environment=environment) as user:
        user.sees(">>> ")
        for line, shown in (
            ("/set parameter temperature 0", "temperature is 0"),
            ("What is Penstock?", "gateway"),
            ("/save taught", "saved as taught"),
            ("/show info", "llama"),
        ):
            user.types(line)
            user.sees(shown)
            user.sees(">>> ")
        user.types("/load taught")
        # What was said so far is shown again, with a prompt that is none: a Ctrl-D at that
        # would come before anything reads it.
        for shown in ("this is taught", ">>> What is Penstock?", "gateway", ">>> "):
            user.sees(shown)
        assert user.leaves() == 0
