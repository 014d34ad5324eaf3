"""How much memory a model will take, from its header alone: weights, KV cache, buffers.

The formulas follow what llama.cpp allocates, rather a little more than less:
the pool keeps the room free, and corrects itself once the model is loaded. For
odd architectures (sliding windows, recurrent states) it says too much; what was
measured is remembered (needs.py).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from engines.gguf.config import GgufConfig
from engines.gguf.file_format import GgufFile
from engines.gguf.header import GgufHeader
from engines.gguf.runner import Shape
from engines.gguf.shapes import cache_bytes, embedding_shape, generation_shape
from engines.gguf.tensor_types import bytes_per_item
from engines.pool import Need, Room

_BLOCK = re.compile(r"blk\.(\d+)\.")
_FLOAT_BYTES = 4
_GRAPH_BYTES = 2**20


class Sizes(NamedTuple):
    """What of a file the estimate rests on; like a `Runner`, it can be asked for a shape."""

    blocks: Sequence[int]  # bytes of weights of each block
    output_bytes: int
    other_bytes: int  # of weights that never are on a GPU
    tied_bytes: int  # of them, what a GPU needs a copy of to compute the output
    trained_tokens: int
    num_tokens: int
    width: int
    feed_forward: int
    num_heads: int
    cache_widths: Sequence[int]  # numbers that the keys of a token take, in each block
    cache_bytes_per_token: int  # over all blocks


def sizes_of(file: GgufFile, header: GgufHeader, config: GgufConfig) -> Sizes:
    """Add up a file's tensors and read what decides the size of its cache."""
    blocks = [0] * header.num_blocks
    output_bytes = other_bytes = 0
    for tensor in file.tensors:
        found = _BLOCK.match(tensor.name)
        if found and int(found[1]) < len(blocks):
            blocks[int(found[1])] += tensor.size_bytes
        elif tensor.name.startswith("output"):
            output_bytes += tensor.size_bytes
        else:
            other_bytes += tensor.size_bytes
    heads = _per_block(file, header, "attention.head_count", 1)
    key_heads = _per_block(file, header, "attention.head_count_kv", max(heads))
    default = header.embedding_length // max(1, *heads)
    key_width = _number(file, header, "attention.key_length", default)
    widths = [count * key_width for count in key_heads]
    return Sizes(
        blocks=blocks,
        output_bytes=output_bytes,
        other_bytes=other_bytes,
        tied_bytes=0 if output_bytes else other_bytes,
        trained_tokens=header.context_tokens,
        num_tokens=header.num_tokens,
        width=header.embedding_length,
        feed_forward=max(_per_block(file, header, "feed_forward_length", 0)),
        num_heads=max(heads),
        cache_widths=widths,
        cache_bytes_per_token=int(sum(widths) * cache_item_bytes(config)),
    )


def cache_item_bytes(config: GgufConfig) -> float:
    """Bytes of a key and a value together, for one number of each."""
    return sum(bytes_per_item(name or "f16") for name in (config.cache_type_k, config.cache_type_v))


def needs_of(
    sizes: Sizes, config: GgufConfig, *, is_embedding_model: bool, gpu_bytes: int
) -> list[Need]:
    """The ways to load a model, the best first: as many layers on GPUs as these could hold."""
    most = len(sizes.blocks) + 1  # the output layer is the last
    layers: Sequence[int] = range(most, -1, -1)
    if not gpu_bytes:
        layers = (0,)
    elif config.num_gpu_layers is not None:
        layers = (min(config.num_gpu_layers, most),)
    rooms = [(count, _room(sizes, config, count, is_embedding_model)) for count in layers]
    fitting = [Need(room, count) for count, room in rooms if room.gpu_bytes <= gpu_bytes]
    return fitting or [Need(rooms[-1][1], layers[-1])]


def _room(sizes: Sizes, config: GgufConfig, gpu_layers: int, is_embedding_model: bool) -> Room:  # noqa: FBT001
    cache, work = _cache_and_work(sizes, config, is_embedding_model)
    weights = sum(sizes.blocks) + sizes.output_bytes + sizes.other_bytes
    if not gpu_layers:
        return Room(main_bytes=weights + cache + work, num_models=1)
    first = max(0, len(sizes.blocks) - gpu_layers)
    share = sum(sizes.cache_widths[first:]) / max(1, sum(sizes.cache_widths))
    moved = sum(sizes.blocks[first:]) + sizes.output_bytes
    return Room(
        main_bytes=weights - moved + int(cache * (1 - share)) + work,
        gpu_bytes=moved + sizes.tied_bytes + int(cache * share) + work,
        num_models=1,
    )


def _cache_and_work(sizes: Sizes, config: GgufConfig, is_embedding_model: bool) -> tuple[int, int]:  # noqa: FBT001
    if is_embedding_model:
        shape = embedding_shape(sizes, config)
        cache = int(shape.pool_tokens * sum(sizes.cache_widths) * 2 * _FLOAT_BYTES)
        return cache, _work(sizes, shape, is_flash=False)
    shape = generation_shape(sizes, config)
    return cache_bytes(sizes, shape), _work(
        sizes, shape, is_flash=config.flash_attention is not False
    )


def _work(sizes: Sizes, shape: Shape, *, is_flash: bool) -> int:
    """The compute buffer of one step: logits, the widest activations, the attention's mask."""
    rows = min(shape.max_batch_tokens, shape.pool_tokens)
    seen = shape.context_tokens if shape.exact else shape.pool_tokens
    numbers = sizes.num_tokens + 3 * sizes.width + 2 * sizes.feed_forward + seen
    if not is_flash:
        numbers += seen * sizes.num_heads
    return rows * numbers * _FLOAT_BYTES + _GRAPH_BYTES


def _per_block(file: GgufFile, header: GgufHeader, name: str, default: int) -> list[int]:
    array = file.arrays.get(f"{header.architecture}.{name}")
    if array is not None and array.items is not None:
        return [int(item) for item in array.items] or [default]
    return [_number(file, header, name, default)] * header.num_blocks


def _number(file: GgufFile, header: GgufHeader, name: str, default: int) -> int:
    value = file.scalars.get(f"{header.architecture}.{name}")
    return value if isinstance(value, int) and not isinstance(value, bool) else default
