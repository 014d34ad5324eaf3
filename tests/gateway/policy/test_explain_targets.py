from pathlib import Path

import pytest

from gateway.policy.explain import explain
from tests.gateway.policy.directories import load, write

MODELS = """
[chat-small]
sticky  = "session"
first_output_timeout_seconds = 20
retry   = { times = 2, wait_seconds = 0.5, max_wait_seconds = 8, budget_percent = 10 }
breaker = { failures = 3, open_seconds = 10 }
hedge   = { after_seconds = 3 }
mirror  = { engine = "gpu1", model = "next", percent = 10 }
targets = [
  { engine = "gpu0", weight = 3 },
  { engine = "gpu1" },
  { engine = "gpu1", model = "spare", priority = 1 },
  { engine = "gpu1", model = "old", drain = true },
  { engine = "gpu0", model = "new", canary = { teams = ["search"], percent = 50 } },
  { engine = "gpu1", model = "new", canary = { keys = ["k3*"], headers = { x-canary = "yes" } } },
  { engine = "gpu0", model = "newest", canary = { percent = 1 } },
]
fallbacks = [
  { engine = "gpu1", model = "longer", on = ["context_too_long"] },
  { engine = "gpu0", model = "gone", drain = true },
]
"""
TEAMS = """
[search]
models       = ["*"]
endpoints    = ["*"]
show_targets = true

[ops]
models    = ["*"]
endpoints = ["*"]
"""


def _told(tmp_path: Path, team: str, models: str = MODELS) -> list[tuple[str, str]]:
    policy = load(write(tmp_path, models=models, teams=TEAMS))
    lines = explain(policy, team=team, endpoint="openai.chat", model="chat-small")
    return [
        (line.text, line.where.replace("models.toml [chat-small] ", ""))
        for line in lines
        if "may use" not in line.text
    ]


def test_everything_about_targets_is_told_in_the_order_in_which_it_happens(tmp_path):
    assert _told(tmp_path, "search") == [
        ("gpu1 old is drained: no new calls", "targets"),
        ("50 of 100 sessions of search go first to gpu0 new, as its canary", "targets canary"),
        (
            "with a key k3*: 100 of 100 sessions go first to gpu1 new, as its canary",
            "targets canary",
        ),
        (
            "with a header x-canary: yes, 100 of 100 sessions go first to gpu1 new, as its canary",
            "targets canary",
        ),
        ("1 of 100 sessions go first to gpu0 newest, as its canary", "targets canary"),
        ("of 100 sessions, 75 to gpu0 chat-small, 25 to gpu1 chat-small", "targets"),
        ("when none of these takes calls: goes to gpu1 spare", "targets"),
        ("left as unavailable: no output in 20 s", "first_output_timeout_seconds"),
        ("a second target is asked too after 3 s without output", "hedge"),
        ("if overloaded or unavailable: the next of these, at once", "targets"),
        (
            "then up to 2 times more, after 0.5 s and longer each time, or as long as Retry-After "
            "says, at most 8 s",
            "retry",
        ),
        ("at most 10 such attempts on 100 calls, full queues aside", "retry"),
        ("left alone for 10 s or more: a target that fails 3 times in a row", "breaker"),
        ("if context_too_long: gpu1 longer", "fallbacks"),
        ("gpu0 gone is drained: no new calls", "fallbacks"),
        ("a copy of 10 of 100 calls goes to gpu1 next; its answer is thrown away", "mirror"),
        (
            "answers say which targets were tried, in x-penstock-targets",
            "teams.toml [search] show_targets",
        ),
    ]


def test_a_team_is_told_of_its_own_canaries_only(tmp_path):
    told = [text for text, _ in _told(tmp_path, "ops")]

    assert not any("gpu0 new," in text for text in told)
    assert not any("x-penstock-targets" in text for text in told)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('choice = "least_busy"', "goes to the least busy of gpu0 chat-small, gpu1 chat-small"),
        (
            'choice = "latency"',
            "goes to the faster of two drawn from gpu0 chat-small, gpu1 chat-small",
        ),
        ("", "of 100 calls, 50 to gpu0 chat-small, 50 to gpu1 chat-small"),
        (
            'sticky = "prefix"',
            "of 100 beginnings of prompts, 50 to gpu0 chat-small, 50 to gpu1 chat-small",
        ),
    ],
)
def test_how_a_target_is_chosen_is_told(tmp_path, keys, said):
    models = f'[chat-small]\n{keys}\ntargets = [{{ engine = "gpu0" }}, {{ engine = "gpu1" }}]\n'

    assert _told(tmp_path, "ops", models)[0] == (said, "targets")


def test_a_single_target_has_no_next_and_no_retries_unless_the_policy_says(tmp_path):
    single = '[chat-small]\ntargets = [{ engine = "gpu0" }]\n'

    assert _told(tmp_path, "ops", single) == [("goes to gpu0 chat-small", "targets")]
    assert _told(tmp_path, "ops", single + "breaker.failures = 9\n")[1:] == [
        ("left alone for 5 s or more: a target that fails 9 times in a row", "breaker")
    ]
