"""What is measured, with nothing but the time that a batch of prompts takes.

Every engine, ours or another's, is reduced to one function: so many prompts,
each with the number of tokens that it must produce, and how long all of it took.
"""

from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from typing import Protocol

from msgspec import Struct

from gateway.bench.workloads.nano import Nano
from gateway.bench.workloads.words import token_ids

BATCHES = (1, 8, 64, 256)
PROMPT_TOKENS = 896
FEW, MANY = 64, 192  # answer lengths; between them the context is 1,024 on average
CONTEXT = PROMPT_TOKENS + (FEW + MANY) // 2
PREFILL_TOKENS = 2048
REPEATS = 3
VOCAB_SIZE = 10_000


class Subject(Protocol):
    """An engine with a model loaded."""

    def seconds_for(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], *, temperature: float
    ) -> float:
        """Answer all prompts at once, each with exactly its length; raises if one is not."""
        ...


class Figures(Struct, frozen=True, kw_only=True):
    """What one engine reached with one shape; None: not measured."""

    decode_seconds: dict[int, float]  # of one step, by batch
    prefill_seconds: float | None  # until the first token of a prompt of PREFILL_TOKENS
    nano_seconds: float | None
    start_seconds: float | None  # from the process's start to a first token


def measure(
    subject: Subject, tell: Callable[[str], None], *, batches: Sequence[int] = BATCHES
) -> Figures:
    """Measure everything; `tell` hears each figure as it comes."""
    prompts = Prompts()
    decode: dict[int, float] = {}
    for batch in batches:
        decode[batch] = decode_seconds(subject, prompts, batch)
        tell(f"decode, batch {batch}: {decode[batch] * 1000:.2f} ms a step")
    prefill = prefill_seconds(subject, prompts)
    tell(f"prefill of {PREFILL_TOKENS} tokens: {prefill * 1000:.1f} ms")
    nano = nano_seconds(subject)
    tell(f"nano: {nano:.2f} s")
    return Figures(
        decode_seconds=decode, prefill_seconds=prefill, nano_seconds=nano, start_seconds=None
    )


def decode_seconds(subject: Subject, prompts: "Prompts", batch: int) -> float:
    """One decode step of a full batch at CONTEXT, free of prefill and of ramps.

    The same prompts' lengths with longer answers take longer by exactly the added
    steps, all of them with the whole batch running: what comes before and after is
    in both times, and cancels out. Prompts differ, so no prefix cache interferes.
    """

    def seconds(num_tokens: int) -> float:
        asked = [prompts.next(PROMPT_TOKENS) for _ in range(batch)]
        return subject.seconds_for(asked, [num_tokens] * batch, temperature=0.0)

    seconds(MANY)  # every kernel, graph and buffer exists now
    differences = [seconds(MANY) - seconds(FEW) for _ in range(REPEATS)]
    return median(differences) / (MANY - FEW)


def prefill_seconds(subject: Subject, prompts: "Prompts") -> float:
    """Until a prompt alone has its first token."""
    times = [
        subject.seconds_for([prompts.next(PREFILL_TOKENS)], [1], temperature=0.0)
        for _ in range(REPEATS + 2)
    ]
    return median(times[1:])


def nano_seconds(subject: Subject) -> float:
    """nano-vllm's workload; the first of two passes is its warm-up, as other tokens."""
    for place in (1, 0):
        questions = [talk.questions[0] for talk in Nano().conversations(place)]
        seconds = subject.seconds_for(
            [question.token_ids for question in questions],
            [question.max_tokens for question in questions],
            temperature=questions[0].temperature,
        )
    return seconds


class Prompts:
    """Prompts of random token ids, no two alike."""

    def __init__(self) -> None:
        self._random = Random(1)

    def next(self, num_tokens: int) -> list[int]:
        return token_ids(self._random, num_tokens, vocab_size=VOCAB_SIZE)
