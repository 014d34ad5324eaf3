"""What is asked: one file for each workload, named as on the command line.

A workload makes the same conversations again for the same `place`, and
different ones for another: a run's rounds and loads are places of their own,
so that no round is answered from a cache that an earlier one filled.
"""

from collections.abc import Sequence
from typing import Protocol

from gateway.bench.question import Conversation

WORKLOADS = ("fixed", "sharegpt", "shared-prefix", "nano")


class Workload(Protocol):
    """Makes conversations."""

    def conversations(self, place: int) -> Sequence[Conversation]:
        """All conversations of one place; what they are depends on nothing else."""
        ...


class WorkloadInvalid(ValueError):
    """A workload cannot be made of what was given; says what to change."""
