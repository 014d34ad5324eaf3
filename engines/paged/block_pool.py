"""The blocks of one KV cache: who has which, and what the idle ones still hold.

A block holds the keys and values of `block_size` tokens. A full one is known by
a digest of its tokens, of all tokens before them and of the cache salt, so a
prompt that begins like an earlier one of the same salt finds what was computed
for it. Nothing here knows of sequences running or waiting: that is scheduler.py.

Only the step thread calls this, so nothing locks. It imports no torch.
"""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from hashlib import blake2b
from typing import NamedTuple

from engines.paged.sequence import Sequence

# Digests decide whose keys and values a prompt reads, so nobody may find two prompts
# with the same one: 32 bytes leave 128 bits against a collision.
DIGEST_BYTES = 32


class Room(NamedTuple):
    """Blocks for a whole sequence; its first `num_cached` tokens are computed."""

    blocks: list[int]
    num_shared: int  # leading blocks that were found, not allocated
    num_cached: int
    copy: tuple[int, int] | None = None  # from block, to block, before the step


class BlockPool:
    """The blocks of one engine, shared by prefix.

    A block is free, in use by `references` sequences, or idle: kept because its
    content may be asked for again, least recently used first in line to be
    evicted. Always: free + in use + idle == total. `check()` asserts it.
    """

    def __init__(
        self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool = True
    ) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError(f"a pool of {num_blocks} blocks of {block_size} tokens holds nothing")
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._is_caching = enable_prefix_caching
        self._references = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._digests: dict[int, bytes] = {}
        self._blocks: dict[bytes, int] = {}
        self._fresh: set[int] = set()  # published while the plan being made was made
        self._copied: list[int] = []  # sources of its copies, held until it is made

    @property
    def num_available(self) -> int:
        """Blocks that could be allocated now: the free and the idle ones."""
        return len(self._free) + len(self._idle)

    @property
    def num_idle(self) -> int:
        """Blocks that nobody uses and that keep their content."""
        return len(self._idle)

    @property
    def num_in_use(self) -> int:
        """Blocks that sequences hold."""
        return self.num_blocks - len(self._free) - len(self._idle)

    @property
    def used(self) -> float:
        """The fraction of all blocks that is in use; idle ones are not."""
        return self.num_in_use / self.num_blocks

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that so many tokens take."""
        return -(-num_tokens // self.block_size)

    def digest(self, sequence: Sequence) -> None:
        """Bring `sequence.digests` up to date with its full blocks.

        Touches the sequence alone, so an engine may do it for a long prompt on another
        thread before it submits it.
        """
        if self._is_caching:
            extend_digests(sequence.digests, sequence.tokens, self.block_size, sequence.cache_salt)

    def match(self, digests: Iterable[bytes]) -> list[int]:
        """The blocks that hold the longest known beginning of this chain."""
        found: list[int] = []
        for digest in digests:
            block = self._blocks.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def take(self, shared: SequenceOf[int], num_new: int, *, spare: int = 0) -> list[int] | None:
        """Share what `match` found and allocate `num_new` more; returns the new ones.

        None, and nothing changed, if that would leave fewer than `spare` available.
        """
        num_revived = sum(1 for block in shared if not self._references[block])
        if self.num_available - num_revived - num_new < spare:
            return None
        for block in shared:
            if not self._references[block]:
                del self._idle[block]
            self._references[block] += 1
        return [self._allocate() for _ in range(num_new)]

    def take_one(self) -> int | None:
        """Allocate one block, or None if every one is in use."""
        if not (self._free or self._idle):
            return None
        return self._allocate()

    def begin_plan(self) -> None:
        """A new step is being planned: what is published now, its own rows will fill."""
        self._fresh.clear()

    def end_plan(self) -> None:
        """The plan is made: what it copies from may be given to the next one."""
        self.release(self._copied)
        self._copied.clear()

    def find_room(self, sequence: Sequence, *, spare: int = 0) -> Room | None:
        """Blocks for all tokens of a sequence, found or new, that leave `spare` available.

        None, and nothing changed, if there are too few. At least one token is left to
        compute, or there would be nothing to sample from.
        """
        self.digest(sequence)
        num_tokens = len(sequence.tokens)
        shared = self.match(sequence.digests) if sequence.reads_cache else []
        if len(shared) * self.block_size == num_tokens:
            room = self._copy_last(shared.pop(), shared, num_tokens, spare)
            if room is not None:
                return room
        new = self.take(shared, self.num_blocks_for(num_tokens) - len(shared), spare=spare)
        if new is None:
            return None
        return Room(shared + new, len(shared), len(shared) * self.block_size)

    def publish(self, sequence: Sequence, num_tokens: int) -> None:
        """Let others find the blocks that the first `num_tokens` of a sequence fill.

        They must be computed, or about to be by a step that is launched before any that
        is planned from now on.
        """
        first, last = sequence.num_published, num_tokens // self.block_size
        if first >= last or not self._is_caching or not sequence.blocks:
            return
        self.digest(sequence)
        for index in range(first, last):
            block, digest = sequence.blocks[index], sequence.digests[index]
            # Two may have computed the same; then the first one's blocks are found.
            if digest not in self._blocks:
                self._blocks[digest] = block
                self._digests[block] = digest
                self._fresh.add(block)
        sequence.num_published = last

    def release(self, blocks: SequenceOf[int]) -> None:
        """Give back one reference to each of a sequence's blocks.

        The last block goes first in line for eviction: a chain is of no use without its
        beginning.
        """
        references = self._references
        for block in reversed(blocks):
            references[block] -= 1
            if not references[block]:
                if block in self._digests:
                    self._idle[block] = None
                else:
                    self._free.append(block)

    def forget(self) -> None:
        """Drop what all blocks hold: it is no longer true, or no longer wanted."""
        self._digests.clear()
        self._blocks.clear()
        self._free.extend(self._idle)
        self._idle.clear()

    def check(self, held: Iterable[SequenceOf[int]]) -> None:
        """Assert that `held`, the blocks of each sequence, accounts for every reference."""
        references = Counter(block for blocks in held for block in blocks)
        free, idle = set(self._free), set(self._idle)
        assert len(free) == len(self._free), "a block is free twice"
        assert not free & idle, "a block is both free and idle"
        assert not (free | idle) & references.keys(), "a block in use was given back"
        assert len(free) + len(idle) + len(references) == self.num_blocks, "a block was lost"
        for block, count in enumerate(self._references):
            assert count == references[block], f"block {block}: {count} != {references[block]}"
        assert self._blocks == {digest: block for block, digest in self._digests.items()}
        assert idle <= self._digests.keys(), "an idle block that nobody can find"
        assert not free & self._digests.keys(), "a free block that can be found"

    def _copy_last(
        self, source: int, shared: list[int], num_tokens: int, spare: int
    ) -> Room | None:
        """Room for a sequence that is cached to its last token.

        That token is computed again. Others may read the block that it is in, so this
        happens in a copy; not of a block that only the same step will fill.
        """
        num_shared = len(shared)
        if source in self._fresh or num_shared * self.block_size == num_tokens - 1:
            return None
        new = self.take([*shared, source], 1, spare=spare)
        if new is None:
            return None
        self._copied.append(source)  # no row of this plan may be given it
        return Room(shared + new, num_shared, num_tokens - 1, (source, new[0]))

    def _allocate(self) -> int:
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._idle.popitem(last=False)
            del self._blocks[self._digests.pop(block)]
        self._references[block] = 1
        return block


def extend_digests(
    digests: list[bytes], tokens: SequenceOf[int], block_size: int, salt: str
) -> None:
    """Add the digests of the full blocks of `tokens` that `digests` lacks.

    Each covers the digest before it, so one digest stands for a whole beginning.
    """
    num_full = len(tokens) // block_size
    if len(digests) >= num_full:
        return
    # Root and links cannot be mistaken for each other: `person` tells them apart.
    last = digests[-1] if digests else _root(salt)
    for start in range(len(digests) * block_size, num_full * block_size, block_size):
        content = array("q", tokens[start : start + block_size]).tobytes()
        last = blake2b(last + content, digest_size=DIGEST_BYTES, person=b"block").digest()
        digests.append(last)


def _root(salt: str) -> bytes:
    content = salt.encode("utf-8", "surrogatepass")
    return blake2b(content, digest_size=DIGEST_BYTES, person=b"salt").digest()
