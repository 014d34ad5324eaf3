import pytest

from gateway.metrics.targets import in_policy
from gateway.policy import FallbackPolicy, ModelPolicy, TargetPolicy
from tests.gateway.metrics.observed import observed, text_of, value
from tests.gateway.metrics.targets import a_report, a_target
from tests.plugins.policies import policy_of

CHAT = ModelPolicy(
    name="chat-small",
    targets=[TargetPolicy(engine="gpu0", model="qwen"), TargetPolicy(engine="gpu1")],
    fallbacks=[FallbackPolicy(engine="overflow", model="big")],
)
ANY = ModelPolicy(name="*", targets=[TargetPolicy(engine="gpu0")])


def test_a_target_tells_how_it_did_and_what_it_does() -> None:
    text = text_of(observed(targets=a_report()))

    target = {"engine": "gpu0", "model_name": "qwen"}
    results = {
        result: value(text, "penstock_target_attempts_total", **target, result=result)
        for result in ("answered", "refused", "failed")
    }
    assert results == {"answered": 7, "refused": 2, "failed": 1}
    assert value(text, "penstock_target_in_flight", **target) == 2
    assert value(text, "penstock_target_latency_seconds", **target) == 0.5
    assert value(text, "penstock_target_drained", **target) == 0
    assert value(text, "penstock_retry_budget_left", model="chat-small") == 3.5
    assert value(text, "penstock_mirrored_requests_total", result="dropped") == 5


@pytest.mark.parametrize(("breaker", "told"), [("closed", 0), ("half_open", 0.5), ("open", 1)])
def test_a_breaker_is_a_number(breaker: str, told: float) -> None:
    text = text_of(observed(targets=a_report(a_target(breaker=breaker))))

    assert value(text, "penstock_target_breaker_open") == told


def test_a_target_that_rests_is_told() -> None:
    for seconds, told in (0.0, 0), (3.5, 1):
        text = text_of(observed(targets=a_report(a_target(rests_for_seconds=seconds))))
        assert value(text, "penstock_target_resting") == told


def test_what_is_not_known_is_not_told() -> None:
    text = text_of(observed(targets=a_report(a_target(first_output_seconds=None))))

    assert value(text, "penstock_target_latency_seconds") is None


def test_targets_that_callers_made_up_behind_a_wildcard_are_left_out() -> None:
    named = [("gpu0", "qwen"), ("gpu1", "chat-small"), ("overflow", "big")]
    made_up = [("gpu0", f"model-{number}") for number in range(50)]
    report = a_report(*(a_target(*target) for target in (*named, *made_up)))

    told = in_policy(report, policy_of(models=[CHAT, ANY]))

    assert [(target.engine, target.model) for target in told.targets] == named
    assert [model.model for model in told.models] == ["chat-small"]
    assert in_policy(a_report(model="made-up"), policy_of(models=[CHAT, ANY])).models == []
