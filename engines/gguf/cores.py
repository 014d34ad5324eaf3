"""The processor's cores, as far as this process may use and choose them."""

import os
from collections.abc import Sequence


def usable_cores() -> list[int]:
    """Their numbers, rising; where a system has no affinities (macOS), all of them."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    return sorted(os.sched_getaffinity(0))


def may_choose_cores() -> bool:
    """Whether a thread of this process can be bound to a core at all."""
    return hasattr(os, "sched_setaffinity")


def stay_on(cores: Sequence[int]) -> None:
    """Bind this thread to these cores, if it can be. Raises `OSError` if they were taken away."""
    if may_choose_cores():
        os.sched_setaffinity(0, cores)
