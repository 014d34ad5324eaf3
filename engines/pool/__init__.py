"""The loaded models of one engine: which, for how long, and within how much memory.

pool.py owns them; plan.py says, as a plain function, which to load and which to let go.
"""

from engines.pool.place import Lease, Poolable
from engines.pool.pool import Pool
from engines.pool.room import ENDLESS, UNLIMITED, Budget, Limits, Need, Room

__all__ = [
    "ENDLESS", "UNLIMITED", "Budget", "Lease", "Limits", "Need", "Pool", "Poolable", "Room",
]  # fmt: skip
