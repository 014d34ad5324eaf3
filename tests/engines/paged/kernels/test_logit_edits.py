from collections.abc import Callable

import pytest
import torch

from engines.paged.kernels import logit_edits
from tests.engines.paged.kernels.closeness import assert_close
from tests.engines.paged.kernels.conftest import Draw

INF = float("inf")
SIZES = [(3, 33), (1, 64), (4, 1001), (2, 4200)]
REAL = [(64, 128256), (256, 151936)]
ALL_SIZES = SIZES + [pytest.param(size, marks=pytest.mark.gpu) for size in REAL]


def random_bits(num_lines: int, vocab_size: int, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    shape = (num_lines, -(-vocab_size // 32))
    bits = torch.randint(-(2**31), 2**31, shape, generator=generator)
    return bits.to(torch.int32).to(device)


@pytest.mark.parametrize("size", ALL_SIZES, ids=str)
@pytest.mark.parametrize("has_rows", [False, True])
def test_the_bitmask_kernel_bans_like_its_reference(
    draw: Draw, size: tuple[int, int], has_rows: bool
) -> None:
    logits = draw(*size)
    rows = torch.arange(size[0], device=draw.device).flip(0)[:2] if has_rows else None
    bits = random_bits(size[0] if rows is None else len(rows), size[1], draw.device)
    actual, expected = logits.clone(), logits.clone()

    logit_edits.launch_bitmask(actual, bits, rows)
    logit_edits.bitmask_reference(expected, bits, rows)

    assert torch.equal(actual, expected)


@pytest.mark.parametrize("size", ALL_SIZES, ids=str)
def test_the_repeat_kernel_penalizes_like_its_reference(draw: Draw, size: tuple[int, int]) -> None:
    logits = draw(*size)
    generator = torch.Generator().manual_seed(6)
    recent = torch.randint(-1, min(size[1], 20), (size[0], 50), generator=generator)
    penalty = torch.linspace(1.0, 2.0, size[0])
    actual, expected = logits.clone(), logits.clone()

    for run, result in (
        (logit_edits.launch_repeat, actual),
        (logit_edits.repeat_reference, expected),
    ):
        run(result, recent.to(draw.device), penalty.to(draw.device))

    assert_close(actual, expected)


@pytest.mark.parametrize("size", ALL_SIZES, ids=str)
def test_the_count_kernel_penalizes_like_its_reference(draw: Draw, size: tuple[int, int]) -> None:
    num_rows, vocab_size = size
    logits = draw(*size)
    generator = torch.Generator().manual_seed(7)
    counts = torch.randint(-3, 4, (num_rows + 2, vocab_size), generator=generator).clamp(min=0)
    lines = torch.arange(num_rows).flip(0) - 1
    frequency, presence = draw(num_rows), draw(num_rows)
    actual, expected = logits.clone(), logits.clone()

    for run, result in (
        (logit_edits.launch_count, actual),
        (logit_edits.count_reference, expected),
    ):
        run(result, counts.int().to(draw.device), lines.to(draw.device), frequency, presence)

    assert_close(actual, expected)


def test_a_bit_that_is_not_set_bans_its_token(draw: Draw) -> None:
    logits = draw(2, 40)
    bits = torch.tensor([[0b101, 1 << 7], [-1, -1]], dtype=torch.int32, device=draw.device)

    logit_edits.apply_bitmask(logits, bits)

    assert (logits[0] > -INF).nonzero().flatten().tolist() == [0, 2, 39]
    assert (logits[1] > -INF).all()


@pytest.mark.parametrize("run", [logit_edits.apply_bitmask, logit_edits.launch_bitmask])
def test_what_a_mask_is_too_short_for_is_banned(draw: Draw, run: object) -> None:
    logits = draw(1, 100)

    assert callable(run)
    run(logits, torch.tensor([[-1]], dtype=torch.int32, device=draw.device))

    assert (logits[0] > -INF).nonzero().flatten().tolist() == list(range(32))


def test_bias_is_added_where_it_is_asked_for_and_padding_adds_nothing(draw: Draw) -> None:
    logits = torch.zeros(2, 5, device=draw.device)
    tokens = torch.tensor([[3, 3, -1], [0, 4, 1]], device=draw.device)
    values = torch.tensor([[1.0, 2.0, 9.0], [-INF, 5.0, -1.0]], device=draw.device)

    logit_edits.add_bias(logits, tokens, values)

    assert logits.tolist() == [[0, 0, 0, 3, 0], [-INF, -1, 0, 0, 5]]


@pytest.mark.parametrize("edit", [
    logit_edits.add_bias,
    logit_edits.bitmask_reference, logit_edits.launch_bitmask,
    logit_edits.repeat_reference, logit_edits.launch_repeat,
    logit_edits.count_reference, logit_edits.launch_count,
], ids=lambda edit: edit.__name__)  # fmt: skip
def test_rows_that_are_parts_of_longer_ones_are_changed_alike_and_the_rest_is_not(
    draw: Draw, edit: Callable[..., None]
) -> None:
    longer = draw(3, 256)
    part, whole = longer[:, :203], longer[:, :203].contiguous()
    rest = longer[:, 203:].clone()
    ids = torch.tensor([[202, 7], [-1, -1], [0, 202]], device=draw.device)
    penalty = torch.tensor([1.5, 1.0, 2.0], device=draw.device)
    lines = torch.arange(3, device=draw.device)
    arguments: dict[str, tuple[torch.Tensor, ...]] = {
        "bias": (ids, draw(3, 2)),
        "bitmask": (random_bits(3, 203, draw.device),),
        "repeat": (ids, penalty),
        "count": (random_bits(3, 203 * 32, draw.device) % 3, lines, penalty, penalty),
    }
    (given,) = (given for name, given in arguments.items() if name in edit.__name__)
    before = whole.clone()

    edit(part, *given)
    edit(whole, *given)

    assert torch.equal(part, whole)
    assert not torch.equal(whole, before)
    assert torch.equal(longer[:, 203:], rest)


@pytest.mark.parametrize("run", [logit_edits.repeat_penalty, logit_edits.launch_repeat])
def test_a_repeated_token_is_penalized_once_and_away_from_zero(draw: Draw, run: object) -> None:
    logits = torch.tensor([[4.0, -4.0, 1.0, -INF], [4.0, -4.0, 1.0, 0.0]], device=draw.device)
    recent = torch.tensor([[0, 1, 0, 3], [-1, -1, 2, -1]], device=draw.device)

    assert callable(run)
    run(logits, recent, torch.tensor([2.0, 1.0], device=draw.device))

    assert logits.tolist() == [[2, -8, 1, -INF], [4, -4, 1, 0]]


@pytest.mark.parametrize("run", [logit_edits.count_penalties, logit_edits.launch_count])
def test_frequency_counts_each_time_and_presence_once(draw: Draw, run: object) -> None:
    logits = torch.zeros(2, 4, device=draw.device)
    counts = torch.tensor([[9, 9, 9, 9], [0, 1, 3, 0]], dtype=torch.int32, device=draw.device)
    lines = torch.tensor([-1, 1], device=draw.device)
    frequency, presence = (torch.full((2,), x, device=draw.device) for x in (0.5, 0.25))

    assert callable(run)
    run(logits, counts, lines, frequency, presence)

    assert logits.tolist() == [[0, 0, 0, 0], [0, -0.75, -1.75, 0]]
