import pytest
import torch

from engines.paged.kernels import attention
from engines.paged.step_inputs import StepInputs
from tests.engines.paged.kernels.cached_sequences import Cached, Layer, cached
from tests.engines.paged.kernels.closeness import assert_close
from tests.engines.paged.kernels.conftest import Draw

MIXES = {
    "decodes": ([37, 0, 64, 5], [1, 1, 1, 1]),
    "prompts": ([37, 60, 5], [37, 9, 5]),
    "both, with padding": ([37, 60, 90, 33, 0, 1], [1, 9, 1, 33, 0, 1]),
}


def inputs_of(cache: Cached, num_queries: list[int], num_splits: int) -> StepInputs:
    num_rows = int(cache.query_starts[-1])
    nothing = torch.zeros(num_rows, dtype=torch.int64, device=cache.keys.device)
    return StepInputs(
        token_ids=nothing,
        positions=nothing,
        slots=nothing,
        block_tables=cache.block_tables,
        query_starts=cache.query_starts,
        context_lens=cache.context_lens,
        max_query_tokens=max(num_queries),
        max_context_tokens=int(cache.context_lens.max()),
        num_splits=num_splits,
    )


@pytest.mark.parametrize("num_splits", [1, 4])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("layer", [Layer(), Layer(window=20, softcap=5.0, size=80)], ids=str)
def test_each_sequence_is_attended_to_by_one_kernel(
    draw: Draw, layer: Layer, mix: str, num_splits: int
) -> None:
    contexts, num_queries = MIXES[mix]
    cache = cached(draw, layer, contexts, num_queries)
    q = draw(sum(num_queries), layer.num_heads, layer.size, dtype=layer.dtype)
    inputs = inputs_of(cache, num_queries, num_splits)
    options = {"scale": 0.125, "window": layer.window, "softcap": layer.softcap}

    actual = attention.launch(q, cache.keys, cache.values, inputs, **options)

    expected = attention.reference(q, cache.keys, cache.values, inputs, **options)
    assert_close(actual, expected)
    assert_close(attention.attention(q, cache.keys, cache.values, inputs, **options), expected)
