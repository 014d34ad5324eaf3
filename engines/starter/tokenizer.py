"""Builds the tokenizer of the starter model: byte-level BPE over 3,072 tokens.

Two things are unusual. Words are learned without the space before them, and a space is
merged to a frequent word only after all else: " Reykjavik" is then a space and the same
pieces as "Reykjavik", so a word is copied piece by piece wherever it stands. And a merge
never crosses from letters to signs, nor reaches a byte outside ASCII, so that two
implementations with different Unicode tables still cut every text into the same tokens.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from engines.starter.template import CHAT_TEMPLATE, SPECIAL_TOKENS, TEXT_END, TURN_END

# Letters and digits of Unicode 15.1 and 16, which the regex library in `tokenizers` knows and
# the tables of llama.cpp 0.3.36 do not: there they are signs. Found by comparing every code
# point before "'test", where a letter makes a contraction of the apostrophe and a sign does not.
_NEWER = (
    r"\x{1c89}-\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d40}-\x{10d65}"
    r"\x{10d6f}-\x{10d85}\x{10ec2}-\x{10ec4}\x{11380}-\x{11389}\x{1138b}\x{1138e}"
    r"\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{116d0}-\x{116e3}\x{11bc0}-\x{11be0}"
    r"\x{11bf0}-\x{11bf9}\x{13460}-\x{143fa}\x{16100}-\x{1611d}\x{16130}-\x{16139}"
    r"\x{16d40}-\x{16d6c}\x{16d70}-\x{16d79}\x{18cff}\x{1ccf0}-\x{1ccf9}\x{1e5d0}-\x{1e5ed}"
    r"\x{1e5f0}-\x{1e5fa}"
)
_LETTER = rf"[\p{{L}}&&[^{_NEWER}]]"
_NUMBER = rf"[\p{{N}}&&[^{_NEWER}]]"
# What llama.cpp does for `tokenizer.ggml.pre = "qwen2"`, character class for class.
SPLIT = (
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
    rf"|[[^\r\n\p{{L}}\p{{N}}]{_NEWER}]?{_LETTER}+|{_NUMBER}"
    rf"| ?[[^\s\p{{L}}\p{{N}}]{_NEWER}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NUM_TOKENS = 3072
_NUM_WITH_SPACE = 900

_SPACE = "\u0120"  # how byte-level BPE writes a space


def build(texts: Iterable[str]) -> Tokenizer:
    """Learn the tokens from `texts`. The same texts give the same tokenizer."""
    runs: Counter[str] = Counter()
    for text in texts:
        runs.update(re.findall(r" ?(?:[A-Za-z]+|[^\sA-Za-z0-9]+|\n+)|\s", text))
    vocabulary = {token: at for at, token in enumerate((*SPECIAL_TOKENS, *_bytes()))}
    merges: list[tuple[str, str]] = []
    for left, right in _learned(runs):
        if len(vocabulary) == NUM_TOKENS - _NUM_WITH_SPACE:
            break
        merges.append((left, right))
        vocabulary.setdefault(left + right, len(vocabulary))
    for token in _frequent_after_space(runs, vocabulary):
        merges.append((_SPACE, token))
        vocabulary[_SPACE + token] = len(vocabulary)
    return _assembled(vocabulary, merges)


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": TEXT_END,
        "eos_token": TURN_END,
        "pad_token": TEXT_END,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE,
    }
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _learned(runs: Counter[str]) -> list[tuple[str, str]]:
    """The merges of a plain BPE over the runs without their leading space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[A-Za-z]+|[^\sA-Za-z0-9]+|\n+|\s|\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(_bytes()),
    )
    # A count is spelled out up to a thousand times: enough to order the merges by.
    words = (
        run.strip(" ") or run
        for run, count in sorted(runs.items())
        if run.isascii()
        for _ in range(min(1000, count))
    )
    tokenizer.train_from_iterator(words, trainer)
    state = json.loads(tokenizer.to_str())
    return [(left, right) for left, right in state["model"]["merges"]]


def _frequent_after_space(runs: Counter[str], vocabulary: dict[str, int]) -> list[str]:
    counts: Counter[str] = Counter()
    for run, count in runs.items():
        if run.startswith(" ") and run[1:] in vocabulary:
            counts[run[1:]] += count
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return ranked[:_NUM_WITH_SPACE]


def _bytes() -> list[str]:
    """The 256 bytes as byte-level BPE writes them, in the order of the bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    spelled = {byte: chr(byte) for byte in shown}
    spelled |= {byte: chr(256 + at) for at, byte in enumerate(hidden)}
    return [spelled[byte] for byte in range(256)]


def _assembled(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer
