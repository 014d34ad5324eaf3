from dataclasses import dataclass

import pytest
import torch

from engines.paged.kernels import rope
from tests.engines.paged.kernels.closeness import assert_close
from tests.engines.paged.kernels.conftest import Draw

NUM_POSITIONS = 64


@dataclass(frozen=True)
class Case:
    """One layer's shape, and how many tokens pass through it."""

    num_tokens: int = 5
    num_heads: int = 4
    num_kv_heads: int = 2
    size: int = 64
    turned: int = 64
    block_size: int = 16
    normalizes: bool = False
    offset: float = 0.0
    dtype: torch.dtype = torch.float32


CASES = [
    Case(),
    Case(num_heads=14, num_kv_heads=2, normalizes=True, size=128, turned=128),
    Case(size=16, turned=16, num_heads=1, num_kv_heads=1),
    Case(size=80, turned=32, block_size=32),
    Case(size=96, turned=96, normalizes=True, dtype=torch.float16),
    Case(size=96, turned=72, num_heads=9, num_kv_heads=9, normalizes=True),
    Case(size=256, turned=256, normalizes=True, offset=1.0, dtype=torch.bfloat16),
    Case(size=112, turned=56, dtype=torch.bfloat16),
    Case(num_tokens=0),
]
REAL = [
    Case(num_tokens=1, num_heads=32, num_kv_heads=8, size=128, turned=128, dtype=torch.bfloat16),
    Case(
        num_tokens=256, num_heads=16, num_kv_heads=8, size=128, turned=128, normalizes=True,
        dtype=torch.bfloat16,
    ),
    Case(num_tokens=2048, num_heads=32, num_kv_heads=32, size=96, turned=96, dtype=torch.float16),
]  # fmt: skip


class Arguments:
    """What one launch gets: q, k and v are views of one fused product, as in the engine."""

    def __init__(self, draw: Draw, case: Case) -> None:
        heads, kv_heads, size = case.num_heads, case.num_kv_heads, case.size
        fused = draw(case.num_tokens, (heads + 2 * kv_heads) * size, dtype=case.dtype)
        q, k, v = fused.split((heads * size, kv_heads * size, kv_heads * size), dim=1)
        self.qkv = (
            q.unflatten(1, (heads, size)),
            k.unflatten(1, (kv_heads, size)),
            v.unflatten(1, (kv_heads, size)),
        )
        order = torch.randperm(NUM_POSITIONS, generator=torch.Generator().manual_seed(1))
        self.positions = (torch.arange(case.num_tokens) * 7 % NUM_POSITIONS).to(draw.device)
        num_blocks = case.num_tokens // case.block_size + NUM_POSITIONS // case.block_size
        self.slots = torch.arange(case.num_tokens).to(draw.device)
        if case.num_tokens < NUM_POSITIONS:
            self.slots = order[: case.num_tokens].to(draw.device)
        if case.num_tokens > 2:
            self.slots[1] = -1
        angles = draw(NUM_POSITIONS, case.turned // 2)
        self.cos_sin = torch.cat((angles.cos(), angles.sin()), dim=1)
        self.cache_shape = (num_blocks, case.block_size, kv_heads, size)
        self.case, self.draw = case, draw
        self.weights = (draw(size, dtype=case.dtype), draw(size, dtype=case.dtype))

    def run(self, function: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The turned q and both caches, which were full of sevens before."""
        keys = torch.full(self.cache_shape, 7.0, device=self.draw.device, dtype=self.case.dtype)
        values = torch.full_like(keys, 7.0)
        q_weight, k_weight = self.weights if self.case.normalizes else (None, None)
        assert callable(function)
        q = function(
            *self.qkv, self.positions, self.cos_sin, self.slots, keys, values,
            q_weight=q_weight, k_weight=k_weight, eps=1e-5, offset=self.case.offset,
        )  # fmt: skip
        return q, keys, values


@pytest.mark.parametrize(
    "case", CASES + [pytest.param(case, marks=pytest.mark.gpu) for case in REAL], ids=str
)
def test_the_kernel_turns_and_stores_like_its_reference(draw: Draw, case: Case) -> None:
    arguments = Arguments(draw, case)

    actual, expected = arguments.run(rope.launch), arguments.run(rope.reference)

    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other)


def test_a_slot_of_minus_one_stores_nothing_and_every_other_slot_its_own_token(draw: Draw) -> None:
    arguments = Arguments(draw, Case())

    _, keys, values = arguments.run(rope.rope_and_store)

    stored = arguments.slots[arguments.slots >= 0]
    written = (values.flatten(0, 1) != 7.0).flatten(1).all(1).nonzero().flatten()
    assert written.tolist() == sorted(stored.tolist())
    assert torch.equal(values.flatten(0, 1)[stored], arguments.qkv[2][arguments.slots >= 0])
    assert (keys.flatten(0, 1)[stored] != 7.0).all()


def test_a_rotation_is_a_rotation_of_pairs_half_a_head_apart(draw: Draw) -> None:
    arguments = Arguments(draw, Case(turned=32))

    q, _, _ = arguments.run(rope.rope_and_store)

    before = arguments.qkv[0]
    assert torch.equal(q[..., 32:], before[..., 32:])
    pairs = torch.complex(before[..., :16], before[..., 16:32])
    cos, sin = arguments.cos_sin[arguments.positions].chunk(2, dim=1)
    turned = pairs * torch.complex(cos, sin)[:, None, :]
    assert_close(q[..., :32], torch.cat((turned.real, turned.imag), dim=-1))


def test_tensors_that_the_kernel_cannot_read_are_refused(draw: Draw) -> None:
    q = draw(64, 4, 2).permute(2, 1, 0)
    keys = draw(2, 16, 2, 64)

    with pytest.raises(ValueError, match="last dimension"):
        rope.launch(q, q, q, q, q, q, keys, keys)
    with pytest.raises(ValueError, match="cache must be contiguous"):
        rope.launch(q.contiguous(), keys[0], keys[0], q, q, q, keys.mT, keys)
