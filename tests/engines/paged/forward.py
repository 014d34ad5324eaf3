"""Drives a decoder step by step over a paged cache, without a scheduler.

Blocks are handed out in a shuffled order, so no sequence lies in one piece, and the
cache is full of NaN at first: who reads what nobody wrote is found out.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engines.paged.models.decoder import Decoder
from engines.paged.step_inputs import KVCache, StepInputs


@dataclass(eq=False)
class Running:
    """A sequence and what is in the cache of it."""

    tokens: list[int]
    blocks: list[int] = field(default_factory=list)
    num_computed: int = 0


class Driver:
    """One model, its cache, and the blocks that are still free."""

    def __init__(self, model: Decoder, *, num_blocks: int = 64, block_size: int = 16) -> None:
        self.model = model
        dtype = next(model.parameters()).dtype
        self.kv = KVCache.allocate(
            model.shape, num_blocks=num_blocks, block_size=block_size, device="cpu", dtype=dtype
        )
        self.kv.keys.fill_(float("nan"))
        self.kv.values.fill_(float("nan"))
        self.block_size = block_size
        self.free = list(range(num_blocks))
        random.Random(1).shuffle(self.free)

    def step(self, rows: Sequence[tuple[Running, int]], *, padding: int = 0) -> Tensor:
        """Compute the next so many tokens of each sequence; float32 logits of every token.

        `padding` adds rows of one token that belong to no sequence.
        """
        with torch.inference_mode():
            hidden = self.model(self._inputs(rows, padding), self.kv)
            count = sum(count for _, count in rows)
            return self.model.logits(hidden[:count])

    def _inputs(self, rows: Sequence[tuple[Running, int]], padding: int) -> StepInputs:
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        starts, lens, tables = [0], list[int](), list[list[int]]()
        rope_positions: list[int] = []
        for sequence, count in rows:
            end = sequence.num_computed + count
            while len(sequence.blocks) * self.block_size < end:
                sequence.blocks.append(self.free.pop())
            for position in range(sequence.num_computed, end):
                ids.append(sequence.tokens[position])
                positions.append(position)
                block = sequence.blocks[position // self.block_size]
                slots.append(block * self.block_size + position % self.block_size)
                rope_positions.append(position + self._rope_offset(sequence))
            sequence.num_computed = end
            starts.append(len(ids))
            lens.append(end)
            tables.append(sequence.blocks)
        for _ in range(padding):
            ids.append(0)
            positions.append(0)
            slots.append(-1)
            rope_positions.append(0)
            starts.append(len(ids))
            lens.append(0)
            tables.append([])
        width = max(map(len, tables))
        return StepInputs(
            token_ids=torch.tensor(ids),
            positions=torch.tensor(positions),
            slots=torch.tensor(slots),
            block_tables=torch.tensor(
                [table + [0] * (width - len(table)) for table in tables], dtype=torch.int32
            ),
            query_starts=torch.tensor(starts, dtype=torch.int32),
            context_lens=torch.tensor(lens, dtype=torch.int32),
            max_query_tokens=max([count for _, count in rows] + [1] * bool(padding)),
            max_context_tokens=max(lens),
            rope_positions=(
                None if self.model.long_rope_offset is None else torch.tensor(rope_positions)
            ),
        )

    def _rope_offset(self, sequence: Running) -> int:
        offset = self.model.long_rope_offset
        return offset if offset is not None and len(sequence.tokens) > offset else 0

    def prompt(self, tokens: Sequence[int], *, chunk: int | None = None) -> tuple[Running, Tensor]:
        """Compute a prompt, in chunks if so asked; the logits of all its tokens."""
        sequence = Running(list(tokens))
        parts: list[Tensor] = []
        while sequence.num_computed < len(tokens):
            left = len(tokens) - sequence.num_computed
            parts.append(self.step([(sequence, min(left, chunk or left))]))
        return sequence, torch.cat(parts)

    def greedy(
        self, prompt: Sequence[int], num_tokens: int, *, chunk: int | None = None
    ) -> list[int]:
        """The most likely continuation."""
        sequence, logits = self.prompt(prompt, chunk=chunk)
        while True:
            sequence.tokens.append(int(logits[-1].argmax()))
            if len(sequence.tokens) == len(prompt) + num_tokens:
                return sequence.tokens[len(prompt) :]
            logits = self._next(sequence)

    def _next(self, sequence: Running) -> Tensor:
        if self.model.long_rope_offset is None:
            return self.step([(sequence, 1)])
        # Its keys were turned by the short frequencies: compute all of it again.
        if len(sequence.tokens) == self.model.long_rope_offset + 1:
            sequence.num_computed = 0
        return self.step([(sequence, len(sequence.tokens) - sequence.num_computed)])
