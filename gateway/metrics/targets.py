"""What the gateway knows of its targets, under names for Prometheus."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
from prometheus_client.core import Metric

from gateway.metrics.families import counter, gauge
from gateway.policy import Policy
from gateway.targets.report import MirrorReport, TargetReport, TargetsReport

GAUGES: Sequence[tuple[str, str, Callable[[TargetReport], float | None]]] = (
    ("penstock_target_in_flight", "Attempts at a target that run now.", lambda t: t.in_flight),
    ("penstock_target_breaker_open", "1: its circuit breaker is open, 0.5: half open.",
     lambda t: {"closed": 0.0, "half_open": 0.5}.get(t.breaker, 1.0)),
    ("penstock_target_resting", "Whether it is asked last, as it said that it is overloaded.",
     lambda t: t.rests_for_seconds > 0),
    ("penstock_target_drained", "Whether an administrator keeps calls from it.",
     lambda t: t.drained),
    ("penstock_target_latency_seconds", "What routing expects until its first output.",
     lambda t: t.first_output_seconds),
)  # fmt: skip


def in_policy(report: TargetsReport, policy: Policy) -> TargetsReport:
    """The targets and models that the policy names; a wildcard's are what callers made up."""
    named = {
        (target.engine, target.model or model.name)
        for model in policy.models.values()
        for target in (*model.targets, *model.fallbacks)
    }
    return msgspec.structs.replace(
        report,
        targets=[target for target in report.targets if (target.engine, target.model) in named],
        models=[model for model in report.models if model.model in policy.models],
    )


def target_families(report: TargetsReport) -> Iterator[Metric]:
    """Every target with a name of its own, and what became of copies."""
    for name, help_text, value in GAUGES:
        values = ((_labels(target), value(target)) for target in report.targets)
        yield gauge(name, help_text, [(labels, known) for labels, known in values
                                      if known is not None])  # fmt: skip
    yield counter(
        "penstock_target_attempts",
        "Attempts at a target that have ended, by how.",
        [
            ({**_labels(target), "result": result}, count)
            for target in report.targets
            for result, count in _results(target)
        ],
    )
    yield gauge(
        "penstock_retry_budget_left",
        "How much of a model's retry budget is left.",
        [({"model": model.model}, model.budget_left) for model in report.models],
    )
    yield counter(
        "penstock_mirrored_requests",
        "Copies of calls, by what became of them.",
        [({"result": result}, count) for result, count in _mirrored(report.mirrors)],
    )


def _labels(target: TargetReport) -> dict[str, str]:
    return {"engine": target.engine, "model_name": target.model}


def _results(target: TargetReport) -> Sequence[tuple[str, int]]:
    return (
        ("answered", target.answered),
        ("refused", target.refused),
        ("failed", target.failed),
    )


def _mirrored(mirrors: MirrorReport) -> Sequence[tuple[str, int]]:
    return (
        ("completed", mirrors.completed),
        ("failed", mirrors.failed),
        ("dropped", mirrors.dropped),
    )
