import re
from pathlib import Path

import msgspec
import pytest

from engines.gguf.config import GgufConfig

DOCS = Path(__file__).parents[3] / "docs" / "engines.md"


def test_every_key_is_in_the_docs_and_the_docs_have_no_other() -> None:
    section = DOCS.read_text().partition("## gguf")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)

    assert sorted(documented) == sorted(GgufConfig.__struct_fields__)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="contxt_tokens"):
        msgspec.convert({"contxt_tokens": 4096}, GgufConfig)


def config_of(**fields: object) -> GgufConfig:
    return msgspec.convert(fields, GgufConfig)


def test_a_models_own_table_wins_over_the_engines_keys() -> None:
    config = config_of(
        num_slots=8,
        keep_alive_seconds=5,
        models={"Qwen3": {"keep_alive_seconds": -1, "mmap": True}},
    )

    own = config.for_model("qwen3:latest")

    assert (own.keep_alive_seconds, own.mmap, own.num_slots, own.models) == (-1, True, 8, {})
    assert config.for_model("qwen3:4b").keep_alive_seconds == 5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"cache": "exact", "cache_type_k": "q8_0"}, 'cache = "exact" has its own types'),
        ({"cache": "exact", "flash_attention": True}, "leave cache_type_k"),
        ({"cache_type_v": "q8_0", "flash_attention": False}, "needs flash attention"),
        ({"cache_type_k": "q3_0"}, "Invalid enum value 'q3_0'"),
        ({"max_memory_bytes": 0}, ">= 1"),
        ({"num_gpu_layers": -1}, ">= 0"),
        ({"models": {"a": {"num_slot": 3}}}, "num_slot"),
        (
            {"cache": "exact", "models": {"a": {"cache_type_v": "q8_0"}}},
            r"models\.'a': cache = \"exact\"",
        ),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        config_of(**fields)
