"""A checkpoint's vocabulary as llama.cpp has it, from tokenizer.json or tokenizer.model.

llama.cpp knows two kinds here. Byte-level BPE ("gpt2") has merges, and cuts texts up
first by a rule that it knows by name only, so the rule in tokenizer.json must be one of
those. SentencePiece's BPE ("llama") merges whatever makes the token with the highest
score; where only tokenizer.json is there, a token's score is how early its merge comes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.checkpoint.json_fields import JsonFields
from engines.gguf.conversion.sentencepiece import read_sentencepiece

MAX_TOKENS = 2**20  # as our own reader of headers takes
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # GGUF's token types
_NEVER_MERGED = -1e9
_ADDED_SCORE = -1000.0
_SPACE = "\u2581"
_ENGLISH = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# llama.cpp's names for rules, by the expressions that it says they stand for.
RULES: Mapping[str, str] = {
    _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST: "llama-bpe",
    _ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST: "qwen2",
    _CASED % ("", "", r"\p{N}"): "tekken",
    _CASED % (f"{_ENGLISH}?", f"{_ENGLISH}?", r"\p{N}{1,3}"): "gpt-4o",
}


@dataclass(slots=True)
class Vocabulary:
    """Every token by its id, and how texts become tokens."""

    model: str  # "gpt2" or "llama"
    rule: str  # `tokenizer.ggml.pre`
    texts: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)  # of "llama"
    merges: list[str] = field(default_factory=list)  # of "gpt2"
    has_space_prefix: bool = False
    strips_right: bool = False  # special tokens swallow the white space after them

    def id_of(self, text: str) -> int | None:
        """The id of a token."""
        return self.texts.index(text) if text in self.texts else None

    def resize(self, num_tokens: int) -> None:
        """Fill up to as many tokens as the model has rows for. Raises `CheckpointUnavailable`."""
        if len(self.texts) > num_tokens:
            raise CheckpointUnavailable(
                f"the tokenizer has {len(self.texts)} tokens and the weights {num_tokens}; they "
                "belong to different models"
            )
        for number in range(len(self.texts), num_tokens):
            self.add(number, f"[PAD{number}]", UNUSED, _NEVER_MERGED)

    def add(self, number: int, text: str, kind: int, score: float) -> None:
        """Put a token at an id, in the place of what is there."""
        while len(self.texts) <= number:
            self.texts.append(f"[PAD{len(self.texts)}]")
            self.types.append(UNUSED)
            self.scores.append(_NEVER_MERGED)
        self.texts[number], self.types[number], self.scores[number] = text, kind, score


def read_vocabulary(folder: Path, num_tokens: int) -> Vocabulary:
    """Read a tokenizer. Raises `CheckpointUnavailable`, or `CheckpointUnsupported`."""
    tokenizer = folder / "tokenizer.json"
    pieces = folder / "tokenizer.model"
    if tokenizer.exists():
        fields = JsonFields.read(tokenizer)
        is_byte_level = any(part.get("type") == "ByteLevel" for part in _parts(fields))
        if is_byte_level:
            vocabulary = _byte_level(fields)
        else:
            vocabulary = _of_pieces(folder) if pieces.exists() else _of_merges(fields)
    elif pieces.exists():
        vocabulary = _of_pieces(folder)
    else:
        raise CheckpointUnavailable(
            "tokenizer.json is missing, and so is tokenizer.model: the model's files must hold "
            "one of them"
        )
    vocabulary.resize(num_tokens)
    if len(set(vocabulary.texts)) != len(vocabulary.texts):
        raise CheckpointUnavailable("the tokenizer has two tokens of the same spelling")
    return vocabulary


def _byte_level(fields: JsonFields) -> Vocabulary:
    model = _bpe(fields)
    vocabulary = Vocabulary("gpt2", _rule(fields), [], [])
    for text, number in _numbered(model).items():
        vocabulary.add(number, text, NORMAL, 0.0)
    _add_special(vocabulary, fields.values.get("added_tokens"))
    vocabulary.merges = [f"{first} {second}" for first, second in _merges(model)]
    return vocabulary


def _of_merges(fields: JsonFields) -> Vocabulary:
    model = _bpe(fields)
    if not model.flag("byte_fallback", default=False):
        raise CheckpointUnsupported(
            "tokenizer.json is neither a byte-level BPE nor one of SentencePiece's"
        )
    scores: dict[str, float] = {}
    for rank, (first, second) in enumerate(_merges(model)):
        scores.setdefault(first + second, -float(rank))
    unknown = model.values.get("unk_token")
    vocabulary = Vocabulary("llama", "default", [], [])
    for text, number in _numbered(model).items():
        kind = UNKNOWN if text == unknown else BYTE if _is_byte(text) else NORMAL
        vocabulary.add(number, text, kind, scores.get(text, _NEVER_MERGED))
    _add_special(vocabulary, fields.values.get("added_tokens"))
    vocabulary.has_space_prefix = any(_puts_space(part) for part in _parts(fields))
    return vocabulary


def _of_pieces(folder: Path) -> Vocabulary:
    pieces, has_space_prefix = read_sentencepiece(folder / "tokenizer.model")
    vocabulary = Vocabulary("llama", "default", [], [], has_space_prefix=has_space_prefix)
    for number, piece in enumerate(pieces):
        vocabulary.add(number, piece.text, piece.type, piece.score)
    if (folder / "tokenizer.json").exists():
        fields = JsonFields.read(folder / "tokenizer.json")
        _add_special(vocabulary, fields.values.get("added_tokens"))
    elif (folder / "tokenizer_config.json").exists():
        added = JsonFields.read(folder / "tokenizer_config.json").fields("added_tokens_decoder")
        tokens = [
            {**said, "id": int(number)}
            for number, said in added.values.items()
            if number.isdecimal() and isinstance(said, dict)
        ]
        _add_special(vocabulary, tokens)
    return vocabulary


def _add_special(vocabulary: Vocabulary, added: object) -> None:
    for token in added if isinstance(added, list) else []:
        said = token if isinstance(token, dict) else {}
        number, text = said.get("id"), said.get("content")
        if not isinstance(number, int) or not isinstance(text, str) or not 0 <= number < MAX_TOKENS:
            raise CheckpointUnavailable("tokenizer.json: an added token has no id or no content")
        if number < len(vocabulary.types) and vocabulary.types[number] == UNKNOWN:
            continue
        if said.get("special"):
            vocabulary.add(number, text, CONTROL, _ADDED_SCORE)
            vocabulary.strips_right |= said.get("rstrip") is True
        else:  # llama.cpp looks for these before it replaces spaces
            vocabulary.add(number, text.replace(_SPACE, " "), USER_DEFINED, _ADDED_SCORE)


def _rule(fields: JsonFields) -> str:
    """llama.cpp's name for how texts are cut up. Raises `CheckpointUnsupported`."""
    parts = list(_parts(fields))
    if any(part.get("type") in ("Prepend", "Lowercase") for part in parts):
        raise CheckpointUnsupported(
            "tokenizer.json: its normalizer has no counterpart in llama.cpp"
        )
    splits = [part for part in parts if part.get("type") == "Split"]
    byte_level = next(part for part in parts if part.get("type") == "ByteLevel")
    if not splits and byte_level.get("use_regex", True):
        digits = [part for part in parts if part.get("type") == "Digits"]
        if not digits:
            return "gpt-2"
        if digits[0].get("individual_digits"):
            return "smollm"
    pattern = splits[0].get("pattern") if len(splits) == 1 else None
    expression = str(pattern.get("Regex")) if isinstance(pattern, dict) else ""
    if expression in RULES:
        return RULES[expression]
    raise CheckpointUnsupported(
        f"tokenizer.json: texts are cut up by a rule that llama.cpp has no name for "
        f"({expression[:100]!r}); there are: gpt-2, smollm, {', '.join(RULES.values())}"
    )


