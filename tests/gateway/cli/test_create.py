import hashlib
import json
from pathlib import Path

import pytest

from tests.gateway.cli.conftest import Typed
from tests.gateway.cli.fake_gateway import FakeGateway

WHOLE = '''
# what it is made from
from tiny
PARAMETER temperature 0.5
parameter num_ctx 4096
PARAMETER stop "a b"
PARAMETER stop <end>
TEMPLATE "{{ .Prompt }}"
SYSTEM """
Be kind.
"Always."
"""
MESSAGE user hello
MESSAGE assistant """hi
there"""
LICENSE one
LICENSE two
REQUIRES 0.1
'''


def digest_of(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def modelfile(tmp_path: Path) -> Path:
    return tmp_path / "Modelfile"


def test_every_instruction_arrives_as_a_field(
    fake: FakeGateway, typed: Typed, modelfile: Path
) -> None:
    modelfile.write_text(WHOLE)

    result = typed("create", "mine", "-f", str(modelfile), "--quantize", "q4_K_M")

    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines() == ["writing manifest", "success"]
    assert fake.bodies("/api/create") == [
        {
            "model": "mine",
            "from": "tiny",
            "quantize": "q4_K_M",
            "parameters": {"temperature": 0.5, "num_ctx": 4096, "stop": ["a b", "<end>"]},
            "template": "{{ .Prompt }}",
            "system": '\nBe kind.\n"Always."\n',
            "messages": [
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": "hi\nthere"},
            ],
            "license": ["one", "two"],
            "requires": "0.1",
            "stream": True,
        }
    ]


def test_quotes_tabs_and_empty_texts_arrive_as_they_were_meant(
    fake: FakeGateway, typed: Typed, modelfile: Path
) -> None:
    modelfile.write_bytes(
        b'FROM\ttiny\nSYSTEM ""\nTEMPLATE Say "hi"\nPARAMETER\ttemperature\t0.3\n'
        b'MESSAGE\tuser\tPrint the word "hi"\nPARAMETER stop "\r\n"\n'
    )

    typed("create", "mine", "-f", str(modelfile))

    [body] = fake.bodies("/api/create")
    assert (body["system"], body["template"]) == ("", 'Say "hi"')
    assert body["parameters"] == {"temperature": 0.3, "stop": ["\r\n"]}
    assert body["messages"] == [{"role": "user", "content": 'Print the word "hi"'}]


def test_files_are_sent_under_their_digests_and_only_once(
    fake: FakeGateway, typed: Typed, modelfile: Path
) -> None:
    weights, adapter = modelfile.with_name("a.gguf"), modelfile.with_name("lora.gguf")
    weights.write_bytes(b"GGUF" * 1_000_000)
    adapter.write_bytes(b"lora")
    modelfile.write_text(f"FROM ./a.gguf\nADAPTER {adapter}")

    first = typed("create", "mine", "-f", str(modelfile))
    again = typed("create", "mine", "-f", str(modelfile))

    assert fake.blobs == {
        digest_of(weights): weights.read_bytes(),
        digest_of(adapter): adapter.read_bytes(),
    }
    body = fake.bodies("/api/create")[0]
    assert body["files"] == {"a.gguf": digest_of(weights)}
    assert body["adapters"] == {"lora.gguf": digest_of(adapter)}
    assert "from" not in body
    assert "sending a.gguf: done" in first.stderr
    assert "a.gguf is there already" in again.stderr
    assert "sending" not in again.stderr


def test_of_a_folder_weights_and_what_says_how_to_read_them_are_sent(
    fake: FakeGateway, typed: Typed, modelfile: Path
) -> None:
    folder = modelfile.parent / "model"
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.model", "README.md", "x.bin"):
        (folder / name).write_text(name)
    modelfile.write_text("FROM model")

    typed("create", "mine", "-f", str(modelfile))

    [body] = fake.bodies("/api/create")
    assert set(body["files"]) == {"model.safetensors", "config.json", "tokenizer.model"}


@pytest.mark.parametrize(
    ("there", "sent"),
    [
        (["model.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (["m-1-of-2.safetensors", "m-2-of-2.safetensors", "x.safetensors"],
         ["m-1-of-2.safetensors", "m-2-of-2.safetensors"]),
        (["a.safetensors", "a.gguf"], ["a.safetensors"]),
        (["a.gguf", "mmproj.gguf"], ["a.gguf", "mmproj.gguf"]),
        (["adapter_model.safetensors"], ["adapter_model.safetensors"]),
    ],
)  # fmt: skip
def test_of_tensors_that_are_there_twice_one_copy_is_sent(
    fake: FakeGateway, typed: Typed, modelfile: Path, there: list[str], sent: list[str]
) -> None:
    folder = modelfile.parent / "model"
    folder.mkdir()
    for name in there:
        (folder / name).write_text(name)
    if "m-1-of-2.safetensors" in there:
        index = {"weight_map": {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    modelfile.write_text("FROM ./model")

    typed("create", "mine", "-f", str(modelfile))

    [body] = fake.bodies("/api/create")
    assert [name for name in sorted(body["files"]) if not name.endswith(".json")] == sent


def test_an_adapter_of_peft_brings_its_configuration_along(
    fake: FakeGateway, typed: Typed, modelfile: Path
) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        modelfile.with_name(name).write_text(name)
    modelfile.write_text("FROM tiny\nADAPTER ./adapter_model.safetensors")

    typed("create", "mine", "-f", str(modelfile))

    [body] = fake.bodies("/api/create")
    assert set(body["adapters"]) == {"adapter_model.safetensors", "adapter_config.json"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SYSTEM be kind", "the Modelfile has no FROM"),
        ("FROM tiny\nFRUM tiny", "line 2 of the Modelfile: there is no instruction 'FRUM'"),
        ('FROM tiny\nSYSTEM """never', "line 2 of the Modelfile: SYSTEM has a quotation"),
        ("FROM ./missing.gguf", "FROM ./missing.gguf: there is no file"),
        ("FROM a\nFROM b", "FROM a and FROM b: a model has one"),
        ("FROM tiny\nADAPTER lora", "ADAPTER lora: there is no such file"),
        ("FROM tiny\nTEMPLATE", "TEMPLATE has no value"),
        ("FROM .", "the folder has no *.safetensors and no *.gguf"),
    ],
)
def test_what_is_wrong_with_a_modelfile_is_told_before_anything_is_sent(
    fake: FakeGateway, typed: Typed, modelfile: Path, text: str, problem: str
) -> None:
    modelfile.write_text(text)

    result = typed("create", "mine", "-f", str(modelfile))

    assert result.exit_code == 1
    assert problem in " ".join(result.stderr.split())
    assert fake.asked == []


def test_a_modelfile_that_is_not_there_or_no_text_is_named(typed: Typed, modelfile: Path) -> None:
    missing = typed("create", "mine", "-f", str(modelfile))
    modelfile.write_bytes(b"FROM \xff\x00")
    no_text = typed("create", "mine", "-f", str(modelfile))

    assert "Modelfile cannot be read: No such file" in missing.stderr
    assert "is no text" in no_text.stderr


def test_a_modelfile_of_windows_is_read(fake: FakeGateway, typed: Typed, modelfile: Path) -> None:
    modelfile.write_text("FROM tiny\nSYSTEM größe\n", encoding="utf-16")

    assert typed("create", "mine", "-f", str(modelfile)).exit_code == 0
    assert fake.bodies("/api/create")[0]["system"] == "größe"


def test_a_making_that_fails_says_why(fake: FakeGateway, typed: Typed, modelfile: Path) -> None:
    modelfile.write_text("FROM tiny")
    fake.making = [{"status": "quantizing"}, {"error": "it is quantized already"}]

    result = typed("create", "mine", "-f", str(modelfile))

    assert result.exit_code == 1
    assert "it is quantized already" in result.stderr


def test_who_may_not_send_files_is_told_before_they_are_sent(
    fake: FakeGateway, typed: Typed, modelfile: Path
) -> None:
    modelfile.with_name("a.gguf").write_bytes(b"GGUF")
    modelfile.write_text("FROM ./a.gguf\nPARAMETER temperature nan")
    fake.refusal = (403, "this answer to HEAD is never seen")

    result = typed("create", "mine", "-f", str(modelfile))

    assert result.exit_code == 1
    assert "this wants the role admin, or a team that may" in result.stderr
    assert fake.blobs == {}


def test_what_is_no_finite_number_goes_as_the_text_that_it_is(
    fake: FakeGateway, typed: Typed, modelfile: Path
) -> None:
    modelfile.write_text("FROM tiny\nPARAMETER temperature nan\nPARAMETER use_mmap True")

    typed("create", "mine", "-f", str(modelfile))

    [body] = fake.bodies("/api/create")
    assert body["parameters"] == {"temperature": "nan", "use_mmap": True}
