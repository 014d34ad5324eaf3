"""The fields of a create request as instructions, understood by the engine that is given it."""

from typing import Any

import msgspec
import pytest

from engines.gguf.modelfile import read_modelfile
from gateway.api.ollama.modelfile import Draft, instructions_of
from gateway.errors import BadRequest

DIGEST = "sha256:" + "0" * 64
ODD = 'Say "hi".\u2028\f"""\nFROM x\r\n"""\nAnd "bye"'
DRAFT = Draft(
    source="base:1b", files={}, adapters={}, texts={}, licenses=(), parameters={}, messages=()
)


def draft(**fields: Any) -> Draft:
    return msgspec.structs.replace(DRAFT, **fields)


def test_the_engine_reads_back_what_was_asked_for() -> None:
    texts = {"SYSTEM": ODD, "TEMPLATE": "{{ .Prompt }}", "PARSER": None}

    read = read_modelfile(
        instructions_of(
            draft(
                texts=texts,
                licenses=[ODD, "BSD"],
                parameters={"temperature": 0.5, "num_ctx": 4096, "stop": ["a", "\r\n", ODD]},
                messages=[("user", "FROM me"), ("assistant", ODD)],
                adapters={"lora.gguf": DIGEST},
            )
        )
    )

    assert read.sources == ("base:1b",)
    assert read.system == texts["SYSTEM"]
    assert read.template == "{{ .Prompt }}"
    assert read.licenses == (ODD, "BSD")
    assert read.parameters == {"temperature": 0.5, "num_ctx": 4096, "stop": ["a", "\r\n", ODD]}
    assert [(one.role, one.content) for one in read.messages] == [
        ("user", "FROM me"),
        ("assistant", ODD),
    ]
    assert read.adapters == (f"@{DIGEST}",)


def test_a_gguf_file_is_its_digest_and_another_has_its_name_too() -> None:
    files = {"model.gguf": DIGEST, "config.json": DIGEST, "in/tokenizer.json": DIGEST}

    said = instructions_of(draft(source=None, files=files))

    assert [(one.name, one.value) for one in said] == [
        ("FROM", f"@{DIGEST} config.json"),
        ("FROM", f"@{DIGEST} tokenizer.json"),
        ("FROM", f"@{DIGEST}"),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source": "a\nFROM b"}, "from is"),
        ({"files": {"a.gguf": "sha256:../../etc"}}, "no digest"),
        ({"files": {"a.gguf": DIGEST + "\nFROM x"}}, "no digest"),
        ({"files": {"../..": DIGEST}}, "no name of a file"),
        ({"files": {"a b.json": DIGEST}}, "no name of a file"),
        ({"parameters": {"stop": [{}]}}, "no text and no number"),
    ],
)
def test_what_is_no_name_and_no_value_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        instructions_of(draft(**fields))
