import os
import signal
import sys
from pathlib import Path

import pytest

from engines.errors import Unavailable
from engines.gguf import probe as probing
from engines.gguf.probe import Probe, identity
from tests.gguf_files import write_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("models") / "random.gguf")


def children(monkeypatch: pytest.MonkeyPatch, *outcomes: str) -> list[bool]:
    """Let children end like this, one after another; returns what each was asked to use."""
    asked: list[bool] = []
    left = list(outcomes)

    async def child(path: Path, *, use_extra_buffers: bool, **others: object) -> str:
        asked.append(use_extra_buffers)
        return left.pop(0)

    monkeypatch.setattr(probing, "_child", child)
    return asked


CRASHED = "a child process that tried was ended by SIGSEGV"


async def test_a_good_file_is_stepped_in_a_child_and_remembered(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "cache" / "probes.json"

    assert await Probe(memory)(model, use_extra_buffers=None) is True

    asked = children(monkeypatch)
    assert await Probe(memory)(model, use_extra_buffers=None) is True
    assert asked == []


async def test_a_file_that_is_no_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))

    with pytest.raises(Unavailable, match=r"broken\.gguf cannot be loaded"):
        await Probe(None)(path, use_extra_buffers=None)


async def test_a_child_that_dies_by_a_signal_is_named_and_the_parent_lives(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killer = tmp_path / "python"
    killer.write_text(f"#!/bin/sh\nkill -{signal.SIGSEGV.value} $$\n")
    killer.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killer))

    with pytest.raises(Unavailable, match="ended by SIGSEGV"):
        await Probe(None)(model, use_extra_buffers=None)


async def test_a_crash_with_repacked_weights_is_tried_without(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = children(monkeypatch, CRASHED, "")
    memory = tmp_path / "probes.json"

    assert await Probe(memory)(model, use_extra_buffers=None) is False

    assert asked == [True, False]
    assert await Probe(memory)(model, use_extra_buffers=None) is False
    assert asked == [True, False]


async def test_a_file_that_kills_twice_is_refused_for_good(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = children(monkeypatch, CRASHED, CRASHED)
    probe = Probe(tmp_path / "probes.json")

    for _ in range(2):
        with pytest.raises(Unavailable, match="SIGSEGV"):
            await probe(model, use_extra_buffers=None)

    assert asked == [True, False]


async def test_bad_luck_is_not_remembered(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = children(monkeypatch, "it was not ready after 60 seconds", "")
    probe = Probe(tmp_path / "probes.json")

    with pytest.raises(Unavailable, match="60 seconds"):
        await probe(model, use_extra_buffers=None)

    assert await probe(model, use_extra_buffers=None) is True
    assert asked == [True, True]


async def test_a_file_that_was_written_to_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    before = identity(path, use_extra_buffers=None)

    os.utime(path, ns=(1, 1))

    assert identity(path, use_extra_buffers=None) != before


async def test_the_child_sees_none_of_the_gateways_secrets(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = tmp_path / "environment"
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nenv > {seen}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setenv("OVERFLOW_API_KEY", "secret-of-the-gateway")

    await Probe(None)(model, use_extra_buffers=None)

    assert "secret-of-the-gateway" not in seen.read_text()


async def test_a_spoilt_memory_is_ignored(model: Path, tmp_path: Path) -> None:
    memory = tmp_path / "probes.json"
    memory.write_text("{not json")

    assert await Probe(memory)(model, use_extra_buffers=True) is True
