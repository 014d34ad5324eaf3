import pytest
import torch

from engines.paged.kernels import rms_norm
from tests.engines.paged.kernels.closeness import assert_close
from tests.engines.paged.kernels.conftest import Draw

TYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(3, 64), (1, 80), (5, 7, 96), (0, 64), (2, 1000)]
REAL = [(1, 4096), (256, 1024), (2048, 3584)]


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "shape", SHAPES + [pytest.param(shape, marks=pytest.mark.gpu) for shape in REAL]
)
def test_the_kernel_normalizes_like_its_reference(
    draw: Draw, shape: tuple[int, ...], dtype: torch.dtype, offset: float
) -> None:
    x, residual = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype)
    weight = draw(shape[-1], dtype=dtype)

    assert_close(
        rms_norm.launch(x, weight, 1e-5, offset=offset),
        rms_norm.reference(x, weight, 1e-5, offset=offset),
    )
    out, total = rms_norm.launch_add(x, residual, weight, 1e-5, offset=offset)
    expected_out, expected_total = rms_norm.add_reference(x, residual, weight, 1e-5, offset=offset)
    assert_close(out, expected_out)
    assert_close(total, expected_total)


def test_rows_of_a_wider_tensor_are_read_where_they_are(draw: Draw) -> None:
    x = draw(4, 96)[:, 16:80]
    weight = draw(64)

    assert_close(rms_norm.launch(x, weight, 1e-6), rms_norm.reference(x, weight, 1e-6))


def test_the_reference_is_torchs_own_normalization(draw: Draw) -> None:
    x, weight = draw(5, 64), draw(64)

    expected = torch.nn.functional.rms_norm(x, (64,), weight, eps=1e-5)

    assert_close(rms_norm.rms_norm(x, weight, 1e-5), expected)
    assert_close(rms_norm.rms_norm(x, weight - 1, 1e-5, offset=1.0), expected)
    assert_close(rms_norm.add_rms_norm(x - 1, x * 0 + 1, weight, 1e-5)[0], expected)
