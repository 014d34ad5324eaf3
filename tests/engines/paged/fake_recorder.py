"""CUDA graphs without CUDA: what a recording may do, and what a replay does."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engines.paged.graphs import Computed


class FakeRecorder:
    """Obeys the protocol of engines/paged/graphs.py, and checks its caller.

    A recording computes nothing: what it writes is undone. A replay computes into the
    recording's own outputs, which the one before it left there.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.failure: Exception | None = None  # of the next recording

    def run(self, compute: Callable[[], Computed], /) -> Computed:
        self.events.append("run")
        return compute()

    def record(self, compute: Callable[[], Computed], /) -> Callable[[], Computed] | None:
        assert self.events[-1] == "run", "nothing is compiled in a recording"
        self.events.append("record")
        with _Undone() as mode:
            outputs = compute()
            kept = Computed(*(None if one is None else one.clone() for one in outputs))
        mode.undo()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure

        def replay() -> Computed:
            self.events.append("replay")
            for target, source in zip(kept, compute(), strict=True):
                if target is not None:
                    target.copy_(source)
            return kept

        return replay


class _Undone(TorchDispatchMode):
    """Remembers what every tensor was before it was written."""

    def __init__(self) -> None:
        super().__init__()
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.is_write:
                self._before.append((value, value.clone()))
        return func(*args, **(kwargs or {}))

    def undo(self) -> None:
        with torch.inference_mode():
            for target, before in reversed(self._before):
                target.copy_(before)
