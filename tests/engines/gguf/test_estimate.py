from pathlib import Path

import msgspec
import pytest

from engines.gguf.config import GgufConfig
from engines.gguf.estimate import Sizes, needs_of, sizes_of
from engines.gguf.file_format import read_file
from engines.gguf.header import read_header
from engines.gguf.runner import Runner
from engines.gguf.shapes import generation_shape
from engines.gguf.tuning import tuning_of
from tests.gguf_files import write_gguf

MIB = 2**20
SIZES = Sizes(
    blocks=[100 * MIB] * 10,
    output_bytes=50 * MIB,
    other_bytes=50 * MIB,
    tied_bytes=0,
    trained_tokens=1024,
    num_tokens=1000,
    width=512,
    feed_forward=1024,
    num_heads=8,
    cache_widths=[512] * 10,
    cache_bytes_per_token=2 * 2 * 512 * 10,
)
CONFIG = GgufConfig(num_slots=2, cache="shared", context_tokens=1024)


def needs(gpu_mib: int, sizes: Sizes = SIZES, **changes: object) -> list[tuple[int, int, int]]:
    """Layers, and MiB of both memories, of every way to load it."""
    config = msgspec.structs.replace(CONFIG, **changes)
    ways = needs_of(sizes, config, is_embedding_model=False, gpu_bytes=gpu_mib * MIB)
    return [(w.gpu_layers, w.room.main_bytes // MIB, w.room.gpu_bytes // MIB) for w in ways]


def test_without_a_gpu_there_is_one_way() -> None:
    ((layers, main, gpu),) = needs(0)

    assert (layers, gpu) == (0, 0)
    assert 1100 + 40 <= main <= 1100 + 40 + 20  # weights, 2048 tokens of cache, buffers


def test_with_room_for_all_of_it_only_what_must_stays_in_main_memory() -> None:
    layers, main, gpu = needs(4096)[0]

    assert layers == 11  # ten blocks and the output
    assert 50 <= main <= 70
    assert 1050 + 40 <= gpu <= 1050 + 40 + 20


def test_fewer_layers_where_the_gpu_is_small_and_none_as_the_last_way() -> None:
    ways = needs(400)

    assert [layers for layers, _, _ in ways] == list(range(ways[0][0], -1, -1))
    assert 2 <= ways[0][0] <= 3
    assert all(gpu <= 400 for _, _, gpu in ways)
    assert ways[-1] == needs(0)[0]


def test_a_fixed_number_of_layers_is_the_only_way() -> None:
    assert [layers for layers, _, _ in needs(4096, num_gpu_layers=4)] == [4]
    assert [layers for layers, _, _ in needs(4096, num_gpu_layers=0)] == [0]
    assert [layers for layers, _, _ in needs(4096, num_gpu_layers=99)] == [11]
    # Too many for this GPU: still the only way, so that its refusal says what it would take.
    assert [layers for layers, _, _ in needs(100, num_gpu_layers=4)] == [4]


def test_an_output_tied_to_the_embedding_is_copied_to_the_gpu() -> None:
    tied = SIZES._replace(output_bytes=0, other_bytes=50 * MIB, tied_bytes=50 * MIB)

    _, main, gpu = needs(4096, tied)[0]

    assert (main, gpu) == needs(4096)[0][1:]


def test_attention_that_is_not_flash_takes_more() -> None:
    assert needs(0, flash_attention=False)[0][1] > needs(0)[0][1] + 20


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cache": "shared"},
        {"cache_type_k": "q8_0", "cache_type_v": "q4_0"},
        {"flash_attention": False},
        {"max_batch_tokens": 64},
    ],
    ids=str,
)
def test_a_real_model_takes_what_was_estimated_or_a_little_less(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    path = write_gguf(
        tmp_path / "m.gguf",
        layers=4,
        width=256,
        heads=4,
        feed_forward=704,
        context_tokens=1024,
        extra_tokens=8000,
    )
    config = msgspec.structs.replace(GgufConfig(num_slots=4), **changes)
    sizes = sizes_of(read_file(path), read_header(path), config)
    (need,) = needs_of(sizes, config, is_embedding_model=False, gpu_bytes=0)

    runner = Runner(path, tuning=tuning_of(config, 0))
    runner.open_cache(generation_shape(runner, config))
    allocated, cache = runner.allocated, runner.cache_bytes_per_token
    runner.close()

    assert cache == sizes.cache_bytes_per_token
    assert allocated.gpu_bytes == 0
    assert 0.95 * allocated.main_bytes <= need.room.main_bytes <= 1.6 * allocated.main_bytes + MIB
