"""Random numbers that depend on a request's seed and a place in its answer, and on nothing else.

Philox4x32-10 is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011): a key and a counter in, four words out, no state between. The counter here is
(token's lane, 0, position), the key the seed; so it does not matter in which row of which batch a
token is drawn, nor on which device.
"""

import torch
from torch import Tensor

from engines.paged.kernels.triton_gate import tl, triton

_WORD = 0xFFFFFFFF
_MULTIPLIER_A, _MULTIPLIER_B = 0xD2511F53, 0xCD9E8D57
_KEY_STEP_A, _KEY_STEP_B = 0x9E3779B9, 0xBB67AE85
NUM_ROUNDS = 10

# The same, as Triton wants its constants.
_TIMES_A, _TIMES_B = tl.constexpr(_MULTIPLIER_A), tl.constexpr(_MULTIPLIER_B)
_PLUS_A, _PLUS_B = tl.constexpr(_KEY_STEP_A), tl.constexpr(_KEY_STEP_B)
_ROUNDS = tl.constexpr(NUM_ROUNDS)


def lanes(vocab_size: int) -> int:
    """How many counters a vocabulary takes: token t has word t // lanes of counter t % lanes."""
    return -(-vocab_size // 4)


def reference(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words for each counter, all as int64 that hold 32 bits, in torch."""
    a, b, c, d = counter
    key_a, key_b = key
    for _ in range(NUM_ROUNDS):
        # The product wraps around in int64, but its bits are those of the unsigned one.
        low, high = a * _MULTIPLIER_A, c * _MULTIPLIER_B
        a, b = (high >> 32 & _WORD) ^ b ^ key_a, high & _WORD
        c, d = (low >> 32 & _WORD) ^ d ^ key_b, low & _WORD
        key_a, key_b = key_a + _KEY_STEP_A & _WORD, key_b + _KEY_STEP_B & _WORD
    return a, b, c, d


def gumbel_reference(seeds: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """Standard Gumbel noise [R, V] for each token at each row's (seed, position), in torch."""
    lane = torch.arange(lanes(vocab_size), device=seeds.device)[None, :]
    seeds, positions = seeds[:, None], positions[:, None]
    counter = (lane, torch.zeros_like(lane), positions & _WORD, positions >> 32 & _WORD)
    words = reference(counter, (seeds & _WORD, seeds >> 32 & _WORD))
    return _gumbel(torch.cat(words, dim=1)[:, :vocab_size])


def _gumbel(words: Tensor) -> Tensor:
    # The winner is decided where the uniform number is small, so that end keeps all 32 bits.
    uniform = (words.float() + 0.5) * 2.0**-32
    uniform = uniform.clamp(max=1 - 2.0**-24)
    series = uniform * (1 + uniform * (0.5 + uniform / 3))  # -log(1 - u), exact for small u
    exponential = torch.where(uniform < 0.01, series, -torch.log(1 - uniform))
    return -torch.log(exponential)


@triton.jit
def philox(a, b, c, d, key_a, key_b):
    """Four words for each counter, all uint32, in Triton."""
    for _ in tl.static_range(_ROUNDS):  # pyright: ignore
        next_a = tl.umulhi(c, _TIMES_B) ^ b ^ key_a
        next_c = tl.umulhi(a, _TIMES_A) ^ d ^ key_b
        b = c * _TIMES_B
        d = a * _TIMES_A
        a = next_a
        c = next_c
        key_a = key_a + _PLUS_A
        key_b = key_b + _PLUS_B
    return a, b, c, d


@triton.jit
def words_at(lane, seed, position):
    """The words of `lane` [N] uint32 at a row's seed and position, int64 both, in Triton."""
    zero = tl.zeros_like(lane)
    return philox(
        lane, zero, zero + position.to(tl.uint32), zero + (position >> 32).to(tl.uint32),
        seed.to(tl.uint32), (seed >> 32).to(tl.uint32),
    )  # fmt: skip


@triton.jit
def gumbel(words):
    """Standard Gumbel noise of uint32 words, in Triton."""
    uniform = (words.to(tl.float32) + 0.5) * 2.3283064365386963e-10
    uniform = tl.minimum(uniform, 0.99999994)
    series = uniform * (1.0 + uniform * (0.5 + uniform * 0.3333333333333333))
    exponential = tl.where(uniform < 0.01, series, -tl.log(1.0 - uniform))
    return -tl.log(exponential)
