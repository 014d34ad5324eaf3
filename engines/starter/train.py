"""Trains the starter model from nothing, and exports it.

    python -m engines.starter.train --out engines/starter

Every conversation comes from the generator, none is seen twice by design, and the seeds
are fixed: on the same machine with the same PyTorch the run gives the same weights. It
runs two processes of one thread each, which halve every batch: on two cores that is
faster than one process with two threads, and it does not collapse when other programs
want a core. README.md has the measured time and the scores.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
class Plan:
    """How long and how fast to learn."""

    steps: int = 3000
    row_tokens: int = 512
    rows_per_step: int = 8
    long_row_tokens: int = 2048
    long_every: int = 8
    """Every so many steps, the same number of tokens comes in rows of the full context. Kept
    for the end, long rows came too late: what was far back confused the answers."""
    warmup_steps: int = 60
    muon_rate: float = 0.005
    adam_rate: float = 0.004

    def rate_at(self, step: int) -> float:
        """The share of the full rate: up, and straight down to nothing."""
        return min((step + 1) / self.warmup_steps, 1 - step / self.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from OUT/checkpoint.pt, with the result of a run that was never stopped",
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    source = conversations(TOKENIZER_SEED)
    texts = (
        "".join(text for text, _ in conversation.pieces())
        for conversation in itertools.islice(source, TOKENIZER_CONVERSATIONS)
    )
    tokenizer = tokenizers.build(texts)
    tokenizers.save(tokenizer, arguments.out)

    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(
            _train,
            (Plan(steps=arguments.steps), arguments.out, meeting, arguments.resume),
            nprocs=NUM_PROCESSES,
        )


def _train(rank: int, plan: Plan, out: Path, meeting: str, resume: bool) -> None:  # noqa: FBT001
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    store = dist.FileStore(f"{meeting}/store", NUM_PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=NUM_PROCESSES)

    torch.manual_seed(WEIGHTS_SEED)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    network = Network(Shape(vocab_size=tokenizer.get_vocab_size()))
    optimizers = optimizers_for(network, plan.muon_rate, plan.adam_rate)
    checkpoint = out / "checkpoint.pt"
    first = _restore(checkpoint, network, optimizers) if resume else 0
    started = time.monotonic()
    losses: list[float] = []
    batches = itertools.islice(enumerate(_batches(rank, plan, tokenizer)), first, plan.steps)
    for step, (tokens, learn) in batches:
        for optimizer, rate in zip(optimizers, (plan.muon_rate, plan.adam_rate), strict=True):
            optimizer.param_groups[0]["lr"] = rate * plan.rate_at(step)
        losses.append(_learn(network, tokens, learn))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if rank == 0 and (step % 20 == 19 or step == plan.steps - 1):
            seconds = time.monotonic() - started
            mean = sum(losses[-20:]) / len(losses[-20:])
            sys.stdout.write(f"step {step + 1}/{plan.steps} loss {mean:.4f} {seconds:.0f} s\n")
            sys.stdout.flush()
        if rank == 0 and step % 100 == 99:
            state = [part.state_dict() for part in (network, *optimizers)]
            torch.save({"step": step + 1, "state": state}, checkpoint)
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


def _batches(rank: int, plan: Plan, tokenizer: Tokenizer) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's part of every batch."""
    step_tokens = plan.rows_per_step * plan.row_tokens // NUM_PROCESSES
    short, long = (
        (rows(tokenizer, conversations(seed + rank), length), step_tokens // length)
        for seed, length in (
            (DATA_SEED, plan.row_tokens),
            (DATA_SEED + 10, plan.long_row_tokens),
        )
    )
    for step in range(plan.steps):
        source, num_rows = long if (step + 1) % plan.long_every == 0 else short
        batch = itertools.islice(source, num_rows)
        tokens, learn = (torch.from_numpy(np.stack(part)) for part in zip(*batch, strict=True))
        yield tokens, learn


if __name__ == "__main__":
    main()
