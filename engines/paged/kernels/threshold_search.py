"""Finds, without a sort, the lowest logit of a row that top-k and top-p keep.

Floats are mapped to integers of the same order, and the limit is built bit by bit from the top: a
bit stays where what is at least that large still counts k, or weighs p. That takes 32 looks at the
row, so mostly it is done on few candidates. Reading the row once, a program keeps the largest value
of each of its lanes; the limit among those is no higher than the one sought, since every lane's
largest is a token too. What is above it is collected, usually little more than is kept, and
searched in registers. Where there is no room for all of it (almost flat rows), every look reads the
row again.

What was kept is decided by comparing values alone; see sampling.py for the rules.
"""

from engines.paged.kernels.triton_gate import tl, triton


@triton.jit
def load_logits(row, place, is_inside):
    """Logits as they count here: NaN is minus infinity, and 0 has one sign."""
    x = tl.load(row + place, mask=is_inside, other=float("-inf"))
    x = tl.where(x == x, x, float("-inf"))
    x = tl.where(x == 0.0, 0.0, x)
    return tl.minimum(x, 3.4028234663852886e38)


@triton.jit
def scan(row, vocab_size, TILE: tl.constexpr):
    """The largest logit of each lane [TILE], and the first token that has it."""
    lane = tl.arange(0, TILE)
    best = tl.full([TILE], float("-inf"), tl.float32)
    token = tl.zeros([TILE], tl.int32)
    for start in tl.range(0, vocab_size, TILE, num_stages=3):  # pyright: ignore
        x = load_logits(row, start + lane, start + lane < vocab_size)
        is_better = x > best
        best = tl.where(is_better, x, best)
        token = tl.where(is_better, start + lane, token)
    return best, token


@triton.jit
def first_largest(best, token):
    """The largest of all lanes, and the lowest token that has it; 0 where all are -inf."""
    highest = tl.max(best, axis=0)
    first = tl.min(tl.where(best == highest, token, 2147483647), axis=0)
    return highest, tl.where(highest > float("-inf"), first, 0)


@triton.jit
def lowest_kept(
    row, vocab_size, best, highest, top_k, top_p, values, tokens,
    TILE: tl.constexpr, ROOM: tl.constexpr,
):  # fmt: skip
    """The lowest logit that top-k and top-p keep, and how many candidates were collected.

    `values` and `tokens` have room for `ROOM` candidates, of which all that are kept are some. A
    number of candidates above ROOM says that there was no room, and nothing is in them.
    """
    has_k = (top_k > 0) & (top_k < vocab_size)
    has_p = top_p < 1.0
    whole = 0.0
    if has_p & (not has_k):
        whole = _weigh_row(row, vocab_size, highest, float("-inf"), TILE)
    key = _key_of(best)
    floor = float("-inf")
    if has_k:
        floor = _value_of(_descend(key, tl.where(best > float("-inf"), 1.0, 0.0), top_k))
    else:
        floor = _value_of(_descend(key, tl.exp(best - highest), top_p * whole))
    num_candidates = _collect(row, vocab_size, floor, values, tokens, TILE, ROOM)
    limit = float("-inf")
    if num_candidates <= ROOM:
        # What other threads of this program just wrote is read next.
        tl.debug_barrier()
        slot = tl.arange(0, ROOM)
        x = tl.load(values + slot, mask=slot < num_candidates, other=float("-inf"))
        limit = _limit_of_candidates(x, highest, has_k, top_k, has_p, top_p, whole)
    else:
        limit = _limit_of_row(row, vocab_size, highest, has_k, top_k, has_p, top_p, whole, TILE)
    return limit, num_candidates


@triton.jit
def _limit_of_candidates(x, highest, has_k, top_k, has_p, top_p, whole):
    key = _key_of(x)
    is_kept = x > float("-inf")
    limit = float("-inf")
    if has_k:
        limit = _value_of(_descend(key, tl.where(is_kept, 1.0, 0.0), top_k))
        is_kept = is_kept & (x >= limit)
    if has_p:
        weight = tl.where(is_kept, tl.exp(x - highest), 0.0)
        if has_k:
            whole = tl.sum(weight, axis=0)
        limit = tl.maximum(limit, _value_of(_descend(key, weight, top_p * whole)))
    return limit


