"""Measures the starter model on prompts that its training never saw, skill by skill.

    python -m engines.starter.evaluate

Every prompt has one right answer, so a score is the share of exchanges in which greedy
decoding writes all of it, to the letter. Greedy decoding writes the right answer exactly
when each of its tokens is the likeliest after those before it, which one pass over the
whole text shows: no text has to be generated.
"""

import argparse
import itertools
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from engines.starter import SAFETENSORS_DIR
from engines.starter.conversations import Conversation, held_out
from engines.starter.network import Network, Shape
from engines.starter.skills import SKILLS

EVALUATION_SEED = 2026


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=SAFETENSORS_DIR)
    parser.add_argument("--per-skill", type=int, default=200)
    parser.add_argument("--show-misses", type=int, default=0, help="this many for each skill")
    arguments = parser.parse_args()

    judge = Judge(arguments.model)
    total = 0
    for skill in SKILLS:
        right, misses = 0, []
        for conversation in itertools.islice(held_out(EVALUATION_SEED, skill), arguments.per_skill):
            miss = judge.miss(conversation)
            right += miss is None
            misses += [miss] if miss else []
        total += right
        sys.stdout.write(f"| {skill} | {100 * right / arguments.per_skill:.1f} % |\n")
        for miss in misses[: arguments.show_misses]:
            sys.stdout.write(f"    {miss}\n")
        sys.stdout.flush()
    sys.stdout.write(f"| all | {100 * total / arguments.per_skill / len(SKILLS):.1f} % |\n")


class Judge:
    """The model, and whether it would have written what it should."""

    def __init__(self, directory: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.network = Network(Shape(vocab_size=self.tokenizer.get_vocab_size()))
        weights = load_file(str(directory / "model.safetensors"))
        self.network.load_state_dict({name: weight.float() for name, weight in weights.items()})

    @torch.no_grad()
    def miss(self, conversation: Conversation) -> str | None:
        """None when greedy decoding writes every answer; else what it says first instead."""
        tokens: list[int] = []
        learn: list[bool] = []
        for text, is_answer in conversation.pieces():
            piece = self.tokenizer.encode(text, add_special_tokens=False).ids
            tokens += piece
            learn += [is_answer] * len(piece)
        wanted = torch.tensor([learn[1:]])
        likeliest = self.network(torch.tensor([tokens[:-1]]), wanted).argmax(-1)
        expected = torch.tensor([tokens[1:]])[wanted]
        if torch.equal(likeliest, expected):
            return None
        at = int((likeliest != expected).nonzero()[0])
        asked = next(m["content"] for m in conversation.messages if m["role"] == "user")
        written = [*expected[:at].tolist(), int(likeliest[at])]
        said = self.tokenizer.decode(written, skip_special_tokens=False)
        return f"{asked!r}: {said!r} instead of {self.tokenizer.decode(expected.tolist())!r}"


if __name__ == "__main__":
    main()
