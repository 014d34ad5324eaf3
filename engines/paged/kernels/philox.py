"""Random numbers that depend on a request's seed and a place in its answer, and on nothing else.

Philox4x32-10 is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011): a key and a counter in, four words out, no state between. The counter here is
(token's lane, 0, position), the key the seed; so it does not matter in which row of which batch a
token is drawn, nor on which device.
"""

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIER_A, _MULTIPLIER_B = 0xD2511F53, 0xCD9E8D57
_KEY_STEP_A, _KEY_STEP_B = 0x9E3779B9, 0xBB67AE85
NUM_ROUNDS = 10


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
