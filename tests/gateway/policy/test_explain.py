from pathlib import Path

from gateway.policy import Policy
from gateway.policy.explain import explain
from tests.gateway.policy.directories import load, write

GATEWAY = 'plugins = ["anonymous", "allow_lists", "defaults", "routing", "gguf_engine"]\n'
MODELS = """
[chat-small]
aliases  = ["gpt-4o-mini"]
defaults = { temperature = 0.7 }
sticky   = "key"

  [[chat-small.targets]]
  engine = "gpu0"
  model  = "Qwen/Qwen3-8B"
  weight = 95

  [[chat-small.targets]]
  engine = "gpu1"
  weight = 5

  [[chat-small.fallbacks]]
  engine = "gpu1"
  model  = "qwen/qwen3-8b"

["open-*"]
targets = [{ engine = "gpu1" }]
"""
TEAMS = """
[search]
models    = ["chat-*", "!chat-secret", "open-*"]
endpoints = ["openai.*", "!openai.embeddings"]
limits    = "standard"

[guest]
"""
ADMINS = '[platform]\nendpoints = ["*"]'
LIMITS = "[standard]\nmax_output_tokens = 4096\nrequests_per_minute = 600\nconcurrent_calls = 8\n"


def _policy(tmp_path: Path, gateway: str = GATEWAY) -> Policy:
    return load(write(tmp_path, gateway=gateway, models=MODELS, teams=TEAMS, limits=LIMITS))


def _told(policy: Policy, **asked: str | None) -> list[tuple[str, str]]:
    asked = {"team": "search", "endpoint": "openai.chat", "model": "gpt-4o-mini", **asked}
    return [(line.text, line.where) for line in explain(policy, **asked)]


def test_every_decision_is_told_with_its_line(tmp_path):
    assert _told(_policy(tmp_path)) == [
        ("gpt-4o-mini is an alias of chat-small", "models.toml [chat-small] aliases"),
        ("search may use openai.chat", 'teams.toml [search] endpoints "openai.*"'),
        ("search may use chat-small", 'teams.toml [search] models "chat-*"'),
        (
            "temperature defaults to 0.7; output is capped at 4096",
            "models.toml [chat-small] defaults, limits.toml [standard]",
        ),
        (
            "of 100 keys, 95 to gpu0 Qwen/Qwen3-8B, 5 to gpu1 chat-small",
            "models.toml [chat-small] targets",
        ),
        (
            "if overloaded or unavailable: the next of these, at once",
            "models.toml [chat-small] targets",
        ),
        (
            "at most 20 such attempts on 100 calls, full queues aside",
            "models.toml [chat-small] retry",
        ),
        (
            "left alone for 5 s or more: a target that fails 5 times in a row",
            "models.toml [chat-small] breaker",
        ),
        ("if overloaded or unavailable: gpu1 qwen/qwen3-8b", "models.toml [chat-small] fallbacks"),
        (
            "600 requests a minute, 8 at once: not enforced, because rate_limits is not listed",
            "limits.toml [standard], gateway.toml plugins",
        ),
    ]


def test_a_model_that_only_a_glob_knows_is_traced_to_the_glob(tmp_path):
    told = _told(_policy(tmp_path), model="open-7b")

    assert told[0] == (
        'open-7b is not listed; it goes where ["open-*"] says',
        'models.toml ["open-*"]',
    )
    assert ("goes to gpu1 open-7b", 'models.toml ["open-*"] targets') in told


def test_a_call_without_a_model_ends_with_the_endpoint(tmp_path):
    assert _told(_policy(tmp_path), endpoint="openai.models", model=None) == [
        ("search may use openai.models", 'teams.toml [search] endpoints "openai.*"')
    ]


def test_a_refusal_is_the_last_line_and_names_the_pattern_that_decided(tmp_path):
    policy = _policy(tmp_path)

    denied = explain(policy, team="search", endpoint="openai.embeddings", model="chat-small")
    assert denied[-1].refused
    assert denied[-1].text == "refused: search may not use openai.embeddings"
    assert denied[-1].where == 'teams.toml [search] endpoints "!openai.embeddings"'

    not_listed = explain(policy, team="search", endpoint="admin.models", model=None)
    assert not_listed[-1].refused
    assert not_listed[-1].text == "refused: search may not use admin.models"
    assert not_listed[-1].where == (
        'teams.toml [search] endpoints has only "openai.*", "!openai.embeddings"'
    )


def test_a_team_without_anything_is_told_so(tmp_path):
    assert _told(_policy(tmp_path), team="guest")[-1] == (
        "refused: guest may use no endpoint at all",
        "teams.toml [guest] endpoints",
    )


def test_a_model_that_is_not_there_is_refused_with_the_nearest_name(tmp_path):
    assert _told(_policy(tmp_path), model="chat-smal")[-1] == (
        'refused: there is no model "chat-smal" (did you mean "chat-small"?)',
        "models.toml",
    )


def test_a_team_that_is_not_there_is_refused_with_the_nearest_name(tmp_path):
    told = explain(_policy(tmp_path), team="serach", endpoint="openai.chat", model=None)

    assert [(line.text, line.refused) for line in told] == [
        ('refused: serach is not a team (did you mean "search"?)', True)
    ]


def test_what_no_listed_plugin_does_is_not_claimed(tmp_path):
    bare = 'plugins = ["anonymous", "routing", "gguf_engine"]\n'

    told = _told(_policy(tmp_path, bare), team="guest")

    assert told[1] == ("no plugin checks what a team may use", "gateway.toml plugins")
    assert not any("defaults to" in text for text, _ in told)


def test_managing_models_is_told_to_want_the_role(tmp_path):
    policy = load(write(tmp_path, gateway=GATEWAY, models=MODELS, teams=ADMINS, limits=LIMITS))

    told = explain(policy, team="platform", endpoint="ollama.pull", model=None)

    assert told[-1].text == "only with the role admin, like all that manages models"
