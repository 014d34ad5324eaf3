from pathlib import Path

import msgspec
import pytest
from msgspec.structs import fields

from engines.gguf.config import GgufConfig
from engines.gguf.environment import TWINS, ollama_defaults, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("90", 90), ("0", 0), ("-1", -1),
        ("-5m", -300), ("1.5h", 5400), ("soon", None), ("5 m", None), ("", None),
    ],
)  # fmt: skip
def test_a_duration_is_read_as_ollama_writes_it(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_each_variable_has_a_key_that_there_is() -> None:
    keys = {key for keys, _ in TWINS.values() for key in keys}

    assert keys <= {field.name for field in fields(GgufConfig)}


def test_variables_become_keys(tmp_path: Path) -> None:
    found = ollama_defaults(
        {
            "OLLAMA_MODELS": str(tmp_path),
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_NUM_PARALLEL": "4",
            "OLLAMA_MAX_LOADED_MODELS": '"3"',
            "OLLAMA_CONTEXT_LENGTH": "4096",
            "OLLAMA_KV_CACHE_TYPE": "Q8_0",
            "OLLAMA_FLASH_ATTENTION": "1",
        },
        {},
    )

    assert {key: value for key, (_, value) in found.items()} == {
        "ollama_models_dir": str(tmp_path),
        "keep_alive_seconds": -1,
        "num_slots": 4,
        "max_loaded_models": 3,
        "context_tokens": 4096,
        "cache_type_k": "q8_0",
        "cache_type_v": "q8_0",
        "flash_attention": True,
    }
    assert found["num_slots"][0] == "OLLAMA_NUM_PARALLEL"


@pytest.mark.parametrize(
    "environ",
    [
        {"OLLAMA_NUM_PARALLEL": "0"},
        {"OLLAMA_NUM_PARALLEL": "many"},
        {"OLLAMA_KEEP_ALIVE": "long"},
        {"OLLAMA_MODELS": "/no/such/folder"},
        {"OLLAMA_CONTEXT_LENGTH": ""},
        {"OLLAMA_KV_CACHE_TYPE": "q3"},
        {"OLLAMA_FLASH_ATTENTION": "maybe"},
    ],
)
def test_what_cannot_be_used_is_as_good_as_not_set(environ: dict[str, str]) -> None:
    assert ollama_defaults(environ, {}) == {}


@pytest.mark.parametrize(
    ("table", "environ"),
    [
        ({"cache": "exact"}, {"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "1"}),
        ({"flash_attention": False}, {"OLLAMA_KV_CACHE_TYPE": "q8_0"}),
    ],
)
def test_what_does_not_go_with_the_policy_is_left_out(
    table: dict[str, object], environ: dict[str, str]
) -> None:
    assert ollama_defaults(environ, table) == {}


def test_no_environment_makes_a_table_that_does_not_hold() -> None:
    environ = {"OLLAMA_KV_CACHE_TYPE": "q4_0", "OLLAMA_FLASH_ATTENTION": "0"}

    found = ollama_defaults(environ, {})

    assert msgspec.convert({key: value for key, (_, value) in found.items()}, GgufConfig)
