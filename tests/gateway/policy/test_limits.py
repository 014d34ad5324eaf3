import pytest

from gateway.policy.check import warnings_of
from gateway.policy.explain import explain
from tests.gateway.policy.directories import HOOKS_OF, load, problems_of, write

STANDARD = "[standard]\nrequests_per_minute = 600\n"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (
            '[standard]\nper = ["key"]\nrequests_per_minute = 5\n',
            "limits.toml: [standard] per: this table applies by itself, so no team can name it in "
            "its limits, as [search] does",
        ),
        (
            STANDARD + '[x]\nper = ["key", "key"]\nrequests_per_minute = 5\n',
            "limits.toml: [x] per: names the same scope twice",
        ),
        (
            STANDARD + '[x]\nper = ["user"]\nrequests_per_minute = 5\n',
            'limits.toml: [x] per[0]: "user" is not one of "endpoint", "key", "model", "team" '
            "(there are: endpoint, key, model, team)",
        ),
        (
            STANDARD + '[x]\nper = "key"\nrequests_per_minute = 5\n',
            'limits.toml: [x] per: "key" is not a list (write ["key"])',
        ),
        (
            STANDARD + "[x]\nper = []\nmax_output_tokens = 5\n",
            "limits.toml: [x] max_output_tokens: belongs in a table that a team names in its "
            "limits",
        ),
        (
            '[standard]\nmodels = ["chat-*"]\n',
            "limits.toml: [standard] models: only a table with per chooses its calls; this one "
            "applies to the teams that name it",
        ),
        (
            "[standard]\nburst_seconds = 0\n",
            "limits.toml: [standard] burst_seconds: 0 is not a number over 0 and at most 3600",
        ),
        (
            "[standard]\ncost_per_day = 0\n",
            "limits.toml: [standard] cost_per_day: 0 is not a number over 0",
        ),
        (
            "[standard]\nrequests_per_day = 5\n",
            'limits.toml: [standard]: unknown key "requests_per_day" '
            '(did you mean "requests_per_minute"?)',
        ),
    ],
)
def test_a_table_that_cannot_be_meant_is_an_error(tmp_path, limits, said):
    assert problems_of(write(tmp_path, limits=limits)) == [said]


def test_prices_are_checked_like_everything(tmp_path):
    directory = write(tmp_path, prices='[chat-small]\noutput = -1\n["*"]\ninput = "much"\n')

    assert problems_of(directory) == [
        "prices.toml: [chat-small] output: -1 is not a number from 0 to 1e+06",
        'prices.toml: [chat-small]: "input" is missing: it is a number from 0 to 1e+06',
        'prices.toml: ["*"] input: "much" is not a number from 0 to 1e+06',
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"limits": STANDARD + "[x]\nper = []\n"},
            "limits.toml: [x]: limits nothing",
        ),
        (
            {"limits": STANDARD + '[x]\nper = []\nteams = ["serach"]\nconcurrent_calls = 1\n'},
            'limits.toml: [x] teams[0]: "serach" matches no team (did you mean "search"?)',
        ),
        (
            {"limits": STANDARD + '[x]\nper = []\nmodels = ["!x"]\nconcurrent_calls = 1\n'},
            'limits.toml: [x] models[0]: "!x" matches no model (there are: chat-small)',
        ),
        (
            {"limits": "[standard]\ncost_per_day = 5\n"},
            "limits.toml: [standard] cost_per_day: [chat-small] of models.toml has no price in "
            "prices.toml, so it costs nothing",
        ),
        (
            {"prices": "[chat-smal]\ninput = 1\n"},
            'prices.toml: [chat-smal]: is the price of no model (did you mean "chat-small"?)',
        ),
    ],
)
def test_a_table_that_does_nothing_is_a_warning(tmp_path, files, said):
    policy = load(write(tmp_path, **files))

    assert said in warnings_of(policy, hooks_of=HOOKS_OF)


def test_the_longest_glob_says_what_a_model_costs(tmp_path):
    prices = '["*"]\ninput = 1\n["chat-*"]\ninput = 2\n[chat-small]\ninput = 3\n'
    policy = load(write(tmp_path, prices=prices))

    found = {name: policy.price_of(name) for name in ("chat-small", "chat-big", "other")}
    assert {name: price and price.input for name, price in found.items()} == {
        "chat-small": 3,
        "chat-big": 2,
        "other": 1,
    }
    assert load(write(tmp_path / "none")).price_of("chat-small") is None


def test_explain_tells_every_limit_that_a_call_would_meet(tmp_path):
    limits = """
[standard]
requests_per_minute = 600
tokens_per_day      = 5_000_000
cost_per_month      = 0.5
clamp_output        = true
wait_seconds        = 20

[each-key]
per                       = ["key", "model"]
output_tokens_per_minute  = 1000
shadow                    = true

[others]
per    = ["model"]
models = ["!chat-small"]
concurrent_calls = 1

[all]
per              = []
concurrent_calls = 200
"""
    policy = load(write(tmp_path, limits=limits))

    told = explain(policy, team="search", endpoint="openai.chat", model="chat-small")
    listed = [line.text for line in told if "limits.toml" in line.where]
    not_listed = ": not enforced, because rate_limits is not listed"

    assert listed == [
        "600 requests a minute, 5,000,000 tokens a day, 0.5 of cost a month" + not_listed,
        "1,000 output tokens a minute for each key and model" + not_listed,
        "200 at once for all together" + not_listed,
    ]
