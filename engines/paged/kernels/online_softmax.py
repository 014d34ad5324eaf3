"""The pieces that both attention kernels are made of: a tile of the cache, its scores, their sum.

The softmax is the online one (Milakov and Gimelshein 2018), in float32 and powers of two: `highest`
is the largest score so far, `total` the sum of the weights, `mixed` the weighted values.
"""

from engines.paged.kernels.triton_gate import tl, triton

LOG2_E = 1.4426950408889634


@triton.jit
def load_tile(
    key_cache, value_cache, table, key, is_key, kv_head, key_block_stride, value_block_stride,
    NUM_KV_HEADS: tl.constexpr, SIZE: tl.constexpr, PADDED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, IN_FLOAT32: tl.constexpr,
):  # fmt: skip
    """Keys [PADDED, K] and values [K, PADDED] of one head, at the places `key` of a sequence.

    What is not `is_key` is zeros and never read, since its block may be anyone's.
    """
    dim = tl.arange(0, PADDED)
    # A cache may be larger than 2 GiB, so what is found in it is counted in 64 bits.
    block = tl.load(table + key // BLOCK_SIZE, mask=is_key, other=0).to(tl.int64)
    within = (key % BLOCK_SIZE) * (NUM_KV_HEADS * SIZE) + kv_head * SIZE
    key_place = (block * key_block_stride + within)[None, :] + dim[:, None]
    value_place = (block * value_block_stride + within)[:, None] + dim[None, :]
    is_part = (dim < SIZE)[:, None] & is_key[None, :]
    keys = tl.load(key_cache + key_place, mask=is_part, other=0.0)
    is_part = is_key[:, None] & (dim < SIZE)[None, :]
    values = tl.load(value_cache + value_place, mask=is_part, other=0.0)
    if IN_FLOAT32:
        keys, values = keys.to(tl.float32), values.to(tl.float32)
    return keys, values


@triton.jit
def scores_of(
    queries, keys, scale, softcap, HAS_SOFTCAP: tl.constexpr, IN_FLOAT32: tl.constexpr
):  # fmt: skip
    """Scores in powers of two; `scale` has the factor log2(e) in it."""
    scores = tl.dot(queries, keys, input_precision="ieee" if IN_FLOAT32 else "tf32") * scale
    if HAS_SOFTCAP:
        # tanh(x) is 2 * sigmoid(2x) - 1, of the natural score.
        natural = scores * (0.6931471805599453 / softcap)
        scores = (2.0 * tl.sigmoid(2.0 * natural) - 1.0) * (softcap * 1.4426950408889634)
    return scores


@triton.jit
def fold(scores, values, highest, total, mixed, IN_FLOAT32: tl.constexpr):
    """Add a tile's values, weighted by its scores; a score of minus infinity has no weight."""
    new_highest = tl.maximum(highest, tl.max(scores, axis=1))
    # A row that has seen no key yet has no highest score to subtract.
    shift = tl.where(new_highest > float("-inf"), new_highest, 0.0)
    shrink = tl.exp2(highest - shift)
    weight = tl.exp2(scores - shift[:, None])
    total = total * shrink + tl.sum(weight, axis=1)
    mixed = tl.dot(
        weight.to(values.dtype), values, mixed * shrink[:, None],
        input_precision="ieee" if IN_FLOAT32 else "tf32",
    )  # fmt: skip
    return new_highest, total, mixed
