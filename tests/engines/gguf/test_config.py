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
