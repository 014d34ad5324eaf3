"""The table: every engine's figures with their part of this GPU's roofline."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from gateway.bench.roofline import (
    Machine,
    ModelShape,
    Work,
    decode_seconds,
    ideal_seconds,
    prefill_seconds,
    shape_of,
)
from gateway.bench.workloads.nano import NUM_SEQUENCES, OUTPUT_TOKENS, Nano
from tests.gpu_bench.figures import CONTEXT, PREFILL_TOKENS, Figures
from tests.gpu_bench.one import SHAPES, Outcome

Row = tuple[str, str, str]  # what, how much, part of the roofline


def rows_of(figures: Figures, shape: ModelShape, machine: Machine) -> Iterator[Row]:
    """One engine's figures in words."""
    for batch, seconds in figures.decode_seconds.items():
        least = decode_seconds(shape, machine, batch=batch, context=CONTEXT)
        speed = f"{seconds * 1000:.2f} ms, {batch / seconds:,.0f} tok/s"
        yield f"decode, batch {batch}, context {CONTEXT}", speed, f"{least / seconds:.0%}"
    if figures.prefill_seconds is not None:
        least = prefill_seconds(shape, machine, prompt_tokens=PREFILL_TOKENS)
        speed = f"{figures.prefill_seconds * 1000:.1f} ms"
        yield f"prefill of {PREFILL_TOKENS}", speed, f"{least / figures.prefill_seconds:.0%}"
    if figures.nano_seconds is not None:
        speed = f"{figures.nano_seconds:.2f} s, {OUTPUT_TOKENS / figures.nano_seconds:,.0f} tok/s"
        yield (
            "nano, 256 sequences",
            speed,
            f"{nano_least(shape, machine) / figures.nano_seconds:.0%}",
        )
    if figures.start_seconds is not None:
        yield "first token after start", f"{figures.start_seconds:.1f} s", ""


def nano_least(shape: ModelShape, machine: Machine) -> float:
    """The least time for nano-vllm's workload, all of it at once."""
    questions = [talk.questions[0] for talk in Nano().conversations(0)]
    works = [Work(len(question.token_ids), 0, question.max_tokens) for question in questions]
    return ideal_seconds(works, shape, machine, at_once=NUM_SEQUENCES)


def table_of(outcomes: Sequence[Outcome], machine: Machine) -> Table:
    """Everything that was measured; what was not says why below the table."""
    table = Table("shape", "engine", "what", "reached", "roofline", box=None, pad_edge=False)
    for outcome in outcomes:
        if outcome.figures is not None:
            shape = shape_of(SHAPES / outcome.shape)
            for row in rows_of(outcome.figures, shape, machine):
                table.add_row(outcome.shape, outcome.engine, *row)
    return table


def notes_of(outcomes: Sequence[Outcome], machine: Machine) -> Iterator[str]:
    """What the table is measured against, and what is not in it."""
    yield (
        f"roofline: {machine.bytes_per_second / 1e12:.2f} TB/s and "
        f"{machine.flops_per_second / 1e12:.0f} TFLOP/s bf16, {machine.source}"
    )
    for outcome in outcomes:
        if outcome.problem is not None:
            yield f"{outcome.shape}, {outcome.engine}: not measured: {outcome.problem}"
    yield from _http_cost(outcomes)


def _http_cost(outcomes: Sequence[Outcome]) -> Iterator[str]:
    figures = {(o.shape, o.engine): o.figures for o in outcomes if o.figures is not None}
    for shape in dict.fromkeys(outcome.shape for outcome in outcomes):
        direct, served = figures.get((shape, "paged")), figures.get((shape, "paged over HTTP"))
        if direct and served and direct.nano_seconds and served.nano_seconds:
            cost = 1 - direct.nano_seconds / served.nano_seconds
            yield f"{shape}: HTTP costs {cost:.1%} of the nano workload's throughput"


def shapes_there_are() -> list[str]:
    """The names of the folders with a config.json."""
    return sorted(path.parent.name for path in Path(SHAPES).glob("*/config.json"))