@triton.jit
def _limit_of_row(
    row, vocab_size, highest, has_k, top_k, has_p, top_p, whole, TILE: tl.constexpr
):  # fmt: skip
    limit = float("-inf")
    if has_k:
        found = _descend_row(row, vocab_size, highest, limit, top_k, BY_WEIGHT=False, TILE=TILE)
        limit = _value_of(found)
        whole = _weigh_row(row, vocab_size, highest, limit, TILE)
    if has_p:
        target = top_p * whole
        found = _descend_row(row, vocab_size, highest, limit, target, BY_WEIGHT=True, TILE=TILE)
        limit = tl.maximum(limit, _value_of(found))
    return limit


@triton.jit
def _collect(row, vocab_size, floor, values, tokens, TILE: tl.constexpr, ROOM: tl.constexpr):
    """Write down what is at least `floor`, in the order of tokens, and count it."""
    lane = tl.arange(0, TILE)
    count = 0
    for start in tl.range(0, vocab_size, TILE, num_stages=3):  # pyright: ignore
        token = start + lane
        x = load_logits(row, token, token < vocab_size)
        is_candidate = (x >= floor) & (x > float("-inf"))
        num_found = tl.sum(is_candidate.to(tl.int32), axis=0)
        if num_found > 0:
            slot = count + tl.cumsum(is_candidate.to(tl.int32), axis=0) - 1
            fits = is_candidate & (slot < ROOM)
            tl.store(values + slot, x, mask=fits)
            tl.store(tokens + slot, token, mask=fits)
        count += num_found
    return count


@triton.jit
def _weigh_row(row, vocab_size, highest, limit, TILE: tl.constexpr):
    """The sum of exp(x - highest) over what is at least `limit`."""
    lane = tl.arange(0, TILE)
    weight = tl.zeros([TILE], tl.float32)
    for start in tl.range(0, vocab_size, TILE, num_stages=3):  # pyright: ignore
        x = load_logits(row, start + lane, start + lane < vocab_size)
        weight += tl.where(x >= limit, tl.exp(x - highest), 0.0)
    return tl.sum(weight, axis=0)


@triton.jit
def _descend(key, weight, target):
    """The largest key for which all of at least that key weigh `target`; 0 if none.

    `target` is positive, or the smallest weight is asked for.
    """
    target = tl.maximum(target.to(tl.float32), 1e-30)
    limit = tl.zeros([1], tl.uint32)
    bit = tl.full([1], 0x80000000, tl.uint32)
    for _ in range(32):
        tried = limit | bit
        reached = tl.sum(tl.where(key >= tried, weight, 0.0), axis=0) >= target
        limit = tl.where(reached, tried, limit)
        bit = bit >> 1
    return tl.max(limit, axis=0)


@triton.jit
def _descend_row(
    row, vocab_size, highest, limit, target, BY_WEIGHT: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """The same over a whole row, of which only what is at least `limit` counts."""
    lane = tl.arange(0, TILE)
    target = tl.maximum(target.to(tl.float32), 1e-30)
    found = tl.zeros([1], tl.uint32)
    bit = tl.full([1], 0x80000000, tl.uint32)
    for _ in range(32):
        tried = found | bit
        weight = tl.zeros([TILE], tl.float32)
        for start in tl.range(0, vocab_size, TILE, num_stages=3):  # pyright: ignore
            x = load_logits(row, start + lane, start + lane < vocab_size)
            counts = (_key_of(x) >= tried) & (x >= limit) & (x > float("-inf"))
            if BY_WEIGHT:
                weight += tl.where(counts, tl.exp(x - highest), 0.0)
            else:
                weight += tl.where(counts, 1.0, 0.0)
        found = tl.where(tl.sum(weight, axis=0) >= target, tried, found)
        bit = bit >> 1
    return tl.max(found, axis=0)


@triton.jit
def _key_of(x):
    """Integers in the order of the floats they stand for."""
    bits = x.to(tl.uint32, bitcast=True)
    return tl.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit
def _value_of(key):
    """The float that a key stands for; 0, which stands for none, is minus infinity."""
    bits = tl.where(key >= 0x80000000, key & 0x7FFFFFFF, key ^ 0xFFFFFFFF)
    return tl.where(key == 0, float("-inf"), bits.to(tl.float32, bitcast=True))
