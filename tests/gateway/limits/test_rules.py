import msgspec

from gateway.limits import Estimate, RuleBook, capped_estimate, demands_of
from gateway.narrowing import Narrowing
from gateway.policy import LimitPolicy, Policy, PricePolicy, TeamPolicy
from tests.plugins.policies import TARGETS, ModelPolicy, call_of, policy_of

LIMITS = (
    LimitPolicy(name="standard", requests_per_minute=600, burst_seconds=10, concurrent_calls=4),
    LimitPolicy(name="keys", per=["key"], teams=["search"], tokens_per_minute=1000),
    LimitPolicy(name="models", per=["model"], models=["*", "!chat-small"], tokens_per_day=5),
    LimitPolicy(name="embedding", per=["endpoint"], endpoints=["*.embeddings"], tokens_per_day=5),
    LimitPolicy(name="all", per=[], cost_per_month=0.5),
)


def policy() -> Policy:
    team = TeamPolicy(name="search", models=["*"], endpoints=["*"], limits="standard")
    return policy_of(models=[ModelPolicy(name="*", targets=TARGETS)], teams=[team], limits=LIMITS)


def told(book: RuleBook, **asked: str) -> list[str]:
    rules = book.rules_of(call_of(book.policy, **asked))  # type: ignore[arg-type]
    return [f"{rule.table}.{rule.field} of {rule.whose}" for rule in rules]


def test_the_rules_of_a_call_are_those_whose_tables_fit_it() -> None:
    book = RuleBook(policy())

    assert told(book, key_id="k1") == [
        'standard.requests_per_minute of team "search"',
        'standard.concurrent_calls of team "search"',
        'keys.tokens_per_minute of key "k1"',
        "all.cost_per_month of all calls together",
    ]
    assert told(book, team="gone", model="chat-big", endpoint="openai.embeddings") == [
        'models.tokens_per_day of model "chat-big"',
        'embedding.tokens_per_day of endpoint "openai.embeddings"',
        "all.cost_per_month of all calls together",
    ]


def test_a_key_that_names_a_table_has_that_allowance_too_and_for_itself() -> None:
    team = TeamPolicy(name="batch", models=["*"], endpoints=["*"], limits="standard")
    limits = [*LIMITS[:1], LimitPolicy(name="small", requests_per_minute=5)]
    book = RuleBook(policy_of(teams=[team], limits=limits))

    def rules(key_id: str, limits: str | None) -> list[str]:
        call = call_of(book.policy, team="batch", key_id=key_id)
        narrowing = Narrowing(limits=limits)
        call.principal = msgspec.structs.replace(call.principal, narrowing=narrowing)
        return [f"{rule.table} of {rule.whose}" for rule in book.rules_of(call)]

    of_team = ['standard of team "batch"'] * 2
    assert rules("k1", None) == of_team
    assert rules("k1", "small") == [*of_team, 'small of key "k1"']
    assert rules("k2", "small") == [*of_team, 'small of key "k2"']
    assert rules("k2", None) == of_team


def test_burst_seconds_say_how_much_may_be_used_at_once() -> None:
    book = RuleBook(policy())
    requests, calls = book.rules_of(call_of(book.policy))[:2]

    assert (requests.bucket.limit, requests.bucket.burst) == (600, 100)
    assert calls.bucket.capacity == 4


def test_money_is_counted_in_millionths() -> None:
    book = RuleBook(policy())

    assert book.rules_of(call_of(book.policy))[-1].bucket.limit == 500_000


def test_no_name_can_pass_for_another_in_a_buckets_key() -> None:
    def keys(**asked: str) -> set[str]:
        book = RuleBook(policy())
        return {rule.bucket.key for rule in book.rules_of(call_of(book.policy, **asked))}  # type: ignore[arg-type]

    odd = keys(key_id="k1:requests", model="a:b/c")
    assert "keys:tokens_per_minute:key=k1%3Arequests" in odd
    assert "models:tokens_per_day:model=a%3Ab%2Fc" in odd
    assert all(len(key) < 250 for key in keys(model="x" * 5000))
    assert keys(model="x" * 5000) != keys(model="x" * 5001)


def test_a_guessed_output_is_cut_to_the_tightest_of_the_limits_that_count_it() -> None:
    limits = [
        LimitPolicy(name="wide", per=[], output_tokens_per_minute=9000, cost_per_day=0.000_001),
        LimitPolicy(name="tight", per=["team"], output_tokens_per_minute=600, tokens_per_day=5000),
        LimitPolicy(name="shadow", per=["key"], output_tokens_per_minute=6, shadow=True),
    ]
    rules = RuleBook(policy_of(teams=[TeamPolicy(name="search")], limits=limits)).rules_for(
        team="search", key="k1", model="chat", endpoint="openai.chat"
    )
    guess = Estimate(prompt_tokens=4900, output_tokens=1024, num_sequences=2)
    demands = demands_of(rules, guess, PricePolicy(input=1.0))

    assert [rule.counts for rule in rules] == ["output", "cost", "output", "tokens", "output"]
    assert capped_estimate(rules, demands, guess).output_tokens == (5000 - 4900) // 2
    told = msgspec.structs.replace(guess, is_explicit=True)
    assert capped_estimate(rules, demands, told) is told
