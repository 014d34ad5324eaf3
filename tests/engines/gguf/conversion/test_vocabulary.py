"""Tokenizers as HuggingFace has them: llama.cpp gives the same tokens after conversion."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.gguf.conversion.special_tokens import read_special_tokens
from engines.gguf.conversion.vocabulary import (
    BYTE,
    CONTROL,
    RULES,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    read_vocabulary,
)
from engines.gguf.conversion.writing import add_special_tokens, add_vocabulary
from tests.engines.starter.loaded_gguf import LoadedGguf

CORPUS = [
    "The quick brown fox jumps over the lazy dog, doesn't it? It's 12345 times he'll try.",
    "Straße, naïve café, Größe; fiancée's rôle. Привет, мир! Как дела? 你好世界。",
    "def f(x):\n    return x ** 2  # squares\n\n\nprint(f(10), 3.14159, 'done')\r\n\ttabs\t\there",
    "HTTPServer camelCase SCREAMING_CASE kebab-case  double  spaces   triple",
] * 20
TEXTS = [
    *CORPUS[:4],
    " leading",
    "trailing ",
    "\n\n",
    "a  b",
    "€🙂 emoji",
    "1 22 333 4444",
    "I'M'LL",
]


def words(seed: int) -> str:
    source = random.Random(seed)
    alphabet = "abc XYZ 0123 .,'!\n\täöß"
    return "".join(source.choice(alphabet) for _ in range(200))


def byte_level(*splits: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    uses_regex = not any(isinstance(split, pre_tokenizers.Split) for split in splits)
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=uses_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, last]) if splits else last
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|end|>", "<|im_start|>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def pieces(*, prefix: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    steps: list[Any] = [normalizers.Replace(" ", "\u2581")]
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), *steps] if prefix else steps
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        [text.replace("\n", " ") for text in CORPUS],
        trainers.BpeTrainer(vocab_size=600, special_tokens=special),
    )
    said = json.loads(tokenizer.to_str())
    said["added_tokens"] = [token for token in said["added_tokens"] if token["id"] < 3]
    return Tokenizer.from_str(json.dumps(said))


def loaded(folder: Path) -> LoadedGguf:
    """A model that has a vocabulary and nothing else."""
    vocabulary = read_vocabulary(folder, 700)
    path = folder / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    add_vocabulary(writer, vocabulary)
    add_special_tokens(writer, read_special_tokens(folder, vocabulary))
    for method, value in (("context_length", 8), ("embedding_length", 8), ("block_count", 1),
                          ("feed_forward_length", 8), ("head_count", 1)):  # fmt: skip
        getattr(writer, f"add_{method}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file):
        write()
    writer.write_tensors_to_file()
    writer.close()
    return LoadedGguf(path, tokenizer_only=True)


def check_same(tokenizer: Tokenizer, folder: Path) -> None:
    model = loaded(folder)
    for text in [*TEXTS, *map(words, range(20))]:
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert model.tokenize(text, special=False) == expected, text
    model.close()


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "gpt-2", "smollm"])
def test_byte_level_tokens_are_the_same(tmp_path: Path, name: str) -> None:
    expression = next((rule for rule, named in RULES.items() if named == name), None)
    splits: list[Any] = []
    if expression:
        splits = [pre_tokenizers.Split(Regex(expression), "isolated")]
    elif name == "smollm":
        splits = [pre_tokenizers.Digits(individual_digits=True)]
    tokenizer = byte_level(*splits)
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    assert read_vocabulary(tmp_path, 700).rule == name
    check_same(tokenizer, tmp_path)


@pytest.mark.parametrize("name", ["tekken", "gpt-4o"])
def test_rules_that_tell_cases_apart_are_recognized(tmp_path: Path, name: str) -> None:
    expression = next(rule for rule, named in RULES.items() if named == name)
    tokenizer = byte_level(pre_tokenizers.Split(Regex(expression), "isolated"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    assert read_vocabulary(tmp_path, 700).rule == name
    model = loaded(tmp_path)
    for text in (*CORPUS[:1], "HTTPServer camelCase", "x = 3.14159;\n\n  y"):
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert model.tokenize(text, special=False) == expected
    model.close()


@pytest.mark.parametrize("prefix", [True, False])
def test_tokens_of_sentencepieces_kind_are_the_same_from_either_file(
    tmp_path: Path, prefix: bool
) -> None:
    tokenizer = pieces(prefix=prefix)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = read_vocabulary(tmp_path, 700)

    assert (vocabulary.model, vocabulary.has_space_prefix) == ("llama", prefix)
    assert vocabulary.types[:4] == [UNKNOWN, CONTROL, CONTROL, BYTE]
    assert vocabulary.types[-1] == UNUSED
    check_same(tokenizer, tmp_path)

    write_model(tmp_path / "tokenizer.model", vocabulary.texts, vocabulary.scores, prefix=prefix)
    again = read_vocabulary(tmp_path, 700)
    assert again.scores[300] == vocabulary.scores[300]
    check_same(tokenizer, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    check_same(tokenizer, tmp_path)


def write_model(path: Path, texts: list[str], scores: list[float], *, prefix: bool) -> None:
    """A tokenizer.model by hand, after sentencepiece_model.proto."""

    def field(number: int, kind: int, content: bytes) -> bytes:
        return bytes([number << 3 | kind]) + content

    def sized(number: int, content: bytes) -> bytes:
        length = len(content)
        head = bytes([length & 0x7F | 0x80, length >> 7]) if length > 127 else bytes([length])
        return field(number, 2, head + content)

    made = b""
    for number, (text, score) in enumerate(zip(texts, scores, strict=True)):
        kind = UNKNOWN if number == 0 else CONTROL if number < 3 else BYTE if number < 259 else 1
        if text.startswith("[PAD"):
            break
        piece = sized(1, text.encode()) + field(2, 5, struct.pack("<f", score))
        made += sized(1, piece + field(3, 0, bytes([kind])))
    made += sized(2, field(3, 0, b"\x02"))
    made += sized(3, field(3, 0, bytes([prefix])))
    path.write_bytes(made)


def test_added_tokens_are_kept_apart_from_the_text(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<tool>", special=False), AddedToken("<eot>", special=True)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = read_vocabulary(tmp_path, 700)

    tool, end = vocabulary.id_of("<tool>"), vocabulary.id_of("<eot>")

    assert tool is not None
    assert end is not None
    assert (vocabulary.types[tool], vocabulary.types[end]) == (USER_DEFINED, CONTROL)
    model = loaded(tmp_path)
    assert model.tokenize("a<tool>b<eot>", special=True) == tokenizer.encode("a<tool>b<eot>").ids
    model.close()


def put(folder: Path, **changes: Any) -> None:
    sound = {
        "pre_tokenizer": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
        "added_tokens": [],
    }
    (folder / "tokenizer.json").write_text(json.dumps(sound | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "of type 'Unigram'"),
        ({"model": {"type": "BPE", "vocab": {}}}, "vocab is {}; expected tokens"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}}}, "expected tokens and their ids"),
        ({"model": {"type": "BPE", "vocab": {"a": 2**40}}}, "expected tokens and their ids"),
        ({"model": {"vocab": {"a": 0}, "merges": ["a"]}}, "expected pairs of tokens"),
        ({"model": {"vocab": {"a": 0}, "merges": [["a", 1]]}}, "expected pairs of tokens"),
        ({"added_tokens": [{"id": "x", "content": "y"}]}, "no id or no content"),
        ({"added_tokens": [7]}, "no id or no content"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "neither a byte-level BPE nor"),
        (
            {"normalizer": {"type": "Lowercase"}},
            "its normalizer has no counterpart in llama.cpp",
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        {"type": "Split", "pattern": {"Regex": r"\w+"}},
                        {"type": "ByteLevel", "use_regex": False},
                    ],
                }
            },
            "cut up by a rule that llama.cpp has no name for",
        ),
        ({"model": {"vocab": {f"t{n}": n for n in range(9)}, "merges": []}}, "9 tokens and the"),
        ({"added_tokens": [{"id": 3, "content": "a"}]}, "two tokens of the same spelling"),
    ],
)
def test_a_tokenizer_that_cannot_be_had_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    put(tmp_path, **changes)

    with pytest.raises((CheckpointUnavailable, CheckpointUnsupported)) as refused:
        read_vocabulary(tmp_path, 8)

    assert said in refused.value.message


@pytest.mark.parametrize(
    "content", [b"", b"\x0a", b"\xff" * 40, b"\x0a\x7fabc", b"\x0a\x05\x0a\x03abc\x0b", b"GGUF" * 9]
)
def test_a_tokenizer_model_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)

    with pytest.raises((CheckpointUnavailable, CheckpointUnsupported), match=r"tokenizer\.model"):
        read_vocabulary(tmp_path, 8)


def test_where_texts_begin_and_end_is_read_from_all_files(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = read_vocabulary(tmp_path, 700)

    (tmp_path / "config.json").write_text('{"bos_token_id": 5, "pad_token_id": 9999}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 7]}')
    found = read_special_tokens(tmp_path, vocabulary)
    assert found.ids == {"bos": 5, "eos": 1, "eot": 7}
    assert (found.adds_bos, found.adds_eos, found.chat_template) == (True, False, None)

    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": {"content": "<|end|>"}, "eos_token": "<|im_start|>",
                    "add_bos_token": False, "add_eos_token": True, "chat_template": [
                        {"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]})
    )  # fmt: skip
    found = read_special_tokens(tmp_path, vocabulary)
    assert found.ids == {"bos": 0, "eos": 1, "eot": 7}
    assert (found.adds_bos, found.adds_eos, found.chat_template) == (False, True, "D")

    (tmp_path / "chat_template.jinja").write_text("J")
    assert read_special_tokens(tmp_path, vocabulary).chat_template == "J"
