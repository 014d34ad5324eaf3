"""Everything that is served, in one list."""

from collections.abc import Sequence
from typing import Any

from gateway.api import health

HANDLERS: Sequence[Any] = [health.live, health.ready]
