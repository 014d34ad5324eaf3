from engines.protocol import FinishReason, GenerateRequest, Usage
from gateway import Call, Principal, Target
from gateway.call import Tried
from gateway.errors import RateLimited, problem_of
from gateway.metrics import CallMetrics
from gateway.metrics.calls import CallCounts
from gateway.policy import ModelPolicy, TargetPolicy, TeamPolicy
from tests.plugins.policies import call_of, policy_of

GPU0 = Target("gpu0", "qwen")


def ended(call: Call, *, usage: Usage | None = None, seconds: float = 2.0) -> Call:
    call.target = GPU0
    call.started_at = 100.0
    call.first_output_at = 100.5
    call.finished_at = 100.0 + seconds
    call.finish_reason = FinishReason.STOP
    if usage is not None:
        call.tally(0).set(usage)
    return call


def counted(*calls: Call, names_teams: bool = True, in_flight: tuple[Call, ...] = ()) -> CallCounts:
    metrics = CallMetrics()
    for call in calls:
        metrics.record(call)
    return metrics.snapshot(in_flight, names_teams=names_teams)


def test_a_call_is_counted_by_what_who_and_how() -> None:
    usage = Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=6, reasoning_tokens=2)

    counts = counted(ended(call_of(policy_of()), usage=usage))

    where = ("openai.chat", "chat-small", "gpu0")
    assert counts.calls == {(*where, "search", "ok"): 1}
    assert counts.seconds[where].sum == 2.0
    assert counts.first_output_seconds[where].sum == 0.5
    assert counts.tokens == {
        ("prompt", "chat-small", "gpu0", "search"): 10,
        ("completion", "chat-small", "gpu0", "search"): 6,
    }
    assert counts.cached_tokens == {("chat-small", "gpu0", "search"): 4}
    assert counts.reasoning_tokens == {("chat-small", "gpu0", "search"): 2}


def test_a_name_that_a_caller_made_up_is_no_label() -> None:
    anything = ModelPolicy(name="*", targets=(TargetPolicy(engine="gpu0"),))
    policy = policy_of(models=[anything])
    calls = [
        ended(call_of(policy, model=f"model-{number}", team=f"team-{number}"))
        for number in range(100)
    ]

    counts = counted(*calls)

    assert counts.calls == {("openai.chat", "-", "gpu0", "-", "ok"): 100}
    assert len(counts.seconds) == 1


def test_a_refused_call_is_counted_though_it_reached_no_engine() -> None:
    call = call_of(policy_of())
    call.error = problem_of(RateLimited("too many"))
    call.finished_at = call.started_at
    call.admission_seconds = 0.003

    counts = counted(call)

    assert counts.calls == {("openai.chat", "chat-small", "-", "search", "rate_limited"): 1}
    assert counts.admission_seconds[("openai.chat",)].sum == 0.003
    assert not counts.first_output_seconds
    assert not counts.tokens


def test_a_caller_whom_nobody_knows_has_no_team() -> None:
    call = Call(id="req_1", endpoint="openai.chat", policy=policy_of())

    assert list(counted(call).calls) == [("openai.chat", "-", "-", "-", "ok")]


def test_without_names_the_teams_are_added_up() -> None:
    names = ("search", "red", "blue")
    policy = policy_of(teams=[TeamPolicy(name=name, models=["*"]) for name in names])
    usage = Usage(prompt_tokens=10, completion_tokens=5)
    calls = [ended(call_of(policy, team=team), usage=usage) for team in names]

    counts = counted(*calls, names_teams=False)

    assert counts.calls == {("openai.chat", "chat-small", "gpu0", "-", "ok"): 3}
    assert counts.tokens["prompt", "chat-small", "gpu0", "-"] == 30
    assert counts.cached_tokens == {("chat-small", "gpu0", "-"): 0}
    assert len(counted(*calls).calls) == 3


def test_targets_that_were_left_are_counted_also_where_another_answered() -> None:
    call = ended(call_of(policy_of()))
    call.tried = [
        Tried("gpu1", "qwen", "overloaded"),
        Tried("gpu2", "qwen", "breaker_open"),
        Tried("gpu0", "qwen"),
    ]

    counts = counted(call, call)

    assert counts.targets_left == {("gpu1", "overloaded"): 2, ("gpu2", "breaker_open"): 2}
    assert sum(counts.calls.values()) == 2


def test_what_a_client_calls_a_retry_is_counted_as_one() -> None:
    first, again, odd = (ended(call_of(policy_of())) for _ in range(3))
    first.headers = {"x-stainless-retry-count": "0"}
    again.headers = {"x-stainless-retry-count": "2"}

    assert counted(first, again, odd).retries == {("openai.chat",): 1}


def test_calls_in_flight_are_those_of_this_moment() -> None:
    calls = (call_of(policy_of()), call_of(policy_of()), call_of(policy_of(), endpoint="metrics"))

    assert counted(in_flight=calls).in_flight == {("openai.chat",): 2, ("metrics",): 1}


def test_a_snapshot_is_not_changed_by_later_calls() -> None:
    metrics = CallMetrics()
    metrics.record(ended(call_of(policy_of())))
    before = metrics.snapshot((), names_teams=True)

    metrics.record(ended(call_of(policy_of())))

    assert sum(before.calls.values()) == 1
    assert [buckets.count for buckets in before.seconds.values()] == [1]


def test_no_id_no_key_and_no_prompt_is_in_what_is_counted() -> None:
    call = ended(
        call_of(
            policy_of(),
            GenerateRequest(id="canary-id", model="m", prompt="canary-prompt"),
            key_id="canary-key",
        )
    )
    call.principal = Principal(name="canary-name", team="search", key_id="canary-key")
    call.id = "canary-call"

    assert "canary" not in repr(counted(call))
