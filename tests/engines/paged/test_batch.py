"""A step's way to the device."""

from typing import Any

import pytest
import torch

from engines.paged.batch import StepBuffers
from engines.paged.sequence import Row, StepPlan
from tests.engines.paged.steps import sequence


class FakeEvent:
    """A `torch.cuda.Event` that says when it is recorded and waited for."""

    def __init__(self, events: list[str], number: int) -> None:
        self._events, self._number = events, number

    def record(self) -> None:
        self._events.append(f"copy {self._number}")

    def synchronize(self) -> None:
        self._events.append(f"wait {self._number}")


def test_a_host_buffer_is_not_written_before_its_last_copy_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    numbers = iter(range(9))
    monkeypatch.setattr(torch.cuda, "Event", lambda: FakeEvent(events, next(numbers)))
    buffers = StepBuffers(
        max_tokens=8, max_rows=4, block_size=4, device=torch.device("cpu"), is_recorded=True
    )
    as_on_gpu: Any = torch.device("cuda:1")
    monkeypatch.setattr(buffers, "_device", as_on_gpu)
    one = sequence(1)
    one.place, one.blocks = 0, [0]
    plan = StepPlan((Row(one, 0, 1),), num_tokens=1)

    for _ in range(4):
        buffers.fill(plan, num_rows=1, spare_place=3)

    assert events == ["copy 0", "copy 1", "wait 0", "copy 2", "wait 1", "copy 3"]
