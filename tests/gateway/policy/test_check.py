import pytest

from gateway.policy.check import warnings_of
from tests.gateway.policy.directories import GOOD, HOOKS_OF, load, problems_of, write

TARGET = '[[chat-small.targets]]\nengine = "gpu0"\n'
ENDPOINTS = {"openai.chat", "openai.embeddings", "openai.models"}


def _warnings(directory) -> list[str]:
    return list(warnings_of(load(directory), hooks_of=HOOKS_OF, endpoint_names=ENDPOINTS))


def _quiet(tmp_path, **files: str):
    """A directory about which there is nothing to warn, with some files replaced."""
    quiet = {"engines": '[gpu0]\nkind = "gguf"\n', "limits": "[standard]\n"}
    return write(tmp_path, **{**quiet, **files})


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (
            "[chat-small]\n" + TARGET + "weight = 0\n",
            "models.toml: [chat-small] targets: every weight is 0, so none would ever be "
            "chosen; give one a weight above 0",
        ),
        (
            "[chat-small]\ntargets = []\n",
            "models.toml: [chat-small] targets: an empty list is not a list with something in it",
        ),
        (
            "[chat-small]\n" + TARGET + "drain = true\n",
            "models.toml: [chat-small] targets: every target is drained, so no call could be "
            "answered; leave one",
        ),
        (
            "[chat-small]\n" + TARGET + "canary = { percent = 5 }\n",
            "models.toml: [chat-small] targets: every target is a canary, so other calls would "
            "have none; add one without canary",
        ),
        (
            "[chat-small]\n" + TARGET + TARGET + "canary = {}\n",
            "models.toml: [chat-small] targets[1].canary: says neither for whom the target is nor "
            "for what share of the calls: give teams, keys, headers or percent",
        ),
        (
            "[chat-small]\n" + TARGET + TARGET + 'canary = { teams = ["serach"] }\n',
            'models.toml: [chat-small] targets[1].canary.teams[0]: "serach" is not in teams.toml '
            '(did you mean "search"?)',
        ),
        (
            "[chat-small]\n"
            + TARGET
            + TARGET
            + 'canary.headers = { Authorization = "Bearer x" }\n',
            "models.toml: [chat-small] targets[1].canary.headers.Authorization: this header holds "
            "a credential, and a policy holds none; name the key in keys, or the team in teams",
        ),
        (
            "[chat-small]\n" + TARGET + TARGET + 'canary.headers = { "x canary" = "1" }\n',
            'models.toml: [chat-small] targets[1].canary.headers: "x canary" is not the name of '
            "a header",
        ),
        (
            "[chat-small]\n" + TARGET + '[[chat-small.fallbacks]]\nengine = "gpu2"\n',
            'models.toml: [chat-small] fallbacks[0].engine: "gpu2" is not in engines.toml '
            "(there are: gpu0, gpu1)",
        ),
        (
            "[chat-small]\n"
            + TARGET
            + '[[chat-small.fallbacks]]\nengine = "gpu1"\non = ["overloaded", "unavailible"]\n',
            'models.toml: [chat-small] fallbacks[0].on[1]: "unavailible" is not an engine\'s '
            'error (did you mean "unavailable"?)',
        ),
        (
            "[chat-small]\n" + TARGET + '[[chat-small.fallbacks]]\nengine = "gpu1"\non = []\n',
            "models.toml: [chat-small] fallbacks[0].on: an empty list is not a list with "
            "something in it",
        ),
        (
            "[chat-small]\n" + TARGET + '[[chat-small.fallbacks]]\nengine = "gpu1"\nweight = 5\n',
            'models.toml: [chat-small] fallbacks[0]: unknown key "weight" '
            "(there are: drain, engine, model, on)",
        ),
        (
            '[chat-small]\naliases = ["big"]\n' + TARGET + '[big]\ntargets = [{engine="gpu0"}]\n',
            'models.toml: [chat-small] aliases[0]: "big" is a model itself, so the alias is dead',
        ),
        (
            '[chat-small]\naliases = ["x"]\n'
            + TARGET
            + '[big]\naliases = ["x"]\ntargets = [{engine="gpu0"}]\n',
            'models.toml: [big] aliases[0]: "x" is an alias of [chat-small] already',
        ),
        (
            '[chat-small]\naliases = ["x", "x"]\n' + TARGET,
            'models.toml: [chat-small] aliases[1]: "x" is an alias of this model already',
        ),
        (
            '[chat-small]\naliases = ["gpt-*"]\n' + TARGET,
            'models.toml: [chat-small] aliases[0]: "gpt-*": an alias is one name; for a glob '
            'write a table ["gpt-*"]',
        ),
        (
            "[chat-small]\n" + TARGET + '["*"]\naliases = ["x"]\ntargets = [{engine="gpu0"}]\n',
            'models.toml: ["*"] aliases[0]: ["*"] is many names and can have no alias',
        ),
        (
            "[chat-small]\n" + TARGET + '["!x"]\ntargets = [{engine="gpu0"}]\n',
            'models.toml: ["!x"]: a name does not start with !, which means not in the lists '
            "of teams.toml",
        ),
    ],
)
def test_a_model_that_cannot_work_is_refused(tmp_path, models, said):
    assert problems_of(write(tmp_path, models=models)) == [said]


