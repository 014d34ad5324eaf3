"""A picture of all targets at one moment, for the admin API and for metrics."""

from collections.abc import Sequence

from msgspec import Struct


class TargetReport(Struct, frozen=True, kw_only=True):
    """One target. `probe_in_seconds` is when its open breaker lets the next call in."""

    engine: str
    model: str
    breaker: str  # "closed", "open" or "half_open"
    failures: int  # in a row
    callers_kept_out: int  # to whom alone it is open, for failures that may be their requests'
    probe_in_seconds: float
    rests_for_seconds: float  # after it said that it is overloaded; then it is asked last
    ready: bool
    detail: str  # what its engine says about itself
    drained: bool
    in_flight: int
    first_output_seconds: float | None  # the peak-sensitive average; see latency.py
    asked: int
    answered: int
    refused: int
    failed: int


class ModelReport(Struct, frozen=True, kw_only=True):
    """One public model: how much of its retry budget is left, and what went to its mirror."""

    model: str
    requests: int
    extra_attempts: int
    budget_left: float


class MirrorReport(Struct, frozen=True, kw_only=True):
    """What was done with the copies of calls; `dropped` were beyond `max_concurrent`."""

    running: int
    sent: int
    completed: int
    failed: int
    dropped: int


class TargetsReport(Struct, frozen=True, kw_only=True):
    """Everything, in the order of names."""

    targets: Sequence[TargetReport]
    models: Sequence[ModelReport]
    mirrors: MirrorReport
