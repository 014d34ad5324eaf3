"""Text to token ids and back, from the files that lie beside the weights.

`tokenizers` does the work; this file knows how its vocabularies spell bytes,
and keeps a caller's text from being read as the model's marks. All of it is
constant, so every thread may call.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from tokenizers import Tokenizer as Fast
from tokenizers.decoders import WordPiece
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from engines.chat.tool_format import MARKUP_TOKENS
from engines.errors import Unavailable


class Tokenizer:
    """A model's vocabulary. Raises `Unavailable` for a folder without a usable one."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise Unavailable(
                f"{folder} has no tokenizer.json: save the tokenizer with transformers' "
                "`AutoTokenizer.from_pretrained(...).save_pretrained(...)`, which writes one"
            )
        try:
            text = path.read_text(encoding="utf-8")
            self._reads_marks = _fast(text)
            self._plain = _fast(text)
            written = cast("dict[str, Any]", json.loads(text))
        # The Rust library raises nothing narrower.
        except Exception as error:
            raise Unavailable(f"{path} cannot be read as a tokenizer: {error}") from error
        self._plain.encode_special_tokens = True
        self.num_tokens: int = self._reads_marks.get_vocab_size(with_added_tokens=True)
        added = self._reads_marks.get_added_tokens_decoder()
        self.special_ids = sorted(at for at, token in added.items() if token.special)
        self.special_spellings = tuple(sorted({added[at].content for at in self.special_ids}))
        self.pieces = _pieces(self._reads_marks, added, written)
        self.num_tokens = max(self.num_tokens, len(self.pieces))
        self.spoken_pieces = list(self.pieces)
        for at in self.special_ids:
            if added[at].content not in MARKUP_TOKENS:
                self.spoken_pieces[at] = b""
        self.bos = self._beginning(config)

    @classmethod
    def dummy(cls, vocab_size: int) -> "Tokenizer":
        """The words t0, t1, …: for dummy weights, which understand nothing anyway."""
        with TemporaryDirectory() as name:
            words = {f"t{at}": at for at in range(vocab_size)}
            tokenizer = Fast(WordLevel(words, unk_token="t0"))
            tokenizer.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
            tokenizer.decoder = WordPiece(prefix="")  # pyright: ignore[reportAttributeAccessIssue]
            tokenizer.save(str(Path(name) / "tokenizer.json"))
            return cls(Path(name), {})

    def _beginning(self, config: Mapping[str, Any]) -> list[int]:
        """The token that this tokenizer puts before every text, if it does."""
        around = self._reads_marks.encode("", add_special_tokens=True).ids
        name = config.get("bos_token")
        spelling = name.get("content") if isinstance(name, dict) else name  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        bos = self.id_of(spelling) if isinstance(spelling, str) else None
        if bos is not None and config.get("add_bos_token") is True:
            return [bos]
        return around[:1] if bos is not None and around[:1] == [bos] else []

    def id_of(self, spelling: str) -> int | None:
        """The token that is spelled so."""
        return cast("int | None", self._reads_marks.token_to_id(spelling))

    def encode(
        self, text: str | bytes, *, parse_special: bool, add_special: bool = False
    ) -> list[int]:
        """Token ids of `text`.

        `parse_special` reads `<|im_end|>` as the mark it spells; `add_special` adds the
        marks that this tokenizer puts around a text.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        tokenizer = self._reads_marks if parse_special else self._plain
        # Alone among the ways to encode it lets other threads run meanwhile; and it does not
        # note where in the text each token was, which nobody asks.
        found = tokenizer.encode_batch_fast([text], add_special_tokens=add_special)
        return found[0].ids


def _fast(text: str) -> Any:
    tokenizer = Fast.from_str(text)
    # A folder may ask for both; a caller's text is never cut in silence, nor padded.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _pieces(tokenizer: Any, added: Mapping[int, Any], written: Mapping[str, Any]) -> list[bytes]:
    """Each token's bytes, by id; nothing for ids that are not in use."""
    vocabulary: Mapping[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    spell = _speller(written.get("decoder"))
    pieces = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for spelling, at in vocabulary.items():
        pieces[at] = spelling.encode() if at in added else spell(spelling)
    return pieces


def _speller(decoder: Any) -> Any:
    """How a vocabulary's spelling of a token becomes its bytes."""
    kinds = {step.get("type") for step in _steps(decoder)}
    if "ByteLevel" in kinds:
        table = {character: byte for byte, character in enumerate(byte_characters())}
        return lambda spelling: bytes(table[character] for character in spelling)
    if "WordPiece" in kinds:
        return _word_piece
    has_bytes = "ByteFallback" in kinds
    return functools.partial(_sentence_piece, has_bytes=has_bytes)


def _steps(decoder: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(decoder, dict):
        return ()
    decoder = cast("dict[str, Any]", decoder)
    return cast("list[dict[str, Any]]", decoder.get("decoders", [decoder]))


def _sentence_piece(spelling: str, *, has_bytes: bool) -> bytes:
    if has_bytes and len(spelling) == 6 and spelling.startswith("<0x") and spelling.endswith(">"):
        return bytes([int(spelling[3:5], 16)])
    return spelling.replace("\u2581", " ").encode()


def _word_piece(spelling: str) -> bytes:
    return spelling[2:].encode() if spelling.startswith("##") else f" {spelling}".encode()


def byte_characters() -> list[str]:
    """The character that byte-level vocabularies write for each byte (GPT-2's table).

    Bytes that print as themselves in Latin-1 keep their character; the others, in order,
    get the characters from U+0100 on.
    """
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printed else chr(next(others)) for byte in range(256)]
