from pathlib import Path

import pytest

from tests.gateway.policy.directories import GOOD, problems_of, write

# What was written instead of which part of a good directory, and all that is said about it.
TYPOS = [
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu0"\nwieght = 2'),
        'models.toml: [chat-small] targets[0]: unknown key "wieght" (did you mean "weight"?)',
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu9"'),
        'models.toml: [chat-small] targets[0].engine: "gpu9" is not in engines.toml '
        "(there are: gpu0, gpu1)",
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "overflow"'),
        'models.toml: [chat-small] targets[0].engine: "overflow" is not in engines.toml '
        "(there are: gpu0, gpu1)",
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu0"\nweight = -1'),
        "models.toml: [chat-small] targets[0].weight: -1 is not a number of at least 0",
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu0"\nweight = nan'),
        "models.toml: [chat-small] targets[0].weight: nan is not a number that anything "
        "can be set to",
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu0"\nweight = "5"'),
        'models.toml: [chat-small] targets[0].weight: "5" is not a number of at least 0 '
        "(write it without quotes)",
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu0"\nweight = true'),
        "models.toml: [chat-small] targets[0].weight: true is not a number of at least 0",
    ),
    (
        "models",
        ('engine = "gpu0"', 'model = "x"'),
        'models.toml: [chat-small] targets[0]: "engine" is missing: it is text that is not empty',
    ),
    (
        "models",
        ("[[chat-small.targets]]", "[chat-small.targets]"),
        "models.toml: [chat-small] targets: a table is not a list with something in it "
        "(write [[chat-small.targets]])",
    ),
    (
        "models",
        ("[[chat-small.targets]]", "[[chat-small.target]]"),
        [
            'models.toml: [chat-small]: unknown key "target" (did you mean "targets"?)',
            'models.toml: [chat-small]: "targets" is missing: it is a list with something in it',
        ],
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', 'aliases = "gpt-4o-mini"'),
        'models.toml: [chat-small] aliases: "gpt-4o-mini" is not a list (write ["gpt-4o-mini"])',
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', 'aliases = ["a", 5]'),
        "models.toml: [chat-small] aliases[1]: 5 is not text that is not empty",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', 'sticky = "kee"'),
        'models.toml: [chat-small] sticky: "kee" is not one of "key", "prefix", '
        '"session" (did you mean "key"?)',
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu0"\ncanary = { team = ["search"] }'),
        'models.toml: [chat-small] targets[0].canary: unknown key "team" (did you mean "teams"?)',
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu0"\ncanary = { percent = 101 }'),
        "models.toml: [chat-small] targets[0].canary.percent: 101 is not a number from 0 to 100",
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu0"\ncanary = { headers = { x-canary = true } }'),
        "models.toml: [chat-small] targets[0].canary.headers.x-canary: true is not text that is "
        "not empty",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', 'choice = "least-busy"'),
        'models.toml: [chat-small] choice: "least-busy" is not one of "latency", "least_busy", '
        '"weight" (did you mean "least_busy"?)',
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', "retry = { times = 11 }"),
        "models.toml: [chat-small] retry.times: 11 is not a whole number from 0 to 10",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', "retry = { budget_percent = 50 }"),
        "models.toml: [chat-small] retry.budget_percent: 50 is not a number from 0 to 20",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', "retry = { wait_seconds = 20 }"),
        "models.toml: [chat-small] retry: max_wait_seconds (10) is shorter than wait_seconds (20)",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', "breaker = { open_seconds = 5, max_open_seconds = 4 }"),
        "models.toml: [chat-small] breaker: max_open_seconds (4) is shorter than open_seconds (5)",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', "first_output_timeout_seconds = 0"),
        "models.toml: [chat-small] first_output_timeout_seconds: 0 is not a number over 0 and at "
        "most 86400",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', "hedge = {}"),
        'models.toml: [chat-small] hedge: "after_seconds" is missing: it is a number over 0 and '
        "at most 86400",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', 'mirror = { engine = "gpu9" }'),
        'models.toml: [chat-small] mirror.engine: "gpu9" is not in engines.toml '
        "(there are: gpu0, gpu1)",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', "defaults = { temperature = 3 }"),
        "models.toml: [chat-small] defaults.temperature: 3 is not a number from 0 to 2",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', "defaults = { top_p = 0.0 }"),
        "models.toml: [chat-small] defaults.top_p: 0.0 is not a number over 0 and at most 1",
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', "defaults = { temprature = 1 }"),
        'models.toml: [chat-small] defaults: unknown key "temprature" '
        '(did you mean "temperature"?)',
    ),
    (
        "models",
        ('aliases = ["gpt-4o-mini"]', 'name = "x"'),
        'models.toml: [chat-small]: unknown key "name" (there are: aliases, breaker, choice, '
        "defaults, description, fallbacks, first_output_timeout_seconds, hedge, mirror, "
        "prefix_characters, retry, session_header and 2 more)",
    ),
    (
        "models",
        ("", "[qwen2.5]\ndescription = 'x'\n"),
        [
            'models.toml: [qwen2]: unknown key "5" (there are: aliases, breaker, choice, '
            "defaults, description, fallbacks, first_output_timeout_seconds, hedge, mirror, "
            "prefix_characters, retry, session_header and 2 more); a name with a dot is written "
            'in quotes: ["qwen2.5"]',
            'models.toml: [qwen2]: "targets" is missing: it is a list with something in it',
        ],
    ),
    (
        "models",
        ("", 'description = "x"\n'),
        'models.toml: description: "x" is not a table: put it under the model it belongs to, '
        "such as [my-model]",
    ),
    (
        "models",
        ('[[chat-small.targets]]\nengine = "gpu0"', "[chat-small]"),
        "models.toml: line 3, column 12: cannot declare [chat-small] twice",
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine "gpu0"'),
        "models.toml: line 4, column 8: expected '=' after a key in a key/value pair",
    ),
    (
        "models",
        ('engine = "gpu0"', 'engine = "gpu0'),
        "models.toml: line 4, column 15: illegal character '\\n'",
    ),
    (
        "models",
        ('\nengine = "gpu0"\n', "\nengine ="),
        "models.toml: line 4: invalid value: the file ends too early",
    ),
    (
        "teams",
        ('"standard"', '"standart"'),
        'teams.toml: [search] limits: "standart" is not in limits.toml (did you mean "standard"?)',
    ),
    (
        "teams",
        ("limits =", "limit ="),
        'teams.toml: [search]: unknown key "limit" (did you mean "limits"?)',
    ),
    (
        "teams",
        ("[search]", '[" search"]'),
        'teams.toml: [" search"]: a name has characters that can be seen, and no space at its ends',
    ),
    (
        "teams",
        ("[search]", '["sea*"]'),
        'teams.toml: ["sea*"]: only a model may stand for many names with *',
    ),
    (
        "limits",
        ("600", "0"),
        "limits.toml: [standard] requests_per_minute: 0 is not a whole number of at least 1",
    ),
    (
        "limits",
        ("600", "600.5"),
        "limits.toml: [standard] requests_per_minute: 600.5 is not a whole number of at least 1",
    ),
    (
        "limits",
        ("600", "2026-11-21"),
        "limits.toml: [standard] requests_per_minute: 2026-11-21 is not a whole number "
        "of at least 1",
    ),
    (
        "engines",
        ('kind = "gguf"\n[gpu1]', 'kind = "ggfu"\n[gpu1]'),
        'engines.toml: [gpu0] kind: "ggfu" is not a kind of engine that a listed plugin '
        'registers (did you mean "gguf"?)',
    ),
    (
        "engines",
        ('kind = "gguf"\n[gpu1]', "[gpu1]"),
        'engines.toml: [gpu0]: "kind" is missing: it says which implementation the engine is '
        "(there are: gguf)",
    ),
    (
        "engines",
        ('kind = "gguf"\n[gpu1]', 'kind = "gguf"\nkeep_alive = 5\n[gpu1]'),
        'engines.toml: [gpu0]: unknown key "keep_alive" (did you mean "keep_alive_seconds"?)',
    ),
    (
        "engines",
        ('kind = "gguf"\n[gpu1]', 'kinds = "gguf"\nprecision = "half"\n[gpu1]'),
        [
            'engines.toml: [gpu0]: "kind" is missing: it says which implementation the engine is '
            "(there are: gguf)",
            'engines.toml: [gpu0]: unknown key "kinds" (did you mean "kind"?)',
        ],
    ),
    (
        "engines",
        ('kind = "gguf"\n[gpu1]', 'kind = "gguf"\nkeep_alive_seconds = 13\n[gpu1]'),
        "engines.toml: [gpu0]: keep_alive_seconds may not be 13 today",
    ),
    (
        "engines",
        ('kind = "gguf"\n[gpu1]', 'kind = "gguf"\nprecision = "halff"\n[gpu1]'),
        'engines.toml: [gpu0] precision: "halff" is not one of "full", "half" '
        '(did you mean "half"?)',
    ),
    (
        "engines",
        ('kind = "gguf"\n[gpu1]', 'kind = "gguf"\nlayers = { first = 1, last = "x" }\n[gpu1]'),
        'engines.toml: [gpu0] layers.last: "x" is not a whole number',
    ),
    (
        "gateway",
        ("plugins", "plugin"),
        [
            'gateway.toml: "plugins" is missing: it lists the plugins, in order',
            'gateway.toml: "plugin" is neither plugins nor an installed plugin\'s table '
            '(did you mean "plugins"?)',
        ],
    ),
    (
        "gateway",
        ('"routing"', '"routng"'),
        [
            'gateway.toml: plugins[2]: "routng" is not an installed plugin '
            '(did you mean "routing"?)',
            "gateway.toml: plugins: no plugin chooses a target, so no call could be answered; "
            "add one of: routing",
        ],
    ),
]


def _typed(tmp_path: Path, noun: str, replacement: tuple[str, str]) -> Path:
    old, new = replacement
    assert old in GOOD[noun]
    return write(tmp_path, **{noun: GOOD[noun].replace(old, new, 1)})


@pytest.mark.parametrize(("noun", "replacement", "said"), TYPOS)
def test_a_typo_is_named_with_its_place_and_the_way_out(tmp_path, noun, replacement, said):
    directory = _typed(tmp_path, noun, replacement)

    assert problems_of(directory) == ([said] if isinstance(said, str) else said)
