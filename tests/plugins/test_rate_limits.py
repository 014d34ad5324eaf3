import pytest
from structlog.testing import capture_logs

from engines.errors import Unavailable
from engines.protocol import EmbedRequest, GenerateRequest
from gateway import BudgetSpent, RateLimited
from gateway.errors import problem_of
from gateway.policy import LimitPolicy, PricePolicy
from plugins.rate_limits import RateLimits
from tests.fakes import ScriptedEngine
from tests.plugins.limited import end_well, policy_with, problem, stage_of, standard


async def test_a_team_without_limits_is_not_counted_and_its_prompt_not_either():
    stage = stage_of(standard())
    stage.engines.clear()  # asking it would fail

    call = await stage.run(stage.call())

    assert stage.store.num_reserved == 0
    assert call.response_headers == {}


async def test_requests_over_the_limit_are_refused_and_told_when_there_is_room():
    stage = stage_of(standard(requests_per_minute=2))
    await stage.run(stage.call())
    await stage.run(stage.call())

    call = stage.call()
    refusal = await stage.refused(call)

    assert isinstance(refusal, RateLimited)
    assert refusal.message == (
        'requests_per_minute of team "search" (limits.toml [standard]) is reached: 2 of '
        "2 requests are used or reserved and this request needs 1 request; there is room in 30s"
    )
    assert problem_of(refusal).retry_after_seconds == 30
    assert refusal.headers["retry-after-ms"] == "30000"
    assert call.response_headers["x-ratelimit-remaining-requests"] == "0"
    stage.clock.advance(30)
    await stage.run(stage.call())


async def test_a_refused_call_uses_nothing_of_any_limit():
    stage = stage_of(standard(requests_per_minute=5, tokens_per_minute=100, concurrent_calls=9))
    before = await stage.used()

    await stage.refused(stage.call(max_tokens=98))

    assert await stage.used() == before


async def test_the_prompt_is_counted_by_the_engine_and_the_answer_reserved():
    stage = stage_of(standard(input_tokens_per_minute=100, output_tokens_per_minute=100))

    async with stage.admitted(stage.call(words=7, max_tokens=40)):
        assert await stage.used() == {"input_tokens_per_minute": 7, "output_tokens_per_minute": 40}


async def test_what_was_not_used_is_given_back_and_what_was_used_more_is_owed():
    stage = stage_of(standard(tokens_per_minute=1000))

    await stage.run(stage.call(words=5, max_tokens=500), prompt=5, output=20)
    assert await stage.used() == {"tokens_per_minute": 25}

    await stage.run(stage.call(words=5, max_tokens=10), prompt=5, output=1500)
    assert await stage.used() == {"tokens_per_minute": 1530}
    refusal = await stage.refused(stage.call(words=1, max_tokens=1))
    assert refusal.retry_after == pytest.approx(532 * 60 / 1000, abs=0.01)


@pytest.mark.parametrize(
    ("ending", "tokens", "requests"),
    [
        (problem("overloaded", 503), 0, 0),  # not the caller's fault: as if never called
        (problem("context_too_long", 400), 0, 1),
        (problem("client_closed", 499), 6, 1),  # the prompt may have been computed
        (None, 0, 0),  # a plugin behind this one refused
    ],
)
async def test_a_call_that_ends_before_its_first_output(ending, tokens, requests):
    stage = stage_of(standard(tokens_per_minute=1000, requests_per_minute=10))

    await stage.run(stage.call(words=6, max_tokens=50), output=0, error=ending)

    assert await stage.used() == {"tokens_per_minute": tokens, "requests_per_minute": requests}


@pytest.mark.parametrize("code", ["client_closed", "unavailable"])
async def test_a_call_that_breaks_off_pays_for_what_it_has_got(code):
    stage = stage_of(standard(tokens_per_minute=1000))

    await stage.run(
        stage.call(words=6, max_tokens=500), prompt=6, output=9, error=problem(code, 499)
    )

    assert await stage.used() == {"tokens_per_minute": 15}


async def test_an_engine_that_does_not_count_is_charged_the_prompt_as_it_was_counted_before():
    stage = stage_of(standard(tokens_per_minute=1000))

    await stage.run(stage.call(words=8), prompt=0, output=4)

    assert await stage.used() == {"tokens_per_minute": 12}