@pytest.mark.parametrize(
    ("gateway", "said"),
    [
        (
            "plugins = []",
            "gateway.toml: plugins: no plugin is listed, so nobody could call (there are: "
            "access_log, allow_lists, anonymous, defaults, gguf_engine, quota, routing)",
        ),
        (
            'plugins = ["anonymous", "routing", "gguf_engine", "routing"]',
            'gateway.toml: plugins[3]: "routing" is listed twice',
        ),
        (
            'plugins = ["routing", "gguf_engine"]',
            "gateway.toml: plugins: no plugin says who is calling, so every call would be "
            "refused; add one of: anonymous",
        ),
        ('plugins = "routing"', 'gateway.toml: plugins: "routing" is not a list of plugin names'),
    ],
)
def test_a_list_of_plugins_that_cannot_work_is_refused(tmp_path, gateway, said):
    assert problems_of(write(tmp_path, gateway=gateway)) == [said]


def test_the_name_of_a_plugin_is_text(tmp_path):
    directory = write(tmp_path, gateway='plugins = ["anonymous", "routing", "gguf_engine", 5]')

    assert problems_of(directory) == ["gateway.toml: plugins[3]: 5 is not the name of a plugin"]


@pytest.mark.parametrize("mark", ["", "!"])
def test_a_team_names_models_and_not_aliases(tmp_path, mark):
    teams = GOOD["teams"].replace("chat-small", f"{mark}gpt-4o-mini")

    assert problems_of(write(tmp_path, teams=teams)) == [
        f'teams.toml: [search] models[0]: "{mark}gpt-4o-mini" never matches: "gpt-4o-mini" is an '
        f'alias, and a team\'s models are names of models.toml; write "{mark}chat-small"'
    ]


def test_a_denial_of_nothing_is_refused(tmp_path):
    teams = '[search]\nmodels = ["!"]\nendpoints = ["!"]\n'

    assert [problem.split(": ")[1] for problem in problems_of(write(tmp_path, teams=teams))] == [
        "[search] models[0]",
        "[search] endpoints[0]",
    ]


def test_a_policy_that_means_what_it_says_has_no_warnings(tmp_path):
    assert _warnings(_quiet(tmp_path)) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"engines": GOOD["engines"]},
            "engines.toml: [gpu1]: no model of models.toml uses this engine",
        ),
        (
            {"limits": "[standard]\n[bulk]\n"},
            "limits.toml: [bulk]: no team of teams.toml has these limits",
        ),
        (
            {"limits": GOOD["limits"]},
            "limits.toml: [standard] requests_per_minute: no listed plugin enforces it; "
            "add rate_limits",
        ),
        (
            {"gateway": GOOD["gateway"].replace('"allow_lists", ', "")},
            "gateway.toml: plugins: no listed plugin enforces the models and endpoints of "
            "teams.toml; add allow_lists",
        ),
        (
            {"teams": GOOD["teams"].replace("chat-small", "chat-smal")},
            'teams.toml: [search] models[0]: "chat-smal" matches no model '
            '(did you mean "chat-small"?)',
        ),
        (
            {"teams": GOOD["teams"].replace("chat-small", "gpt-*")},
            'teams.toml: [search] models[0]: "gpt-*" matches no model (there are: chat-small); '
            "aliases do not count: write chat-small",
        ),
        (
            {"teams": GOOD["teams"].replace("openai.*", "openai.chta")},
            'teams.toml: [search] endpoints[0]: "openai.chta" matches no endpoint '
            '(did you mean "openai.chat"?)',
        ),
        (
            {"teams": GOOD["teams"].replace('["openai.*"]', "[]")},
            "teams.toml: [search] endpoints: is empty, so this team may use no endpoint",
        ),
        (
            {"models": "[chat-small]\n" + TARGET + TARGET},
            "models.toml: [chat-small] targets[1]: is the same engine and model as a target "
            "before it",
        ),
        (
            {"models": '[chat-small]\nsticky = "key"\n' + TARGET},
            "models.toml: [chat-small] sticky: has no effect with a single target",
        ),
    ],
)
def test_a_line_that_does_nothing_is_warned_about(tmp_path, files, said):
    assert _warnings(_quiet(tmp_path, **files)) == [said]


