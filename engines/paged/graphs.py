"""Steps of answers alone, recorded once and replayed: CUDA graphs.

Such a step has one token in each row, so its shape is its number of rows, padded
up to a bucket. Launching its few hundred kernels one by one takes the host
longer than a small model's step takes the device; a replay is one launch.

A bucket is recorded when it comes for the second time: the first, run plainly,
compiles what is not compiled yet. So nothing is recorded that is not used, and
start-up does not wait for it. All graphs share one pool of memory.
"""

from typing import Any, NamedTuple, Protocol

import structlog
import torch
from torch import Tensor

from engines.paged.batch import StepBuffers, StepTensors

log = structlog.get_logger()

_SMALL = (1, 2, 4)
_STEP = 8


class Computing(Protocol):
    """What is recorded: runner.py's forward pass and plain sampling."""

    def states(self, tensors: StepTensors) -> Tensor:
        """What the model makes of each token."""
        ...

    def drawn(self, tensors: StepTensors, hidden: Tensor) -> Tensor:
        """The tokens sampled from it."""
        ...


class Replayed(NamedTuple):
    """A graph's outputs; the next replay overwrites them."""

    hidden: Tensor
    tokens: Tensor | None


class _Recorded(NamedTuple):
    graph: "torch.cuda.CUDAGraph"
    hidden: Tensor
    tokens: Tensor | None


class Graphs:
    """The recorded steps of one runner; used on the step thread."""

    def __init__(self, computing: Computing, max_rows: int) -> None:
        self._computing = computing
        self._buckets = buckets(max_rows)
        self._seen: set[tuple[int, bool]] = set()
        self._recorded: dict[tuple[int, bool], _Recorded | None] = {}
        self._pool: Any = None

    def bucket(self, num_rows: int) -> int:
        """How many rows a step of `num_rows` is padded to."""
        return next(size for size in self._buckets if size >= num_rows)

    def replay(self, buffers: StepBuffers, bucket: int, *, samples: bool) -> Replayed | None:
        """Run the step that `buffers` holds, sampling too if all its rows are plain.

        None if it is not recorded, or cannot be: then it is to be run plainly.
        """
        key = (bucket, samples)
        if key not in self._recorded:
            if key not in self._seen:
                self._seen.add(key)
                return None
            self._recorded[key] = self._record(buffers, bucket, samples=samples)
        recorded = self._recorded[key]
        if recorded is None:
            return None
        recorded.graph.replay()
        return Replayed(recorded.hidden, recorded.tokens)

    def _record(self, buffers: StepBuffers, bucket: int, *, samples: bool) -> _Recorded | None:
        tensors = buffers.fixed(bucket)
        graph = torch.cuda.CUDAGraph()
        try:
            # The rows' keys are written where the plain step would write them, so a
            # recording, which computes nothing, is followed by a replay.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                hidden = self._computing.states(tensors)
                tokens = self._computing.drawn(tensors, hidden) if samples else None
        except torch.cuda.OutOfMemoryError:
            log.warning("graph_skipped", rows=bucket, reason="out of memory")
            return None
        self._pool = self._pool or graph.pool()
        log.debug("graph_recorded", rows=bucket, samples=samples)
        return _Recorded(graph, hidden, tokens)


def buckets(max_rows: int) -> list[int]:
    """The numbers of rows that are recorded: 1, 2, 4, then every eighth."""
    sizes = [size for size in _SMALL if size < max_rows]
    sizes += range(_STEP, max_rows, _STEP)
    return [*sizes, max_rows]
