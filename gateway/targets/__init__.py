"""What the gateway knows of its targets while it runs: who fails, who is slow, who is busy.

A policy says which targets there are and by which rules they are judged; it never
changes. What happens to them is here, in `Targets`, which outlives a reload of the
policy. `gateway/dispatch.py` asks through it, plugins/routing.py chooses by it.
"""

from gateway.targets.attempt import Attempt
from gateway.targets.health_watch import HealthWatch
from gateway.targets.mirrors import Mirrors
from gateway.targets.report import ModelReport, TargetReport, TargetsReport
from gateway.targets.targets import Targets
from gateway.targets.turns import Turns

__all__ = [
    "Attempt",
    "HealthWatch",
    "Mirrors",
    "ModelReport",
    "TargetReport",
    "Targets",
    "TargetsReport",
    "Turns",
]