TWO = TARGET + '[[chat-small.targets]]\nengine = "gpu0"\nmodel = "other"\n'
SOME = TARGET + '[[chat-small.targets]]\nengine = "gpu0"\ncanary = { percent = 5 }\n'


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ('choice = "latency"\n' + TARGET, "choice: has no effect with a single target"),
        ("hedge.after_seconds = 1\n" + TARGET, "hedge: has no effect with a single target"),
        (
            'choice = "latency"\nsticky = "key"\n' + TWO,
            "choice: has no effect beside sticky, which decides before it",
        ),
        (
            'session_header = "x-chat"\nsticky = "key"\n' + TWO,
            'session_header: has no effect without sticky = "session"',
        ),
        (
            "prefix_characters = 100\n" + TWO,
            'prefix_characters: has no effect without sticky = "prefix"',
        ),
        (
            'mirror = { engine = "gpu0", model = "x", percent = 0 }\n' + TARGET,
            "mirror: has no effect with percent = 0",
        ),
        (
            "retry = { times = 2, budget_percent = 0 }\n" + TARGET,
            "retry.times: has no effect with budget_percent = 0",
        ),
        (
            TWO + "priority = 1\nweight = 3\n",
            "targets: weight 3 has no effect: no other target has priority 1",
        ),
        (
            SOME.replace("percent = 5", "percent = 0"),
            "targets[1].canary: has no effect with percent = 0",
        ),
        (SOME + "drain = true\n", "targets[1].canary: has no effect: the target takes no calls"),
    ],
)
def test_a_line_about_targets_that_does_nothing_is_warned_about(tmp_path, models, said):
    directory = _quiet(tmp_path, models="[chat-small]\n" + models)

    assert _warnings(directory) == [f"models.toml: [chat-small] {said}"]


@pytest.mark.parametrize(
    "models",
    [
        'sticky = "key"\n' + SOME,
        'sticky = "session"\nsession_header = "x-chat"\nretry.times = 2\n' + TWO,
        'sticky = "prefix"\nprefix_characters = 100\nhedge.after_seconds = 2\n' + TWO,
        'choice = "least_busy"\nmirror = { engine = "gpu0", model = "x" }\n' + TWO,
        TWO + "priority = 1\n",
    ],
)
def test_what_has_an_effect_is_not_warned_about(tmp_path, models):
    assert _warnings(_quiet(tmp_path, models="[chat-small]\n" + models)) == []


def test_an_engine_that_only_mirrors_is_used(tmp_path):
    models = '[chat-small]\nmirror = { engine = "gpu1", model = "x" }\n' + TARGET

    assert _warnings(_quiet(tmp_path, models=models, engines=GOOD["engines"])) == []


def test_an_open_policy_has_any_model(tmp_path):
    models = '[chat-small]\ntargets = [{engine="gpu0"}]\n["*"]\ntargets = [{engine="gpu0"}]\n'
    teams = GOOD["teams"].replace("chat-small", "whatever")

    assert _warnings(_quiet(tmp_path, models=models, teams=teams)) == []


def test_a_gateway_without_models_or_teams_is_warned_about(tmp_path):
    directory = write(tmp_path, models=None, teams=None, limits=None, engines=None)

    assert _warnings(directory) == [
        "models.toml: names no model, so there is nothing to call",
        "teams.toml: names no team, so nobody may call anything",
    ]
