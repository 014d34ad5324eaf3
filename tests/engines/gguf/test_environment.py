from pathlib import Path

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
    assert {key for key, _ in TWINS.values()} <= {field.name for field in fields(GgufConfig)}


def test_variables_become_keys(tmp_path: Path) -> None:
    found = ollama_defaults(
        {
            "OLLAMA_MODELS": str(tmp_path),
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_NUM_PARALLEL": "4",
            "OLLAMA_MAX_LOADED_MODELS": '"3"',
            "OLLAMA_CONTEXT_LENGTH": "4096",
        }
    )

    assert {key: value for key, (_, value) in found.items()} == {
        "ollama_models_dir": str(tmp_path),
        "keep_alive_seconds": -1,
        "num_slots": 4,
        "max_loaded_models": 3,
        "context_tokens": 4096,
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
    ],
)
def test_what_cannot_be_used_is_as_good_as_not_set(environ: dict[str, str]) -> None:
    assert ollama_defaults(environ) == {}