def _parts(fields: JsonFields) -> Iterator[Mapping[str, Any]]:
    """The steps of the normalizer and of what cuts texts up, one after another."""
    waiting = [fields.values.get("normalizer"), fields.values.get("pre_tokenizer")]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, dict):
            inner = part.get("normalizers") or part.get("pretokenizers")
            waiting[:0] = inner if isinstance(inner, list) else []
            yield part


def _puts_space(part: Mapping[str, Any]) -> bool:
    if part.get("type") == "Metaspace":
        return part.get("prepend_scheme", "always") != "never" and part.get(
            "add_prefix_space", True
        )
    return part.get("type") == "Prepend"


def _bpe(fields: JsonFields) -> JsonFields:
    model = fields.fields("model")
    if model.values.get("type", "BPE") != "BPE":
        raise CheckpointUnsupported(
            f"tokenizer.json is of type {model.values['type']!r}; a GGUF file can be made with BPE"
        )
    return model


def _numbered(model: JsonFields) -> Mapping[str, int]:
    tokens = model.fields("vocab").values
    if not tokens or not all(isinstance(n, int) and 0 <= n < MAX_TOKENS for n in tokens.values()):
        model.fail("vocab", "tokens and their ids")
    return tokens


def _merges(model: JsonFields) -> Sequence[Sequence[str]]:
    said = model.values.get("merges")
    pairs = [
        merge.split(" ", 1) if isinstance(merge, str) else merge
        for merge in (said if isinstance(said, list) else [])
    ]
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(p) is str for p in pair):
            model.fail("merges", "pairs of tokens")
    return pairs


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")
