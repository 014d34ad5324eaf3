from collections.abc import Callable
from typing import Any

import pytest
import torch

from engines.paged.kernels import sampling
from tests.engines.paged.kernels.conftest import Draw

INF = float("inf")
# temperature, top_k, top_p, min_p
ASKED = [
    (0.0, 0, 1.0, 0.0),
    (1.0, 0, 1.0, 0.0),
    (0.7, 0, 0.9, 0.0),
    (1.3, 40, 1.0, 0.0),
    (0.8, 20, 0.95, 0.0),
    (1.0, 0, 1.0, 0.1),
    (2.0, 50, 0.8, 0.02),
    (1e-4, 0, 1.0, 0.0),
    (5.0, 1, 0.5, 0.0),
]


def options(asked: list[tuple[float, int, float, float]], device: str) -> dict[str, Any]:
    temperature, top_k, top_p, min_p = zip(*asked, strict=True)
    return {
        "temperature": torch.tensor(temperature, device=device),
        "top_k": torch.tensor(top_k, device=device),
        "top_p": torch.tensor(top_p, device=device),
        "min_p": torch.tensor(min_p, device=device),
        "seeds": torch.arange(len(asked), device=device) * 977 - 3,
        "positions": torch.arange(len(asked), device=device) + 5,
    }


@pytest.mark.parametrize(
    ("vocab_size", "tile", "room"),
    [(33, 128, 64), (259, 128, 256), (259, 256, 32), (1000, 256, 1024), (1000, 512, 64)],
)
def test_the_kernel_draws_the_tokens_of_its_reference(
    draw: Draw, vocab_size: int, tile: int, room: int
) -> None:
    asked = ASKED
    logits = draw(len(asked), vocab_size) * 3

    tokens = sampling.launch(logits, **options(asked, draw.device), tile=tile, room=room)

    assert torch.equal(tokens, sampling.reference(logits, **options(asked, draw.device)))
    assert tokens.dtype == torch.int64


@pytest.mark.gpu
@pytest.mark.parametrize("vocab_size", [32001, 128256, 151936])
def test_the_kernel_draws_the_tokens_of_its_reference_at_real_sizes(
    draw: Draw, vocab_size: int
) -> None:
    asked = ASKED * 28
    logits = draw(len(asked), vocab_size) * 3

    tokens = sampling.launch(logits, **options(asked, draw.device))

    # Logarithms differ in the last bit between Triton and torch, so a near-tie may fall otherwise.
    same = tokens == sampling.reference(logits, **options(asked, draw.device))
    assert same.float().mean() > 0.99


@pytest.mark.parametrize("run", [sampling.launch, sampling.reference], ids=["triton", "torch"])
def test_rows_that_are_parts_of_longer_ones_give_the_same_tokens(
    draw: Draw, run: Callable[..., torch.Tensor]
) -> None:
    part = (draw(len(ASKED), 256) * 3)[:, :203]
    part._base[:, 203:] = 100.0  # type: ignore[index]  # and nobody may see that

    tokens = run(part, **options(ASKED, draw.device))

    assert torch.equal(tokens, run(part.contiguous(), **options(ASKED, draw.device)))


@pytest.mark.parametrize("keep", [sampling.launch_keep_top_k, sampling.keep_top_k_reference])
def test_top_k_of_rows_that_are_parts_of_longer_ones_leaves_the_rest(
    draw: Draw, keep: Callable[..., None]
) -> None:
    longer = draw(3, 256)
    part, whole = longer[:, :203], longer[:, :203].contiguous()
    top_k = torch.tensor([1, 0, 50], device=draw.device)

    keep(part, top_k)
    keep(whole, top_k)

    assert torch.equal(part, whole)
    assert (part > -INF).sum(1).tolist() == [1, 203, 50]
    assert (longer[:, 203:] > -INF).all()


def test_odd_rows_give_a_token_that_exists(draw: Draw) -> None:
    logits = draw(6, 100)
    logits[0] = -INF
    logits[1] = float("nan")
    logits[2, 50:] = float("nan")
    logits[3] = -INF
    logits[3, 99] = -5.0
    logits[4, 7] = INF
    logits[5] = 0.0
    asked = [(1.0, 5, 0.9, 0.0)] * 6

    for run in (sampling.reference, sampling.launch):
        tokens = run(logits, **options(asked, draw.device)).tolist()

        assert tokens[:2] == [0, 0]
        assert 0 <= tokens[2] < 50
        assert tokens[3:5] == [99, 7]
        assert 0 <= tokens[5] < 100


