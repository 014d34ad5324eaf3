"""Why somebody is turned away who wants a model, in words that say what to change."""

from collections.abc import Sequence

from engines.errors import EngineOverloaded, Unavailable
from engines.pool.room import Budget, Need, Room, in_words

_WAY_OUT = "lower context_tokens or num_slots, or choose a smaller model"


def too_large(name: str, needs: Sequence[Need], budget: Budget) -> Unavailable:
    """It would not fit if it were the only one."""
    return Unavailable(
        f"model {name!r} needs {in_words(needs[-1].room)} and all models of this engine may take "
        f"{in_words(budget.total)}: raise max_memory_bytes, {_WAY_OUT}"
    )


def no_room(name: str, needs: Sequence[Need], left: Room) -> Unavailable:
    """Other programs of this machine have what it needs."""
    return Unavailable(
        f"model {name!r} needs {in_words(needs[-1].room)} and this machine has {in_words(left)} "
        f"left: end other programs, {_WAY_OUT}"
    )


def too_many(name: str, num_waiting: int, retry_after: float) -> EngineOverloaded:
    """Enough wait for this model already."""
    return EngineOverloaded(
        f"{num_waiting} requests are waiting for model {name!r} to be loaded",
        retry_after=retry_after,
    )
