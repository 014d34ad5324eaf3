"""Checkpoint folders that a whole engine can serve: weights, a tokenizer, a template."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedModel

from tests.engines.paged.random_checkpoints import DECODERS, reference, write

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write a vocabulary of the words t0, t1, … and a template that says what it is told."""
    tokenizer = Tokenizer(WordLevel({f"t{at}": at for at in range(vocab_size)}, unk_token="t3"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.decoder = Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))


def write_checkpoint(folder: Path, name: str = "llama") -> Path:
    """Write one of `DECODERS` and the words for it."""
    write(DECODERS[name], folder)
    config = json.loads((folder / "config.json").read_text())
    write_tokenizer(folder, config["vocab_size"])
    return folder


def greedy(model: PreTrainedModel, prompt: list[int], num_tokens: int) -> list[int]:
    """What transformers answers if it may not end, one token at a time with no cache."""
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(num_tokens):
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
            logits[model.config.eos_token_id] = float("-inf")
            tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :]


__all__ = ["greedy", "reference", "write_checkpoint", "write_tokenizer"]
