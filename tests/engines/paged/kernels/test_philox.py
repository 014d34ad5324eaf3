import pytest
import torch

from engines.paged.kernels import philox
from engines.paged.kernels.triton_gate import tl, triton
from tests.engines.paged.kernels.closeness import assert_close

ONES = 0xFFFFFFFF
# The known answers that the generator's authors publish with it (Random123, kat_vectors).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@triton.jit
def _noise_kernel(seeds, positions, words_out, noise_out, num_lanes, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    lane = tl.arange(0, BLOCK)
    words = philox.words_at(lane.to(tl.uint32), tl.load(seeds + row), tl.load(positions + row))
    for which in tl.static_range(4):
        place = (row * 4 + which) * num_lanes + lane
        tl.store(words_out + place, words[which].to(tl.int64), mask=lane < num_lanes)
        tl.store(noise_out + place, philox.gumbel(words[which]), mask=lane < num_lanes)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_reference_gives_the_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], answer: tuple[int, int, int, int]
) -> None:
    a, b, c, d = (torch.tensor([word]) for word in counter)
    key_a, key_b = (torch.tensor([word]) for word in key)

    words = philox.reference((a, b, c, d), (key_a, key_b))

    assert tuple(word.item() for word in words) == answer


def test_the_kernel_draws_the_same_numbers_as_the_reference(device: str) -> None:
    seeds = torch.tensor([0, 1, -1, 2**62 + 12345, -(2**63)], device=device)
    positions = torch.tensor([0, 7, 2**31 + 3, 2**33 + 1, 5], device=device)
    words = torch.empty((5, 40), dtype=torch.int64, device=device)
    noise = torch.empty((5, 40), device=device)

    _noise_kernel[(5,)](seeds, positions, words, noise, 10, BLOCK=16)

    lane = torch.arange(10, device=device)[None]
    high = torch.stack((positions >> 32 & ONES, seeds >> 32 & ONES))
    expected = philox.reference(
        (lane, lane * 0, positions[:, None] & ONES, high[0, :, None]),
        (seeds[:, None] & ONES, high[1, :, None]),
    )
    assert torch.equal(words, torch.cat(expected, dim=1))
    assert_close(noise, philox.gumbel_reference(seeds, positions, 40))


def test_noise_is_gumbels_and_finite_at_both_ends() -> None:
    noise = philox.gumbel_reference(torch.arange(50), torch.zeros(50, dtype=torch.int64), 4000)

    assert noise.isfinite().all()
    assert abs(noise.mean().item() - 0.5772) < 0.01
    assert abs(noise.var().item() - torch.pi**2 / 6) < 0.02
    ends = philox._gumbel(torch.tensor([0, 1, 2**32 - 1]))
    assert ends.isfinite().all()
    assert ends[0] > ends[1] > 20
    assert ends[2] < -2


def test_every_seed_and_position_has_its_own_numbers() -> None:
    seeds = torch.tensor([3, 3, 4, 3 + 2**32])
    positions = torch.tensor([0, 1, 0, 0])

    noise = philox.gumbel_reference(seeds, positions, 101)

    assert len({tuple(row) for row in noise.tolist()}) == 4
    assert noise.unique().numel() == noise.numel()
