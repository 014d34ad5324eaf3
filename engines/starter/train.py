"""Trains the starter model from nothing, and exports it.

    python -m engines.starter.train --out engines/starter

Every conversation is made up as it is needed, and the seeds are fixed: on the same machine
with the same PyTorch the run gives the same weights. It runs two processes of one thread
each, which share every batch: on two cores that is faster than one process with two
threads, and it does not collapse when other programs want a core. README.md has the
measured time and the scores.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from engines.starter import tokenizer as tokenizers
from engines.starter.conversations import conversations
from engines.starter.dataset import rows
from engines.starter.export import export
from engines.starter.network import Network, Shape
from engines.starter.optimizer import optimizers_for

NUM_PROCESSES = 2
TOKENIZER_SEED = 7
TOKENIZER_CONVERSATIONS = 20_000
WEIGHTS_SEED = 1
DATA_SEED = 100


@dataclass(frozen=True)
class Part:
    """A part of the training: its rates rise, and fall straight down to nothing."""

    number: int
    steps: int
    muon_rate: float
    adam_rate: float

    def rate_at(self, step: int) -> float:
        return min((step + 1) / WARMUP_STEPS, 1 - step / self.steps)


# The second part practises what the first one left weak: see `skills/__init__.py`.
PARTS = (
    Part(1, steps=2400, muon_rate=0.006, adam_rate=0.006),
    Part(2, steps=1200, muon_rate=0.004, adam_rate=0.004),
)
WARMUP_STEPS = 60
STEP_TOKENS = 4096
ROW_TOKENS = 512
LONG_ROW_TOKENS = 2048
# Every so many steps the tokens come in rows of the full context. Kept for the end, long rows
# came too late: what was far back confused the answers.
LONG_EVERY = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument(
        "--part-steps",
        type=int,
        nargs=len(PARTS),
        metavar="STEPS",
        help="another length for each part, to try something quickly",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from OUT/checkpoint.pt, with the result of a run that was never stopped",
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lengths = arguments.part_steps or [part.steps for part in PARTS]
    parts = [replace(part, steps=steps) for part, steps in zip(PARTS, lengths, strict=True)]

    source = conversations(TOKENIZER_SEED)
    texts = (
        "".join(text for text, _ in conversation.pieces())
        for conversation in itertools.islice(source, TOKENIZER_CONVERSATIONS)
    )
    tokenizers.save(tokenizers.build(texts), arguments.out)

    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(
            _train, (parts, arguments.out, meeting, arguments.resume), nprocs=NUM_PROCESSES
        )


def _train(rank: int, parts: list[Part], out: Path, meeting: str, resume: bool) -> None:  # noqa: FBT001
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    store = dist.FileStore(f"{meeting}/store", NUM_PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=NUM_PROCESSES)

    torch.manual_seed(WEIGHTS_SEED)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    network = Network(Shape(vocab_size=tokenizer.get_vocab_size()))
    optimizers = optimizers_for(network)
    checkpoint = out / "checkpoint.pt"
    done = _restore(checkpoint, network, optimizers) if resume else 0
    num_steps = sum(part.steps for part in parts)
    started = time.monotonic()
    losses: list[float] = []
    for part, step, tokens, learn in _batches(rank, parts, tokenizer, done):
        done += 1
        for optimizer, rate in zip(optimizers, (part.muon_rate, part.adam_rate), strict=True):
            optimizer.param_groups[0]["lr"] = rate * part.rate_at(step)
        losses.append(_learn(network, tokens, learn))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if rank == 0 and (done % 20 == 0 or done == num_steps):
            seconds = time.monotonic() - started
            mean = sum(losses[-20:]) / len(losses[-20:])
            sys.stdout.write(f"step {done}/{num_steps} loss {mean:.4f} {seconds:.0f} s\n")
            sys.stdout.flush()
        if rank == 0 and done % 100 == 0:
            state = [state_of.state_dict() for state_of in (network, *optimizers)]
            torch.save({"step": done, "state": state}, checkpoint)
    if rank == 0:
        export(network.state_dict(), network.shape, out)
    dist.destroy_process_group()


def _restore(checkpoint: Path, network: Network, optimizers: list) -> int:
    saved = torch.load(checkpoint)
    for part, state in zip((network, *optimizers), saved["state"], strict=True):
        part.load_state_dict(state)
    return saved["step"]


def _learn(network: Network, tokens: Tensor, learn: Tensor) -> float:
    """One step's gradient, summed over the processes; gives back the mean loss."""
    wanted = learn[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(tokens[:, :-1], wanted)
    total = F.cross_entropy(logits.float(), tokens[:, 1:][wanted], reduction="sum")
    total.backward()
    counts = torch.tensor([wanted.sum().item(), total.item()], dtype=torch.float64)
    dist.all_reduce(counts)
    gradients = [weight.grad for weight in network.parameters()]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= counts[0]
    flat *= min(1.0, 1.0 / (flat.norm().item() + 1e-6))
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()
    return (counts[1] / counts[0]).item()


def _batches(
    rank: int, parts: list[Part], tokenizer: Tokenizer, num_done: int
) -> Iterator[tuple[Part, int, Tensor, Tensor]]:
    """This process's share of every batch after the first `num_done`, and its place."""
    for part in parts:
        if num_done < part.steps:
            batches = _batches_of(rank, part, tokenizer)
            for step in range(part.steps):
                tokens, learn = next(batches)
                if step >= num_done:
                    yield part, step, tokens, learn
        num_done = max(0, num_done - part.steps)


def _batches_of(rank: int, part: Part, tokenizer: Tokenizer) -> Iterator[tuple[Tensor, Tensor]]:
    seed = DATA_SEED * part.number + rank
    short, long = (
        rows(tokenizer, conversations(row_seed, part.number), length)
        for row_seed, length in ((seed, ROW_TOKENS), (seed + 10, LONG_ROW_TOKENS))
    )
    for step in itertools.count(1):
        source, length = (long, LONG_ROW_TOKENS) if step % LONG_EVERY == 0 else (short, ROW_TOKENS)
        batch = itertools.islice(source, STEP_TOKENS // NUM_PROCESSES // length)
        tokens, learn = (torch.from_numpy(np.stack(side)) for side in zip(*batch, strict=True))
        yield tokens, learn


if __name__ == "__main__":
    main()
