"""Everything that is served, in one list."""

from collections.abc import Sequence
from typing import Any

from gateway.api import health
from gateway.api.admin import models as admin_models

HANDLERS: Sequence[Any] = [health.live, health.ready, admin_models.show_models]
