"""How much models take and how much there is; plain numbers, compared and added up."""

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

_ENDLESS = 2**60


class Room(Struct, frozen=True):
    """Memory of the machine, memory of its GPUs, and places for models."""

    main_bytes: int = 0
    gpu_bytes: int = 0
    num_models: int = 0

    def __add__(self, other: "Room") -> "Room":
        return Room(
            self.main_bytes + other.main_bytes,
            self.gpu_bytes + other.gpu_bytes,
            self.num_models + other.num_models,
        )

    def __sub__(self, other: "Room") -> "Room":
        return Room(
            self.main_bytes - other.main_bytes,
            self.gpu_bytes - other.gpu_bytes,
            self.num_models - other.num_models,
        )

    def holds(self, other: "Room") -> bool:
        """Whether `other` fits in here; what takes none of something fits where none is left."""
        return (
            (not other.main_bytes or other.main_bytes <= self.main_bytes)
            and (not other.gpu_bytes or other.gpu_bytes <= self.gpu_bytes)
            and (not other.num_models or other.num_models <= self.num_models)
        )

    def at_most(self, other: "Room") -> "Room":
        """The smaller of both, in each of the three."""
        return Room(
            min(self.main_bytes, other.main_bytes),
            min(self.gpu_bytes, other.gpu_bytes),
            min(self.num_models, other.num_models),
        )

    @property
    def memory_bytes(self) -> int:
        """All memory, wherever it is."""
        return self.main_bytes + self.gpu_bytes

    @property
    def is_overdrawn(self) -> bool:
        """Whether more was taken from it than there was."""
        return self.main_bytes < 0 or self.gpu_bytes < 0 or self.num_models < 0


ENDLESS = Room(_ENDLESS, _ENDLESS, _ENDLESS)


def total(rooms: Iterable[Room]) -> Room:
    """All of them together."""
    return sum(rooms, Room())


class Need(Struct, frozen=True):
    """What a model takes if so many of its layers are on a GPU."""

    room: Room = Room(num_models=1)
    gpu_layers: int = 0


class Budget(Struct, frozen=True):
    """How much the models of one engine may take together.

    `free` says what the machine itself has left at this moment, whoever took the rest.
    """

    total: Room = ENDLESS
    free: Callable[[], Room] = lambda: ENDLESS

    @classmethod
    def of_models(cls, num_models: int) -> "Budget":
        """So many models of any size."""
        return cls(total=Room(_ENDLESS, _ENDLESS, num_models))


UNLIMITED = Budget()
ANY: Sequence[Need] = (Need(),)
"""The needs of a model of which nothing is known but that it takes a place."""


class Limits(Struct, frozen=True, kw_only=True):
    """How a pool treats those who ask."""

    keep_alive_seconds: float = 300.0
    """How long an idle model stays when nobody says otherwise; a negative number: for ever."""

    max_waiting: int = 1024
    """Callers that may wait for one model to be loaded."""

    min_residency_seconds: float = 10.0
    """How long a busy model stays before it must make way for one that waits for room."""


def in_words(room: Room) -> str:
    """`3.2 GiB`, `3.2 GiB and 7.0 GiB of GPU memory`."""
    main = _size(room.main_bytes)
    has_gpu = 0 < room.gpu_bytes < _ENDLESS
    return f"{main} and {_size(room.gpu_bytes)} of GPU memory" if has_gpu else main


def _size(num_bytes: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{max(0, num_bytes)} bytes"
