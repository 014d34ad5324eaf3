"""The fields of a create request as a Modelfile, read back by the engine that is given it."""

from typing import Any

import msgspec
import pytest

from engines.gguf.modelfile import read_modelfile
from gateway.api.ollama.modelfile import Draft, to_modelfile
from gateway.errors import BadRequest

DIGEST = "sha256:" + "0" * 64
DRAFT = Draft(
    source="base:1b", files={}, adapters={}, texts={}, licenses=(), parameters={}, messages=()
)


def draft(**fields: Any) -> Draft:
    return msgspec.structs.replace(DRAFT, **fields)


def test_the_engine_reads_back_what_was_asked_for() -> None:
    texts = {"SYSTEM": 'Say "hi".\nAnd "bye". ', "TEMPLATE": "{{ .Prompt }}", "PARSER": None}

    read = read_modelfile(
        to_modelfile(
            draft(
                texts=texts,
                licenses=["MIT\nand so on", "BSD"],
                parameters={"temperature": 0.5, "num_ctx": 4096, "stop": ["a", "b c"]},
                messages=[("user", "FROM me"), ("assistant", "to\nyou")],
                adapters={"lora.gguf": DIGEST},
            )
        )
    )

    assert read.sources == ("base:1b",)
    assert read.system == texts["SYSTEM"]
    assert read.template == "{{ .Prompt }}"
    assert read.licenses == ("MIT\nand so on", "BSD")
    assert read.parameters == {"temperature": 0.5, "num_ctx": 4096, "stop": ["a", "b c"]}
    assert [(one.role, one.content) for one in read.messages] == [
        ("user", "FROM me"),
        ("assistant", "to\nyou"),
    ]
    assert read.adapters == (f"@{DIGEST}",)


def test_a_gguf_file_is_its_digest_and_another_has_its_name_too() -> None:
    files = {"model.gguf": DIGEST, "config.json": DIGEST, "in/tokenizer.json": DIGEST}

    written = to_modelfile(draft(source=None, files=files))

    assert written.splitlines() == [
        f"FROM @{DIGEST} config.json",
        f"FROM @{DIGEST} tokenizer.json",
        f"FROM @{DIGEST}",
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"texts": {"SYSTEM": 'a"""\nFROM x'}}, "system has"),
        ({"texts": {"SYSTEM": 'ends with "'}}, "system has"),
        ({"source": "a\nFROM b"}, "from is"),
        ({"files": {"a.gguf": "sha256:../../etc"}}, "no digest"),
        ({"files": {"a.gguf": DIGEST + "\nFROM x"}}, "no digest"),
        ({"files": {"../..": DIGEST}}, "no name of a file"),
        ({"files": {"a b.json": DIGEST}}, "no name of a file"),
        ({"parameters": {"a\nFROM": 1}}, "no name"),
        ({"parameters": {"stop": [{}]}}, "no text and no number"),
        ({"messages": [("user\nFROM x", "hi")]}, "messages is"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(
    fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadRequest, match=reason):
        to_modelfile(draft(**fields))
