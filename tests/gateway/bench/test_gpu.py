from pathlib import Path

import pytest

from gateway.bench.gpu import gpu_name, machine_here


def install(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a driver's tool into an otherwise empty path."""
    if script:
        tool = folder / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_the_first_gpu_is_known_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "echo 'NVIDIA H200'; echo 'NVIDIA L4'", monkeypatch)

    assert gpu_name() == "NVIDIA H200"
    machine = machine_here()
    assert machine is not None
    assert machine.bytes_per_second == 4.8e12


@pytest.mark.parametrize("script", ["", "exit 9", "echo"])
def test_without_a_gpu_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    install(tmp_path, script, monkeypatch)

    assert gpu_name() is None
    assert machine_here() is None


def test_a_gpu_that_is_not_in_the_table_has_no_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "echo 'NVIDIA Abacus 9'", monkeypatch)

    assert gpu_name() == "NVIDIA Abacus 9"
    assert machine_here() is None
