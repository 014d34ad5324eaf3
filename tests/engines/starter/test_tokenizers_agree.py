"""llama.cpp with starter.gguf and `tokenizers` with tokenizer.json cut texts alike."""

from collections.abc import Iterator

import pytest
from tokenizers import Tokenizer

from engines.starter import GGUF_PATH, SAFETENSORS_DIR
from tests.engines.starter.hostile_text import hostile_texts
from tests.engines.starter.loaded_gguf import LoadedGguf


@pytest.fixture(scope="module")
def in_gguf() -> Iterator[LoadedGguf]:
    loaded = LoadedGguf(GGUF_PATH, tokenizer_only=True)
    yield loaded
    loaded.close()


@pytest.fixture
def in_json() -> Tokenizer:
    return Tokenizer.from_file(str(SAFETENSORS_DIR / "tokenizer.json"))


@pytest.mark.slow
def test_both_files_tokenize_ten_thousand_hostile_texts_alike(in_gguf, in_json):
    for text in hostile_texts(10_000):
        expected = in_gguf.tokenize(text, special=True)

        assert in_json.encode(text, add_special_tokens=False).ids == expected, repr(text)


@pytest.mark.slow
def test_both_files_tokenize_alike_when_special_tokens_are_plain_text(in_gguf, in_json):
    in_json.encode_special_tokens = True

    for text in hostile_texts(10_000, seed=2):
        expected = in_gguf.tokenize(text, special=False)

        assert in_json.encode(text, add_special_tokens=False).ids == expected, repr(text)


@pytest.mark.slow
def test_every_character_is_a_letter_to_both_or_to_neither(in_gguf, in_json):
    """Before "'test", a letter makes "'t" a contraction, and a sign does not."""
    for start in range(0x80, 0x110000, 16):
        if 0xD800 <= start < 0xE000:
            continue
        text = "\n".join(f"{chr(code)}'test" for code in range(start, start + 16))
        expected = in_gguf.tokenize(text, special=True)

        assert in_json.encode(text, add_special_tokens=False).ids == expected, hex(start)


def test_what_was_tokenized_comes_back_unchanged(in_json):
    for text in hostile_texts(500, seed=3):
        tokens = in_json.encode(text, add_special_tokens=False).ids

        assert in_json.decode(tokens, skip_special_tokens=False) == text


def test_no_token_is_added_at_the_beginning(in_gguf, in_json):
    assert in_json.encode("hello").ids == in_gguf.tokenize("hello", special=True)


def test_a_word_has_the_same_pieces_with_and_without_a_space_before_it(in_json):
    for word in ("Reykjavik", "zorblat", "Wolfeschlegel"):
        alone, after_space = in_json.encode(word).tokens, in_json.encode(f" {word}").tokens

        assert "".join(alone) == word
        assert len(alone) > 1
        assert after_space[-len(alone) + 1 :] == alone[1:]
