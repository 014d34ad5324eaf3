from pathlib import Path

import pytest

from gateway.policy import PolicyInvalid, listed_plugins, load_policy
from tests.gateway.policy.directories import GOOD, PLUGIN_TABLES, load, problems_of, write


def test_a_good_directory_becomes_a_policy(tmp_path):
    policy = load(write(tmp_path))

    assert policy.plugins == ("anonymous", "allow_lists", "routing", "gguf_engine")
    assert policy.models["chat-small"].targets[0].engine == "gpu0"
    assert policy.aliases == {"gpt-4o-mini": "chat-small"}
    assert policy.teams["search"].name == "search"
    assert policy.limits["standard"].requests_per_minute == 600
    assert policy.engines["gpu1"].config.keep_alive_seconds == 300


def test_every_problem_is_told_at_once(tmp_path):
    directory = write(
        tmp_path,
        models=GOOD["models"].replace("aliases", "alias"),
        teams=GOOD["teams"].replace("standard", "none"),
        limits="[standard]\nrequests_per_minute = 'many'\nconcurrent_calls = 0\n",
    )

    problems = problems_of(directory)

    assert len(problems) == 4
    assert [problem.split(":")[0] for problem in problems] == [
        "models.toml",
        "limits.toml",
        "limits.toml",
        "teams.toml",
    ]


def test_a_broken_table_is_not_reported_again_where_it_is_used(tmp_path):
    directory = write(tmp_path, limits="[standard]\nrequests_per_minute = 0\n")

    assert len(problems_of(directory)) == 1


def test_a_file_that_is_referred_to_must_be_there(tmp_path):
    directory = write(tmp_path, limits=None)

    assert problems_of(directory) == [
        'teams.toml: [search] limits: "standard" would be a table of limits.toml, '
        "which is missing from DIR"
    ]


def test_a_file_that_nothing_refers_to_may_be_missing(tmp_path):
    directory = write(tmp_path, limits=None, teams='[search]\nmodels = ["*"]\n')

    assert load(directory).limits == {}


def test_a_plugin_table_must_be_of_a_listed_plugin_and_name_a_team_that_exists(tmp_path):
    directory = write(tmp_path, gateway=GOOD["gateway"] + '[anonymous]\nteam = "serach"\n')
    assert problems_of(directory) == [
        'gateway.toml: [anonymous] team: "serach" is not in teams.toml (did you mean "search"?)'
    ]

    unlisted = GOOD["gateway"].replace('"anonymous", ', "") + '[anonymous]\nteam = "search"\n'
    problems = problems_of(write(tmp_path, gateway=unlisted))
    assert problems[0] == (
        'gateway.toml: [anonymous]: does nothing, because plugins does not list "anonymous"'
    )


def test_a_plugin_without_a_table_takes_none(tmp_path):
    directory = write(tmp_path, gateway=GOOD["gateway"] + "[routing]\nseed = 1\n")

    assert problems_of(directory) == [
        "gateway.toml: [routing]: this plugin takes no table: remove it"
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", 'gateway.toml: [quota]: this table is missing: the plugin needs "per_day"'),
        ("[quota]\n", 'gateway.toml: [quota]: "per_day" is missing: it is a whole number'),
    ],
)
def test_a_plugin_that_needs_a_table_gets_one(tmp_path, table, said):
    gateway = GOOD["gateway"].replace('"routing"', '"routing", "quota"') + table

    assert problems_of(write(tmp_path, gateway=gateway)) == [said]


def test_the_digest_changes_with_any_byte_and_with_nothing_else(tmp_path):
    first = load(write(tmp_path / "a")).digest
    same = load(write(tmp_path / "b")).digest
    changed = load(write(tmp_path / "c", limits=GOOD["limits"] + "\n")).digest
    moved = load(
        write(tmp_path / "d", limits="[standard]", teams="# [standard]\n" + GOOD["teams"])
    ).digest

    assert first == same
    assert len({first, changed, moved}) == 3
    assert len(first) == 64


def test_plugins_can_be_listed_from_a_directory_that_does_not_load(tmp_path):
    directory = write(tmp_path, models="[[", engines=None)

    assert list(listed_plugins(directory)) == ["anonymous", "allow_lists", "routing", "gguf_engine"]
    assert listed_plugins(tmp_path / "nowhere") == ()


def test_an_engines_own_configuration_is_converted_to_its_struct(tmp_path):
    written = 'weights = "~/models"\nprecision = "full"\nlayers = { first = 1 }\n'
    engines = GOOD["engines"].replace("[gpu1]", f"{written}[gpu1]")

    config = load(write(tmp_path, engines=engines)).engines["gpu0"].config

    assert config.weights == Path.home() / "models"
    assert config.precision == "full"
    assert config.layers == {"first": 1}


def test_engines_without_a_plugin_for_them_are_refused(tmp_path):
    directory = write(tmp_path, gateway=GOOD["gateway"].replace('"gguf_engine"', '"defaults"'))

    with pytest.raises(PolicyInvalid) as refused:
        load_policy(directory, plugin_tables=PLUGIN_TABLES, engine_configs={})

    assert refused.value.problems == tuple(
        f'engines.toml: [{name}] kind: "gguf": no listed plugin registers an engine kind; '
        "list gguf_engine"
        for name in ("gpu0", "gpu1")
    )


def test_lists_of_a_policy_cannot_be_changed(tmp_path):
    policy = load(write(tmp_path))

    assert isinstance(policy.models["chat-small"].aliases, tuple)
    assert isinstance(policy.teams["search"].models, tuple)