async def test_several_answers_to_one_request_teach_nothing_about_the_length_of_one():
    stage = stage_of(standard(tokens_per_minute=1_000_000), default_output_tokens=100)

    for _ in range(30):
        several = stage.call()
        several.answers_per_request = 3
        await stage.run(several, output=900)
    assert stage.plugin._estimates.output_tokens("chat-small") == 100

    for _ in range(30):
        await stage.run(stage.call(), output=300)
    assert stage.plugin._estimates.output_tokens("chat-small") == 300


async def test_the_prompt_counts_once_for_all_choices_and_the_answers_each():
    stage = stage_of(standard(tokens_per_minute=1000))

    call = stage.call(words=10, max_tokens=20, n=3)
    async with stage.admitted(call):
        assert await stage.used() == {"tokens_per_minute": 10 + 3 * 20}
        end_well(call, prompt=10, output=5)

    assert await stage.used() == {"tokens_per_minute": 10 + 3 * 5}


async def test_embeddings_are_counted_input_by_input():
    stage = stage_of(standard(tokens_per_minute=1000, output_tokens_per_minute=5))
    call = stage.call(endpoint="openai.embeddings")
    call.requests = ()
    call.embed_request = EmbedRequest(
        id="r", model="chat-small", inputs=["three words here", [1, 2, 3, 4]]
    )

    async with stage.admitted(call):
        assert await stage.used() == {"tokens_per_minute": 7, "output_tokens_per_minute": 0}


async def test_calls_at_once_are_limited_and_a_call_that_ends_makes_room():
    stage = stage_of(standard(concurrent_calls=1))

    async with stage.admitted(stage.call()):
        refusal = await stage.refused(stage.call())
        assert "1 of 1 calls are running" in refusal.message
        assert problem_of(refusal).retry_after_seconds == 1
    await stage.run(stage.call())

    assert await stage.used() == {"concurrent_calls": 0}


async def test_a_client_that_says_no_max_tokens_is_never_refused_for_a_small_limit():
    stage = stage_of(standard(tokens_per_minute=50))

    call = await stage.run(stage.call(words=5))

    assert call.requests[0].max_tokens is None
    assert call.response_headers["x-ratelimit-remaining-tokens"] == "0"  # all of it, not more


async def test_a_default_of_the_policy_is_not_the_clients_word():
    stage = stage_of(standard(tokens_per_minute=50))
    call = stage.call(words=5)
    call.replace_requests(max_tokens=4096)  # as `defaults` does

    await stage.run(call)


async def test_a_max_tokens_that_can_never_fit_is_refused_for_good():
    stage = stage_of(standard(tokens_per_minute=50))

    call = stage.call(words=5, max_tokens=60)
    refusal = await stage.refused(call)

    assert call.response_headers["x-ratelimit-remaining-tokens"] == "50"
    assert refusal.headers["x-penstock-refused-by"] == "standard.tokens_per_minute"
    assert "needs 65 tokens and at most 50 tokens fit at once" in refusal.message
    assert refusal.param == "max_tokens"
    assert refusal.headers["x-should-retry"] == "false"
    assert problem_of(refusal).retry_after_seconds is None
    prompt = await stage.refused(stage.call(words=70))
    assert "shorten the prompt" in prompt.message


async def test_the_header_names_the_limit_of_which_the_message_speaks():
    stage = stage_of(standard(requests_per_minute=1, tokens_per_day=10))
    await stage.run(stage.call(words=3, max_tokens=7), prompt=3, output=7)

    refusal = await stage.refused(stage.call(words=3, max_tokens=7))

    assert refusal.message.startswith("tokens_per_day of team")
    assert refusal.headers["x-penstock-refused-by"] == "standard.tokens_per_day"


async def test_the_answers_length_is_learned_from_calls_that_ended_well():
    stage = stage_of(standard(tokens_per_minute=100_000), default_output_tokens=500)

    for length in [*range(1, 20), 10_000]:
        await stage.run(stage.call(), output=length)
    stage.clock.advance(3600)

    async with stage.admitted(stage.call(words=2)):
        assert await stage.used() == {"tokens_per_minute": 2 + 10_000}
    for _ in range(400):
        await stage.run(stage.call(), output=30)
    stage.clock.advance(3600)
    async with stage.admitted(stage.call(words=2)):
        assert await stage.used() == {"tokens_per_minute": 32}


