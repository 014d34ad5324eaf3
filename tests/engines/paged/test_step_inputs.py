"""A cache hands out layers that are views, and refuses tensors that cannot be one."""

from pathlib import Path

import pytest
import torch

from engines.paged.checkpoint import Checkpoint
from engines.paged.step_inputs import KVCache
from engines.starter import SAFETENSORS_DIR


def test_a_cache_has_room_for_a_models_keys_and_values():
    checkpoint = Checkpoint(Path(SAFETENSORS_DIR))

    cache = KVCache.allocate(
        checkpoint.shape, num_blocks=5, block_size=16, device="cpu", dtype=torch.float16
    )

    assert (cache.num_blocks, cache.block_size) == (5, 16)
    held = cache.keys.nbytes + cache.values.nbytes
    assert held == 5 * 16 * checkpoint.kv_bytes_per_token(torch.float16)


def test_a_layer_is_a_view_of_its_part():
    cache = KVCache(torch.zeros(3, 2, 4, 1, 8), torch.zeros(3, 2, 4, 1, 8))

    keys, values = cache.layer(1)
    keys.fill_(1.0)
    values.fill_(2.0)

    assert cache.keys.sum(dim=(1, 2, 3, 4)).tolist() == [0.0, 64.0, 0.0]
    assert cache.values.sum(dim=(1, 2, 3, 4)).tolist() == [0.0, 128.0, 0.0]


@pytest.mark.parametrize("sizes", [((1, 2, 4, 1, 8), (1, 2, 4, 1, 4)), ((2, 4, 1, 8),) * 2])
def test_tensors_that_are_no_cache_are_refused(sizes: tuple[tuple[int, ...], tuple[int, ...]]):
    with pytest.raises(ValueError, match="keys and values must both be"):
        KVCache(torch.zeros(sizes[0]), torch.zeros(sizes[1]))
