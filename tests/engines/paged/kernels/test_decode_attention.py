import pytest
import torch

from engines.paged.kernels import decode_attention as decode
from engines.paged.kernels.decode_attention import choose_num_splits
from tests.engines.paged.kernels.cached_sequences import Layer, cached
from tests.engines.paged.kernels.closeness import assert_close
from tests.engines.paged.kernels.conftest import Draw

HALF, BRAIN = torch.float16, torch.bfloat16
LAYERS = [
    *(Layer(num_heads=2 * group, size=16) for group in range(1, 9)),
    *(Layer(size=size, block_size=32) for size in (16, 80, 96, 112, 128, 192, 256)),
    *(Layer(window=window) for window in (1, 7, 33, 1000)),
    Layer(softcap=3.0),
    Layer(softcap=50.0, window=20, dtype=BRAIN, size=256),
    Layer(num_heads=40, num_kv_heads=2, size=32, dtype=HALF),
    Layer(num_heads=71, num_kv_heads=1, size=64, dtype=BRAIN, block_size=64),
]
REAL = [
    Layer(num_heads=32, num_kv_heads=8, size=128, dtype=BRAIN),
    Layer(num_heads=16, num_kv_heads=8, size=128, dtype=BRAIN),
    Layer(num_heads=16, num_kv_heads=8, size=256, dtype=BRAIN, window=4096, softcap=50.0),
    Layer(num_heads=32, num_kv_heads=32, size=96, dtype=HALF, window=2047),
]
CONTEXTS = [37, 0, 1, 64, 17, 50]


def compare(draw: Draw, layer: Layer, contexts: list[int], num_splits: int) -> None:
    cache = cached(draw, layer, contexts)
    q = draw(len(contexts), layer.num_heads, layer.size, dtype=layer.dtype)
    arguments = (q, cache.keys, cache.values, cache.block_tables, cache.context_lens)
    options = {"scale": layer.size**-0.5, "window": layer.window, "softcap": layer.softcap}

    actual = decode.launch(*arguments, **options, num_splits=num_splits)

    assert_close(actual, decode.reference(*arguments, **options))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_kernel_attends_like_its_reference(draw: Draw, layer: Layer) -> None:
    compare(draw, layer, CONTEXTS, num_splits=1)


@pytest.mark.parametrize("num_splits", [2, 4, 16])
@pytest.mark.parametrize("layer", [Layer(), Layer(window=40, size=80, dtype=BRAIN)], ids=str)
def test_a_split_context_gives_the_same(draw: Draw, layer: Layer, num_splits: int) -> None:
    compare(draw, layer, [*CONTEXTS, 150], num_splits=num_splits)


@pytest.mark.gpu
@pytest.mark.parametrize("num_splits", [1, 4, 16])
@pytest.mark.parametrize("layer", REAL, ids=str)
def test_the_kernel_attends_like_its_reference_at_real_sizes(
    draw: Draw, layer: Layer, num_splits: int
) -> None:
    compare(draw, layer, [1024, 0, 1, 8191, 700, 4096], num_splits=num_splits)


def test_the_reference_is_torchs_own_attention(draw: Draw) -> None:
    layer = Layer(num_heads=6)
    cache = cached(draw, layer, [37])
    q = draw(1, 6, 64)

    actual = decode.decode_attention(
        q, cache.keys, cache.values, cache.block_tables, cache.context_lens,
        scale=0.2, window=None, softcap=None,
    )  # fmt: skip

    blocks = cache.block_tables[0, :3].long()
    keys = cache.keys[blocks].flatten(0, 1)[:37].transpose(0, 1)
    values = cache.values[blocks].flatten(0, 1)[:37].transpose(0, 1)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(0, 1), keys, values, scale=0.2, enable_gqa=True
    )
    assert_close(actual, expected.transpose(0, 1))


def test_an_empty_batch_is_no_launch(draw: Draw) -> None:
    compare(draw, Layer(), [], num_splits=4)


def test_contexts_are_split_until_the_gpu_is_full_or_the_splits_are_short() -> None:
    assert choose_num_splits(1, 8, 8192, 132) == 32
    assert choose_num_splits(1, 8, 1024, 132) == 8
    assert choose_num_splits(1, 1, 131072, 132) == decode.MAX_SPLITS
    assert choose_num_splits(8, 8, 8192, 132) == 4
    assert choose_num_splits(256, 8, 8192, 132) == 1
    assert choose_num_splits(0, 8, 0, 132) == 1