async def test_a_budget_that_is_spent_says_not_to_try_again():
    stage = stage_of(standard(tokens_per_day=100))
    await stage.run(stage.call(words=3, max_tokens=90), prompt=3, output=90)

    refusal = await stage.refused(stage.call(words=3, max_tokens=90))

    assert isinstance(refusal, BudgetSpent)
    assert refusal.message.startswith(
        'tokens_per_day of team "search" (limits.toml [standard]) is spent: 93 of 100 '
        "tokens are used or reserved and this request needs 93 tokens; it begins anew in "
    )
    assert problem_of(refusal).status == 429
    assert refusal.headers["x-should-retry"] == "false"
    stage.clock.advance(24 * 3600)
    await stage.run(stage.call(words=3, max_tokens=90))


async def test_costs_are_counted_from_the_price_table_cached_tokens_apart():
    price = PricePolicy(name="chat-*", input=2.0, output=10.0, cached=0.5)
    stage = stage_of(standard(cost_per_month=1.0), prices={"chat-*": price})

    call = stage.call(words=100, max_tokens=1000)
    async with stage.admitted(call):
        assert await stage.used() == {"cost_per_month": 100 * 2 + 1000 * 10}
        end_well(call, prompt=100, output=7, cached=60)

    assert await stage.used() == {"cost_per_month": 40 * 2 + 60 // 2 + 70}


async def test_a_cost_budget_reads_in_its_own_unit():
    price = PricePolicy(name="chat-small", input=2.0, output=10.0)
    stage = stage_of(standard(cost_per_day=0.01), prices={"chat-small": price})
    await stage.run(stage.call(words=1, max_tokens=900), prompt=1, output=900)

    refusal = await stage.refused(stage.call(words=1, max_tokens=200))

    assert "0.009002 of 0.01 of cost are used" in refusal.message


async def test_scopes_count_apart_and_a_call_must_fit_them_all():
    tables = (
        LimitPolicy(name="each-key", per=["key"], requests_per_minute=2),
        LimitPolicy(name="big-model", per=["model"], models=["chat-big"], requests_per_minute=2),
        LimitPolicy(name="team-model", per=["team", "model"], requests_per_minute=3),
        LimitPolicy(name="chat", per=["endpoint"], endpoints=["openai.chat"], concurrent_calls=9),
        LimitPolicy(name="everything", per=[], requests_per_minute=6),
    )
    stage = stage_of(*tables, team_limits=None)
    for key in ("k1", "k1", "k2"):
        await stage.run(stage.call(key=key))

    assert "[each-key]" in (await stage.refused(stage.call(key="k1"))).message
    refusal = await stage.refused(stage.call(key="k3"))
    assert 'of team "search" and model "chat-small" (limits.toml [team-model])' in refusal.message
    await stage.run(stage.call(key="k3", team="batch"))
    await stage.run(stage.call(key="k4", model="chat-big"))
    await stage.run(stage.call(key="k5", model="chat-big"))
    assert (
        "of all calls together" in (await stage.refused(stage.call(key="k6", team="batch"))).message
    )
    assert (await stage.used(key="k6"))["requests_per_minute"] == 6


async def test_a_shadow_limit_counts_logs_and_lets_through():
    stage = stage_of(standard(requests_per_minute=1, shadow=True))
    await stage.run(stage.call())

    with capture_logs() as logs:
        call = await stage.run(stage.call())

    assert "x-ratelimit-limit-requests" not in call.response_headers
    assert logs == [
        {
            "event": "limit_shadowed",
            "log_level": "info",
            "call": call.id,
            "limits": "standard",
            "limit": "requests_per_minute",
            "subject": 'team "search"',
            "used": 1,
            "capacity": 1,
        }
    ]
    assert await stage.used() == {"requests_per_minute": 1}


async def test_an_engine_that_cannot_count_does_not_keep_a_call_from_its_fallback():
    class Broken(ScriptedEngine):
        async def count_tokens(self, request: GenerateRequest) -> int:
            raise Unavailable("down")

    stage = stage_of(standard(tokens_per_minute=5000))
    stage.engines["gpu0"] = Broken()

    async with stage.admitted(stage.call(words=6, max_tokens=10)):
        used = (await stage.used())["tokens_per_minute"]
    assert 16 <= used <= 60


async def test_a_new_policy_counts_on_in_the_same_buckets():
    stage = stage_of(standard(requests_per_minute=5))
    await stage.run(stage.call())

    stage.policy = policy_with(standard(requests_per_minute=2))
    await stage.run(stage.call())

    assert isinstance(await stage.refused(stage.call()), RateLimited)
    assert isinstance(stage.plugin, RateLimits)
