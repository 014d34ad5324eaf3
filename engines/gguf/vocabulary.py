"""A model's tokens and what its file says, read once when it is loaded.

Everything but `tokenize` is plain data that outlives the model. The vocabulary
is constant and llama.h calls its tokenization thread-safe, so any number of
threads may call `tokenize` at once, and none waits for another's text. They are
counted, so that the model is not freed under a call.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from engines.chat.gap_marks import GapMarks
from engines.errors import Unavailable
from engines.gguf.native import llama

_SHOW_SPECIAL = True
_CONTROL, _UNKNOWN = 1 << 3, 1 << 0
_STRIPS = 1 << 7 | 1 << 8  # such a mark takes the white space beside it, however much
# `tokenizer.ggml.model` of those that change no text, but for a space into one other character.
# The others lower letters, drop white space and accents, or make one token of a whole unknown word.
_KEEPS_TEXT = ("llama", "gpt2")
_UTF8_BYTES = frozenset(bytes([byte]) for byte in (*range(0xC0), *range(0xC2, 0xF5)))


class Vocabulary:
    """Made by the model's `Runner`, which says `forget` before it frees the model."""

    def __init__(self, model: Any) -> None:
        self._binding = binding = llama()
        self._vocabulary = vocabulary = binding.llama_model_get_vocab(model)
        self._num_users = 0
        self._users = threading.Condition()
        self.num_tokens: int = binding.llama_vocab_n_tokens(vocabulary)
        tokens = range(self.num_tokens)
        self.pieces = [self._piece(token) for token in tokens]
        self.end_ids = [token for token in tokens if binding.llama_vocab_is_eog(vocabulary, token)]
        marks = _CONTROL | _UNKNOWN
        self.special_ids = [
            token for token in tokens if binding.llama_vocab_get_attr(vocabulary, token) & marks
        ]
        self.special_spellings = tuple(
            sorted({self._spelling(token) for token in self.special_ids} - {""})
        )
        self.bos: int = binding.llama_vocab_bos(vocabulary)
        self.adds_bos: bool = binding.llama_vocab_get_add_bos(vocabulary) and self.bos >= 0
        self.bos_spelling = self._spelling(self.bos)
        self.eos_spelling = self._spelling(binding.llama_vocab_eos(vocabulary))
        self._eos: int = binding.llama_vocab_eos(vocabulary)
        self._sep: int = binding.llama_vocab_sep(vocabulary)
        self._adds_eos: bool = binding.llama_vocab_get_add_eos(vocabulary)
        self._adds_sep: bool = binding.llama_vocab_get_add_sep(vocabulary)
        self.rerank_pattern = _template(binding, model, b"rerank")
        self.gap_marks = _gap_marks(binding, vocabulary)
        self.metadata = dict(_metadata(binding, model))
        self._longest_piece = self._most_bytes()
        self.chat_template = _template(binding, model, None)

    def tokenize(
        self, text: str | bytes, *, parse_special: bool, add_special: bool = False
    ) -> list[int]:
        """Token ids of `text`; callable from any thread.

        `parse_special` reads `<|im_end|>` as the mark it spells; `add_special` adds the
        marks that this vocabulary puts around a text.
        """
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        room = np.empty(len(data) + 16, np.int32)
        with self._in_use() as vocabulary:
            count = self._binding.llama_tokenize(
                vocabulary,
                data,
                len(data),
                room.ctypes.data_as(self._binding.llama_token_p),
                len(room),
                add_special,
                parse_special,
            )
        if count < 0:
            raise Unavailable(f"llama.cpp could not tokenize {len(data)} bytes of text")
        return room[:count].tolist()

    def least_tokens(self, text: str) -> int | None:
        """How many tokens a text has at the very least; None where nothing can be said."""
        if self._longest_piece is None:
            return None
        return -(-len(text.encode("utf-8", "replace")) // self._longest_piece)

    def paired(self, first: list[int], second: list[int]) -> list[int]:
        """Two texts with the marks around them that tell a classifier which is which."""
        eos = [self._eos if self._eos >= 0 else self._sep] if self._adds_eos else []
        sep = [self._sep] if self._adds_sep else []
        bos = [self.bos] if self.adds_bos else []
        # Files of old converters do not say what ends a text: for BERT it is what parts two.
        end = eos or sep
        return [token for token in (*bos, *first, *eos, *sep, *second, *end) if token >= 0]

    def forget(self) -> None:
        """Let nobody tokenize any more; returns when nobody does."""
        with self._users:
            self._vocabulary = None
            self._users.wait_for(lambda: not self._num_users)

    @contextmanager
    def _in_use(self) -> Iterator[Any]:
        with self._users:
            if self._vocabulary is None:
                raise Unavailable("the model was unloaded")
            vocabulary = self._vocabulary
            self._num_users += 1
        try:
            yield vocabulary
        finally:
            with self._users:
                self._num_users -= 1
                self._users.notify_all()

    def _most_bytes(self) -> int | None:
        """Bytes of text that one token stands for at most; None if there is no most."""
        binding, vocabulary = self._binding, self._vocabulary
        attributes = [
            binding.llama_vocab_get_attr(vocabulary, token) for token in range(self.num_tokens)
        ]
        if self.metadata.get("tokenizer.ggml.model") not in _KEEPS_TEXT:
            return None
        if any(found & _STRIPS for found in attributes):
            return None
        if not set(self.pieces) >= _UTF8_BYTES:  # a byte without a token is left out
            return None
        # Those that are shown as nothing are found in a text by their spelling all the same.
        return max(
            len(piece) or len(self._spelling(token).encode())
            for token, piece in enumerate(self.pieces)
        )

    def _spelling(self, token: int) -> str:
        if not 0 <= token < self.num_tokens:
            return ""
        text = self._binding.llama_vocab_get_text(self._vocabulary, token)
        return (text or b"").decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        size = 512
        while True:
            room = ctypes.create_string_buffer(size)
            length = self._binding.llama_token_to_piece(
                self._vocabulary, token, room, size, 0, _SHOW_SPECIAL
            )
            if length >= 0:
                return room.raw[:length]
            size = -length


def _template(binding: Any, model: Any, name: bytes | None) -> str | None:
    template = binding.llama_model_chat_template(model, name)
    return template.decode("utf-8", "replace") if template else None


def _gap_marks(binding: Any, vocabulary: Any) -> GapMarks | None:
    """What the file says, or llama.cpp knows by the spelling of its tokens; None: no marks."""
    marks = GapMarks(
        before=binding.llama_vocab_fim_pre(vocabulary),
        after=binding.llama_vocab_fim_suf(vocabulary),
        gap=binding.llama_vocab_fim_mid(vocabulary),
    )
    return marks if min(marks) >= 0 else None


def _metadata(binding: Any, model: Any) -> list[tuple[str, str]]:
    """What the file says, as llama.cpp prints it; templates and arrays are cut short."""
    pairs: list[tuple[str, str]] = []
    room = ctypes.create_string_buffer(1024)
    for index in range(binding.llama_model_meta_count(model)):
        texts: list[str] = []
        for read in (
            binding.llama_model_meta_key_by_index,
            binding.llama_model_meta_val_str_by_index,
        ):
            read(model, index, room, len(room))
            texts.append(room.value.decode("utf-8", "replace"))
        pairs.append((texts[0], texts[1]))
    return pairs
