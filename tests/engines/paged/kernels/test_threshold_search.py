"""What top-k and top-p keep, held to an oracle that sorts."""

import numpy as np
import pytest
import torch

from engines.paged.kernels import sampling, threshold_search
from engines.paged.kernels.triton_gate import tl, triton
from tests.engines.paged.kernels.conftest import Draw

VOCAB = 301
INF = float("inf")
# A tile of lanes, and room for candidates. Little room forces the search over the whole row.
IN_REGISTERS, OVER_THE_ROW, OVER_TILES = (128, 512), (512, 32), (128, 32)


@triton.jit
def _limit_kernel(
    logits, top_k, top_p, values, tokens, limits, vocab_size,
    TILE: tl.constexpr, ROOM: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0)
    row = logits + place * vocab_size
    best, token = threshold_search.scan(row, vocab_size, TILE)
    highest, _ = threshold_search.first_largest(best, token)
    limit, _ = threshold_search.lowest_kept(
        row, vocab_size, best, highest, tl.load(top_k + place), tl.load(top_p + place),
        values + place * ROOM, tokens + place * ROOM, TILE, ROOM,
    )  # fmt: skip
    tl.store(limits + place, limit)


def rows_of(draw: Draw) -> dict[str, torch.Tensor]:
    """Logits of kinds that a search may stumble over, on the CPU."""
    random = draw(VOCAB).cpu()
    few = torch.full((VOCAB,), -INF)
    few[[7, 100, 300]] = torch.tensor([1.0, -2.0, 0.5])
    zeros = torch.zeros(VOCAB)
    zeros[::2] = -0.0
    return {
        "peaked": random * 4,
        "flat": random * 0.01,
        "tied": (random * 3).round(),
        "all equal": torch.full((VOCAB,), 2.5),
        "signed zeros": torch.where(random > 1, random, zeros),
        "few allowed": few,
        "one far ahead": torch.where(torch.arange(VOCAB) == 44, 90.0, random),
        "large": random * 1e4,
        "holes": random.masked_fill(random < 0, -INF),
    }


def kept_by_sorting(logits: torch.Tensor, top_k: int, top_p: float) -> set[int]:
    """The rules of sampling.py, word by word, in float64."""
    row = logits.double().numpy()
    alive = np.ones(len(row), bool)
    if top_k > 0:
        alive = row >= np.sort(row)[::-1][min(top_k, len(row)) - 1]
    weight = np.where(alive, np.exp(row - row.max()), 0.0)
    share = weight / weight.sum()
    kept = set[int]()
    likelier = 0.0
    for value in sorted(set(row[alive]), reverse=True):
        if kept and top_p < 1 and likelier >= top_p:
            break
        tied = np.flatnonzero(alive & (row == value))
        kept.update(tied.tolist())
        likelier += share[tied].sum()
    return kept - set(np.flatnonzero(np.isneginf(row)).tolist())


def kept_above(logits: torch.Tensor, limit: float) -> set[int]:
    return set(((logits >= limit) & (logits > -INF)).nonzero().flatten().tolist())


# top-k and top-p
ASKED = [
    (0, 0.0), (0, 0.3), (0, 0.9), (0, 0.999), (1, 1.0), (2, 1.0), (40, 1.0), (300, 1.0), (301, 0.5),
    (5, 0.9), (40, 0.5), (1000, 0.95), (200, 0.9),
]  # fmt: skip


KINDS = list(rows_of(Draw("cpu")))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *((kind, shape) for kind in KINDS for shape in (IN_REGISTERS, OVER_THE_ROW)),
        ("tied", OVER_TILES),
    ],
    ids=str,
)
def test_the_search_keeps_what_sorting_keeps(draw: Draw, kind: str, shape: tuple[int, int]) -> None:
    tile, room = shape
    row = rows_of(draw)[kind]
    asked = ASKED[::2] if tile < room else ASKED[::4] if tile < VOCAB else ASKED[1::2]
    logits = row.repeat(len(asked), 1).to(draw.device)
    top_k = torch.tensor([k for k, _ in asked], device=draw.device)
    top_p = torch.tensor([p for _, p in asked], device=draw.device)
    values = torch.empty((len(asked), room), device=draw.device)
    limits = torch.empty(len(asked), device=draw.device)

    _limit_kernel[(len(asked),)](
        logits, top_k, top_p, values, values.int(), limits, VOCAB, TILE=tile, ROOM=room
    )

    found = [kept_above(row, limit) for limit in limits.tolist()]
    assert found == [kept_by_sorting(row, k, p) for k, p in asked]


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_keeps_what_sorting_keeps(draw: Draw, kind: str) -> None:
    row = rows_of(draw)[kind]
    top_k = torch.tensor([k for k, _ in ASKED])
    top_p = torch.tensor([p for _, p in ASKED])

    limits = sampling.lowest_kept_reference(
        row.repeat(len(ASKED), 1), top_k, top_p, torch.zeros(len(ASKED))
    )

    found = [kept_above(row, limit) for limit in limits.tolist()]
    assert found == [kept_by_sorting(row, k, p) for k, p in ASKED]


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest() -> None:
    likelihood = torch.tensor([[0.5, 0.3, 0.1, 0.06, 0.04]])

    def kept(min_p: float) -> int:
        nothing = torch.zeros(1, dtype=torch.int64)
        limit = sampling.lowest_kept_reference(
            likelihood.log(), nothing, torch.ones(1), torch.tensor([min_p])
        )
        return int((likelihood.log() >= limit).sum())

    assert [kept(p) for p in (0.0, 0.1, 0.15, 0.5, 0.7, 1.0, 3.0)] == [5, 4, 3, 2, 1, 1, 1]