def test_of_equal_logits_greedy_takes_the_first(draw: Draw) -> None:
    logits = draw(3, 300)
    logits[:, [17, 150, 299]] = 9.0
    asked = [(0.0, 0, 1.0, 0.0)] * 3

    for tokens in (
        sampling.launch(logits, **options(asked, draw.device), tile=64),
        sampling.reference(logits, **options(asked, draw.device)),
    ):
        assert tokens.tolist() == [17, 17, 17]


@pytest.mark.parametrize("run", [sampling.reference, sampling.launch], ids=["torch", "triton"])
def test_a_token_depends_on_seed_and_position_but_not_on_its_place(draw: Draw, run: Any) -> None:
    logits = draw(len(ASKED), 200)
    asked = options(ASKED, draw.device)
    tokens = run(logits, **asked)
    order = torch.tensor([4, 1, 8, 2], device=draw.device)

    alone = [
        run(logits[row : row + 1], **{name: value[row : row + 1] for name, value in asked.items()})
        for row in range(len(ASKED))
    ]
    mixed = run(logits[order], **{name: value[order] for name, value in asked.items()})

    assert torch.equal(torch.cat(alone), tokens)
    assert torch.equal(mixed, tokens[order])


def draws(likelihood: torch.Tensor, count: int, by: str, **changes: float) -> torch.Tensor:
    """How often each token came, at so many seeds or so many positions."""
    many = torch.arange(count)
    fixed = torch.full((count,), 11)
    settings = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0} | changes
    top_k = int(settings.pop("top_k", 0))
    tokens = sampling.sample(
        likelihood.log().repeat(count, 1),
        **{name: torch.full((count,), value) for name, value in settings.items()},
        top_k=torch.full((count,), top_k),
        seeds=many if by == "seeds" else fixed,
        positions=many if by == "positions" else fixed,
    )
    return tokens.bincount(minlength=len(likelihood))


def chi_square(counts: torch.Tensor, likelihood: torch.Tensor) -> float:
    expected = likelihood * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


# The chi-square distribution of 19 degrees of freedom is above this once in a thousand times; the
# seeds are fixed, so either always or never.
LIMIT = 43.8


@pytest.mark.parametrize("by", ["seeds", "positions"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_they_should(by: str, temperature: float) -> None:
    likelihood = torch.linspace(1, 10, 20) / 110

    counts = draws(likelihood, 20_000, by, temperature=temperature)

    tempered = likelihood ** (1 / temperature)
    assert chi_square(counts, tempered / tempered.sum()) < LIMIT


def test_what_is_left_after_top_p_keeps_its_proportions() -> None:
    likelihood = torch.tensor([0.4, 0.2, 0.2, 0.1, 0.1])

    counts = draws(likelihood, 20_000, "seeds", top_p=0.75)

    assert counts[3:].tolist() == [0, 0]
    assert chi_square(counts[:3], torch.tensor([0.5, 0.25, 0.25])) < 13.8


def test_temperature_comes_after_top_p_as_in_the_gguf_engine() -> None:
    likelihood = torch.tensor([0.6, 0.3, 0.1])

    counts = draws(likelihood, 1000, "seeds", top_p=0.5, temperature=100.0)

    assert counts.tolist() == [1000, 0, 0]


@pytest.mark.parametrize(("tile", "room"), [(128, 256), (64, 16)])
def test_keep_top_k_leaves_each_rows_k_largest(draw: Draw, tile: int, room: int) -> None:
    logits = draw(6, 300)
    top_k = torch.tensor([0, 1, 40, 299, 300, 9999], device=draw.device)
    actual, expected = logits.clone(), logits.clone()

    sampling.launch_keep_top_k(actual, top_k, tile=tile, room=room)
    sampling.keep_top_k_reference(expected, top_k)

    assert torch.equal(actual, expected)
    assert (actual > -INF).sum(1).tolist() == [300, 1, 40, 299, 300, 300]
    assert torch.equal(actual[actual > -INF], logits[actual > -INF])
