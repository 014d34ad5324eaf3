"""The two sets of frequencies that Phi-3's longrope has; other kinds are in test_decoder.py."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines.checkpoint.model_shape import RopeShape
from engines.paged.checkpoint import Checkpoint
from engines.paged.layers.rotary import long_rope_offset, rotary_table
from engines.paged.models.decoder import Decoder
from engines.paged.weights import load
from tests.engines.paged.forward import Driver
from tests.engines.paged.random_checkpoints import DECODERS, reference, write

CPU = torch.device("cpu")
LONGROPE = RopeShape(
    kind="longrope",
    theta=10_000.0,
    rotary_dim=4,
    original_context_tokens=8,
    short_factors=(1.0, 1.5),
    long_factors=(2.0, 4.0),
)


class LongDriver(Driver):
    """Hands over no rotary positions, as whoever does not know of longrope would."""

    def _inputs(self, rows, padding):
        return replace(super()._inputs(rows, padding), rope_positions=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(DECODERS["phi3-longrope"], tmp_path)
    return tmp_path


def decoder(folder: Path, context_tokens: int | None = None) -> Decoder:
    model = load(Checkpoint(folder), "cpu", torch.float32, context_tokens=context_tokens)
    assert isinstance(model, Decoder)
    return model


def expected(folder: Path, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return reference(folder)(torch.tensor([tokens]), use_cache=False).logits[0]


def test_the_table_holds_the_short_rows_and_behind_them_the_long_ones():
    table = rotary_table(LONGROPE, 20, CPU)

    offset = long_rope_offset((LONGROPE,), 20)
    assert offset == 8
    assert table.shape == (8 + 20, 4)
    short, long = table[3], table[offset + 3]
    assert short[:2].tolist() == pytest.approx([math.cos(3.0), math.cos(0.02)])
    assert long[2:].tolist() == pytest.approx([math.sin(1.5), math.sin(0.0075)])


def test_where_no_sequence_can_be_long_there_is_one_set():
    assert long_rope_offset((LONGROPE,), 8) is None
    assert rotary_table(LONGROPE, 8, CPU).shape == (8, 4)


def test_a_short_context_runs_by_the_short_factors(folder: Path):
    prompt = list(range(3, 40))
    model = decoder(folder, context_tokens=40)
    assert model.long_rope_offset is None

    _, logits = Driver(model).prompt(prompt, chunk=9)

    torch.testing.assert_close(logits, expected(folder, prompt), rtol=1e-4, atol=1e-4)


def test_without_rotary_positions_everything_runs_by_the_long_factors(folder: Path):
    prompt = list(range(3, 60))
    model = decoder(folder)
    assert model.long_rope_offset == 40

    _, logits = LongDriver(model).prompt(prompt, chunk=9)

    torch.testing.assert_close(logits, expected(folder, prompt), rtol=1e-4, atol=1e-4)


def test_angles_are_exact_far_out():
    rope = RopeShape(kind="default", theta=10_000.0, rotary_dim=4)

    row = rotary_table(rope, 100_001, CPU)[100_000]

    angles = torch.tensor([100_000.0, 1_000.0], dtype=torch.float64)
    torch.testing.assert_close(row[:2].double(), angles.cos(), rtol=0, atol=1e-3)
