"""Records CUDA graphs, on a stream of its own.

Not torch's: that is one for the process, and belongs to the GPU that asked first.
"""

from collections.abc import Callable
from typing import Any

import torch

from engines.paged.gpus import WHOLE
from engines.paged.graphs import Computed


class CudaRecorder:
    """The recordings of one runner, which share one pool of memory; used on the step thread."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None
        self._broken: torch.cuda.CUDAGraph | None = None

    def run(self, compute: Callable[[], Computed]) -> Computed:
        """Launch it on the stream of recordings, in line with the current stream.

        So the libraries' memory for that stream is there before a recording. What is
        returned may be used on the current stream: its memory goes to nobody else
        before this stream has waited for that one again.
        """
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                return compute()
        finally:
            # If it failed halfway, too: what it launched writes to blocks that others will have.
            current.wait_stream(self._stream)

    def record(self, compute: Callable[[], Computed]) -> Callable[[], Computed] | None:
        """Record it. None after a recording that the device itself broke off."""
        if self._broken is not None:
            return None
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer of the two streams: where ending fails, torch stays on the inner one.
            with WHOLE, torch.cuda.stream(self._stream), self._recording(graph):
                computed = compute()
        except BaseException:
            if not _has_ended(graph):
                # torch's allocator still asks this one whether it records; let it live for that,
                # and make no other beside it.
                self._broken = graph
            raise
        self._pool = self._pool or graph.pool()

        def replay() -> Computed:
            graph.replay()
            return computed

        return replay

    def _recording(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
        return torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )


def _has_ended(graph: torch.cuda.CUDAGraph) -> bool:
    """Whether its recording was ended as it should be, complete or not."""
    try:
        graph.pool()
    except RuntimeError:
        return False
    return True
