import pytest
import torch

from engines.paged.kernels import prefill_attention as prefill
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
    Layer(num_heads=3, num_kv_heads=3, size=80, dtype=BRAIN, block_size=64),
    Layer(num_heads=71, num_kv_heads=1, size=16),
]
REAL = [
    Layer(num_heads=32, num_kv_heads=8, size=128, dtype=BRAIN),
    Layer(num_heads=16, num_kv_heads=8, size=128, dtype=BRAIN),
    Layer(num_heads=16, num_kv_heads=8, size=256, dtype=BRAIN, window=1024, softcap=50.0),
    Layer(num_heads=32, num_kv_heads=32, size=96, dtype=HALF, window=2047),
    Layer(num_heads=32, num_kv_heads=8, size=64),
]
# A whole prompt, a chunk after a prefix, a padding row, decodes, and one row's worth of a tile.
CONTEXTS = [37, 60, 0, 1, 50, 17]
NUM_QUERIES = [37, 9, 0, 1, 1, 16]


def compare(draw: Draw, layer: Layer, contexts: list[int], num_queries: list[int]) -> None:
    cache = cached(draw, layer, contexts, num_queries)
    num_rows = sum(num_queries) + 3
    q = draw(num_rows, layer.num_heads, layer.size, dtype=layer.dtype)
    arguments = (
        q, cache.keys, cache.values, cache.block_tables, cache.query_starts, cache.context_lens,
    )  # fmt: skip
    options = {"scale": layer.size**-0.5, "window": layer.window, "softcap": layer.softcap}
    longest = max([1, *num_queries])

    actual = prefill.launch(*arguments, **options, max_query_tokens=longest)

    assert_close(actual, prefill.reference(*arguments, **options, max_query_tokens=longest))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_kernel_attends_like_its_reference(draw: Draw, layer: Layer) -> None:
    compare(draw, layer, CONTEXTS, NUM_QUERIES)


@pytest.mark.parametrize("dtype", [torch.float32, BRAIN], ids=str)
def test_tiles_find_their_sequences_in_any_mix_of_lengths(draw: Draw, dtype: torch.dtype) -> None:
    layer = Layer(num_heads=2, size=16, dtype=dtype)

    compare(draw, layer, [64], [64])
    compare(draw, layer, [64, 64], [64, 64])
    compare(draw, layer, [70, 33, 1, 1, 130], [1, 33, 1, 1, 129])
    compare(draw, layer, [0, 0, 5], [0, 0, 5])


@pytest.mark.gpu
@pytest.mark.parametrize("layer", REAL, ids=str)
def test_the_kernel_attends_like_its_reference_at_real_sizes(draw: Draw, layer: Layer) -> None:
    compare(draw, layer, [2048, 3000, 0, 1024, 517], [2048, 512, 0, 1, 130])


def test_no_token_is_no_launch(draw: Draw) -> None:
    compare(draw, Layer(), [], [])


def test_the_reference_is_torchs_own_causal_attention(draw: Draw) -> None:
    cache = cached(draw, Layer(num_heads=6), [300], [290])
    q = draw(290, 6, 64)

    actual = prefill.prefill_attention(
        q, cache.keys, cache.values, cache.block_tables, cache.query_starts, cache.context_lens,
        scale=0.125, window=None, softcap=None, max_query_tokens=290,
    )  # fmt: skip

    blocks = cache.block_tables[0, :19].long()
    keys = cache.keys[blocks].flatten(0, 1)[:300].transpose(0, 1)
    values = cache.values[blocks].flatten(0, 1)[:300].transpose(0, 1)
    sees = torch.ones(290, 300, dtype=torch.bool, device=q.device).tril(10)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(0, 1), keys, values, attn_mask=sees, scale=0.125, enable_gqa=True
    )
    assert_close(actual, expected.transpose(0, 1))
