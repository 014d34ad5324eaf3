"""What is known of targets, made by hand."""

import msgspec

from gateway.targets.report import MirrorReport, ModelReport, TargetReport, TargetsReport


def a_target(engine: str = "gpu0", model: str = "qwen", **changes: object) -> TargetReport:
    target = TargetReport(
        engine=engine,
        model=model,
        breaker="closed",
        failures=0,
        callers_kept_out=0,
        probe_in_seconds=0.0,
        rests_for_seconds=0.0,
        ready=True,
        detail="",
        drained=False,
        in_flight=2,
        first_output_seconds=0.5,
        asked=10,
        answered=7,
        refused=2,
        failed=1,
    )
    return msgspec.structs.replace(target, **changes)


def a_report(*targets: TargetReport, model: str = "chat-small") -> TargetsReport:
    return TargetsReport(
        targets=targets or (a_target(),),
        models=[ModelReport(model=model, requests=10, extra_attempts=1, budget_left=3.5)],
        mirrors=MirrorReport(running=0, sent=4, completed=2, failed=1, dropped=5),
    )
