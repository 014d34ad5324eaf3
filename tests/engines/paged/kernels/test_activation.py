import pytest
import torch

from engines.paged.kernels import activation as activations
from engines.paged.kernels.activation import Activation
from tests.engines.paged.kernels.closeness import assert_close
from tests.engines.paged.kernels.conftest import Draw

KINDS: list[Activation] = ["silu", "gelu_tanh", "gelu"]
SHAPES = [(3, 128), (1, 24), (0, 64), (2, 2 * 1030)]
REAL = [(1, 2 * 14336), (256, 2 * 3072), (2048, 2 * 14336)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shape", SHAPES + [pytest.param(shape, marks=pytest.mark.gpu) for shape in REAL]
)
def test_the_kernel_gates_like_its_reference(
    draw: Draw, shape: tuple[int, int], kind: Activation, dtype: torch.dtype
) -> None:
    gate_up = draw(*shape, dtype=dtype) * 4

    actual = activations.launch(gate_up, activation=kind)

    assert_close(actual, activations.reference(gate_up, activation=kind))


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("silu", torch.nn.SiLU()),
        ("gelu", torch.nn.GELU()),
        ("gelu_tanh", torch.nn.GELU(approximate="tanh")),
    ],
)
def test_the_first_half_is_the_gate(
    draw: Draw, kind: Activation, function: torch.nn.Module
) -> None:
    gate, up = draw(4, 32), draw(4, 32)

    actual = activations.gated(torch.cat((gate, up), dim=1), activation=kind)

    assert_close(actual, function(gate) * up)
