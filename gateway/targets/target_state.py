"""What is known about one target: how it did lately, and what it does now."""

from gateway.targets.latency import PeakLatency
from gateway.targets.rest import Rest
from gateway.targets.target_breaker import TargetBreaker


class TargetState:
    """One engine and that engine's model, whatever public names lead there.

    Owned by `Targets`; an `Attempt` changes it. `in_flight` counts attempts from the
    asking to the end of their answers.
    """

    __slots__ = (
        "breaker", "engine", "in_flight", "latency", "model", "num_answered", "num_asked",
        "num_failed", "num_refused", "rest",
    )  # fmt: skip

    def __init__(self, engine: str, model: str) -> None:
        self.engine = engine
        self.model = model
        self.breaker = TargetBreaker()
        self.latency = PeakLatency()
        self.rest = Rest()
        self.in_flight = 0
        self.num_asked = 0
        self.num_answered = 0
        self.num_refused = 0  # it answered that it would not
        self.num_failed = 0

    def is_idle(self, now: float) -> bool:
        """Would forgetting it lose nothing but numbers?"""
        is_well = self.breaker.state(now) == "closed" and not self.rest.seconds_left(now)
        return not self.in_flight and is_well
