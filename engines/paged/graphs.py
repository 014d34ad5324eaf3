"""Steps of answers alone, recorded once and replayed: CUDA graphs.

Such a step has one token in each row, so its shape is its number of rows, padded
up to a bucket. Launching its few hundred kernels one by one takes the host
longer than a small model's step takes the device; a replay is one launch.

A bucket is recorded when it comes for the second time, so that nothing is recorded
that is not used, and start-up does not wait for it. That step is computed first,
from the very tensors and on the very stream that are recorded next: a kernel may be
compiled for a stride or a number of splits that only a recording has, and while
one is made nothing can be compiled, loaded or allocated by a library.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import structlog
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


class Computed(NamedTuple):
    """A step's outputs; the next replay of its bucket overwrites them."""

    hidden: Tensor
    tokens: Tensor | None


class Recorder(Protocol):
    """The device's way to record; cuda_recorder.py has the real one."""

    def run(self, compute: Callable[[], Computed], /) -> Computed:
        """Launch it where recordings are made, after all that was launched before."""
        ...

    def record(self, compute: Callable[[], Computed], /) -> Callable[[], Computed] | None:
        """Record it, which computes nothing; call what is returned to replay it.

        None where nothing can be recorded any more. Raises whatever goes wrong.
        """
        ...


class Graphs:
    """The recorded steps of one runner; used on the step thread."""

    def __init__(self, computing: Computing, max_rows: int, recorder: Recorder) -> None:
        self._computing = computing
        self._buckets = buckets(max_rows)
        self._recorder = recorder
        self._seen: set[tuple[int, bool]] = set()
        self._recorded: dict[tuple[int, bool], Callable[[], Computed] | None] = {}

    def bucket(self, num_rows: int) -> int:
        """How many rows a step of `num_rows` is padded to."""
        return next(size for size in self._buckets if size >= num_rows)

    def run(self, buffers: StepBuffers, bucket: int, *, samples: bool) -> Computed | None:
        """Run the step that `buffers` holds, sampling too if all its rows are plain.

        None if it is not recorded, or cannot be: then it is to be run plainly.
        """
        key = (bucket, samples)
        if key not in self._seen:
            self._seen.add(key)
            return None
        if key not in self._recorded:
            return self._run_and_record(buffers, bucket, samples=samples)
        replay = self._recorded[key]
        return None if replay is None else replay()

    def _run_and_record(self, buffers: StepBuffers, bucket: int, *, samples: bool) -> Computed:
        tensors = buffers.fixed(bucket)

        def compute() -> Computed:
            hidden = self._computing.states(tensors)
            return Computed(hidden, self._computing.drawn(tensors, hidden) if samples else None)

        computed = self._recorder.run(compute)
        replay = None
        try:
            replay = self._recorder.record(compute)
            log.debug("graph_recorded", rows=bucket, samples=samples)
        # Whatever it is, this step is computed, and the next can be run plainly.
        except Exception as error:  # noqa: BLE001
            reason = str(error).partition("\n")[0] or type(error).__name__
            log.warning("graph_skipped", rows=bucket, samples=samples, reason=reason)
        self._recorded[bucket, samples] = replay
        return computed


def buckets(max_rows: int) -> list[int]:
    """The numbers of rows that are recorded: 1, 2, 4, then every eighth."""
    sizes = [size for size in _SMALL if size < max_rows]
    sizes += range(_STEP, max_rows, _STEP)
    return [*sizes, max_rows]
