"""How graphs are recorded on a GPU, on one that only notes what is asked of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from engines.paged.cuda_recorder import CudaRecorder
from engines.paged.gpus import WHOLE
from engines.paged.graphs import Computed

GPU = torch.device("cuda:1")
MAIN = "main stream"


class FakeStream:
    def __init__(self, gpu: "FakeGpu", device: torch.device) -> None:
        self.gpu, self.device = gpu, device

    def wait_stream(self, other: Any) -> None:
        assert other == MAIN
        self.gpu.events.append("recording's stream waits")


class MainStream(str):
    __slots__ = ("events",)
    events: list[str]

    def wait_stream(self, other: FakeStream) -> None:
        self.events.append("main stream waits")


class FakeGraph:
    """A `torch.cuda.CUDAGraph`: has a pool once its recording has ended well."""

    def __init__(self) -> None:
        self.has_ended = False
        self.num_replays = 0

    def pool(self) -> str:
        if not self.has_ended:
            raise RuntimeError("called pool() without a preceding successful capture")
        return "pool"

    def replay(self) -> None:
        self.num_replays += 1


class FakeGpu:
    """What of `torch.cuda` a recorder uses, with its ways, as torch 2.7 to 2.13 have them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.main = MainStream(MAIN)
        self.main.events = self.events
        self.stream: Any = self.main
        self.graphs: list[FakeGraph] = []
        self.pools: list[Any] = []
        self.modes: list[str] = []
        self.is_broken_off = False

    def current_stream(self, device: torch.device) -> Any:
        assert device == GPU
        return self.stream

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    def new_graph(self) -> FakeGraph:
        self.graphs.append(FakeGraph())
        return self.graphs[-1]

    @contextmanager
    def recording(
        self, graph: FakeGraph, *, pool: Any, stream: FakeStream, capture_error_mode: str
    ) -> Iterator[None]:
        assert WHOLE.locked()
        self.pools.append(pool)
        self.modes.append(capture_error_mode)
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            if self.is_broken_off:
                raise RuntimeError("CUDA error: invalidated")  # and the stream is left as it is
            graph.has_ended = True
            self.stream = before


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(gpu, device))
    monkeypatch.setattr(torch.cuda, "current_stream", gpu.current_stream)
    monkeypatch.setattr(torch.cuda, "stream", gpu.on)
    monkeypatch.setattr(torch.cuda, "graph", gpu.recording)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", gpu.new_graph)
    return gpu


def computed() -> Computed:
    return Computed(torch.zeros(1), None)


def test_a_step_is_run_on_the_recorder_s_own_stream_in_its_turn(gpu: FakeGpu) -> None:
    recorder, streams = CudaRecorder(GPU), []

    def compute() -> Computed:
        gpu.events.append("compute")
        streams.append(gpu.stream)
        return computed()

    recorder.run(compute)
    recorder.record(compute)

    assert gpu.events == ["recording's stream waits", "compute", "main stream waits", "compute"]
    assert streams[0] is streams[1]
    assert streams[0].device == GPU
    assert CudaRecorder(GPU)._stream is not streams[0]
    assert gpu.stream is gpu.main
    assert gpu.modes == ["thread_local"]


def test_what_failed_halfway_is_waited_for_all_the_same(gpu: FakeGpu) -> None:
    def fails() -> Computed:
        raise torch.cuda.OutOfMemoryError("no memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        CudaRecorder(GPU).run(fails)

    assert gpu.events[-1] == "main stream waits"
    assert gpu.stream is gpu.main


def test_recordings_share_a_pool_and_a_replay_leaves_its_results_in_place(gpu: FakeGpu) -> None:
    recorder, results = CudaRecorder(GPU), computed()

    first = recorder.record(lambda: results)
    recorder.record(computed)

    assert first is not None
    assert first() is results
    assert gpu.graphs[0].num_replays == 1
    assert gpu.pools == [None, "pool"]


def test_what_goes_wrong_in_a_recording_concerns_that_one(gpu: FakeGpu) -> None:
    recorder = CudaRecorder(GPU)

    def fails() -> Computed:
        raise torch.cuda.OutOfMemoryError("no memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        recorder.record(fails)

    assert gpu.stream is gpu.main
    assert not WHOLE.locked()
    assert recorder.record(computed) is not None


def test_after_a_recording_that_the_device_broke_off_there_is_no_other(gpu: FakeGpu) -> None:
    recorder = CudaRecorder(GPU)
    early = recorder.record(computed)
    gpu.is_broken_off = True

    with pytest.raises(RuntimeError, match="invalidated"):
        recorder.record(computed)
    gpu.is_broken_off = False

    assert gpu.stream is gpu.main
    assert not WHOLE.locked()
    assert recorder.record(computed) is None
    assert len(gpu.graphs) == 2
    assert early is not None
    assert early().tokens is None  # what was recorded before is good
