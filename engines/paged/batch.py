"""One step's plan becomes tensors: the only way from host to device.

Everything that a step needs goes over in one copy, into buffers that stay where
they are, as CUDA graphs want it. Host buffers come in pairs: while a step is
being computed the next is written into the other one.

Block tables live on the device, one line for each place; a step sends only the
blocks that are new. Token ids that the host does not know yet, because the step
that samples them has not been read, are sent as the place that will have them.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.paged.sequence import Row, Sequence, StepPlan
from engines.paged.transfers import to_device

_FIELDS = ("ids", "positions", "slots", "rope_positions")  # for each token


@dataclass(frozen=True, slots=True)
class StepTensors:
    """A step on the device: T tokens in S rows, of which R sample; padding included."""

    ids: Tensor  # i64 [T]: the token, or -1 - place of the sequence whose last token it is
    positions: Tensor  # i64 [T]
    slots: Tensor  # i64 [T], -1 for padding
    rope_positions: Tensor  # i64 [T]
    places: Tensor  # i64 [S]
    query_starts: Tensor  # i32 [S + 1]
    context_lens: Tensor  # i32 [S]
    picks: Tensor  # i64 [R]: which token's state is sampled from
    pick_places: Tensor  # i64 [R]
    pick_positions: Tensor  # i64 [R]: where the sampled token will stand
    max_query_tokens: int
    max_context_tokens: int


class StepBuffers:
    """Room for steps of at most `max_tokens` tokens in `max_rows` rows."""

    def __init__(
        self,
        *,
        max_tokens: int,
        max_rows: int,
        block_size: int,
        device: torch.device,
        is_recorded: bool = False,
    ) -> None:
        """With `is_recorded`, there is a buffer that graphs may read, wherever the device is."""
        self._block_size = block_size
        self._device = device
        widths = [(name, np.int64, max_tokens) for name in _FIELDS]
        widths += [(name, np.int64, max_rows) for name in ("places", "picks")]
        widths += [(name, np.int64, max_rows) for name in ("pick_places", "pick_positions")]
        widths += [("query_starts", np.int32, max_rows + 2), ("context_lens", np.int32, max_rows)]
        self._offsets: dict[str, tuple[int, Any]] = {}
        size = 0
        for name, dtype, width in widths:
            self._offsets[name] = (size, dtype)
            size += -(-width * np.dtype(dtype).itemsize // 16) * 16
        pinned = device.type == "cuda"
        self._hosts = [torch.zeros(size, dtype=torch.uint8, pin_memory=pinned) for _ in range(2)]
        self._copied: list[torch.cuda.Event | None] = [None, None]  # of each host buffer
        self._turn = 0
        # Else, on a CPU, the host's buffer is the device's, and each of the two is.
        has_target = pinned or is_recorded
        self._target = torch.zeros(size, dtype=torch.uint8, device=device) if has_target else None

    def fill(self, plan: StepPlan, *, num_rows: int, spare_place: int) -> StepTensors:
        """Write a plan and send it; rows from `len(plan.rows)` to `num_rows` are padding.

        Padding is for plans whose rows have one token each.
        """
        self._turn ^= 1
        host, copied = self._hosts[self._turn], self._copied[self._turn]
        if copied is not None:
            copied.synchronize()  # long over, unless a step failed and nobody read its results
        write = _Writer(host.numpy(), self._offsets, self._block_size)
        for row in plan.rows:
            write.row(row)
        num_picks = write.num_picks
        write.pad(num_rows, spare_place)
        source = host
        if self._target is not None:
            self._target.copy_(host, non_blocking=True)
            source = self._target
            self._note_copy()
        # Where all rows have one token and all sample, their padding samples, too.
        num_picks = num_rows if num_picks == len(plan.rows) < num_rows else num_picks
        return self.view(
            source,
            num_tokens=write.num_tokens,
            num_rows=num_rows,
            num_picks=num_picks,
            longest=(write.max_query_tokens, write.max_context_tokens),
        )

    def _note_copy(self) -> None:
        if self._device.type == "cuda":
            self._copied[self._turn] = event = torch.cuda.Event()
            event.record()

    def fixed(self, num_rows: int) -> StepTensors:
        """The device's own buffers for `num_rows` rows of one token: what a graph reads."""
        assert self._target is not None
        return self.view(
            self._target, num_tokens=num_rows, num_rows=num_rows, num_picks=num_rows, longest=(1, 0)
        )

    def view(
        self,
        source: Tensor,
        *,
        num_tokens: int,
        num_rows: int,
        num_picks: int,
        longest: tuple[int, int],
    ) -> StepTensors:
        """The tensors of a step in a buffer."""

        def part(name: str, width: int) -> Tensor:
            offset, dtype = self._offsets[name]
            end = offset + width * np.dtype(dtype).itemsize
            return source[offset:end].view(torch.int64 if dtype is np.int64 else torch.int32)

        return StepTensors(
            *(part(name, num_tokens) for name in _FIELDS),
            places=part("places", num_rows),
            query_starts=part("query_starts", num_rows + 1),
            context_lens=part("context_lens", num_rows),
            picks=part("picks", num_picks),
            pick_places=part("pick_places", num_picks),
            pick_positions=part("pick_positions", num_picks),
            max_query_tokens=longest[0],
            max_context_tokens=longest[1],
        )


class _Writer:
    """Fills one host buffer, row after row."""

    def __init__(self, room: Any, offsets: Any, block_size: int) -> None:
        self._field = {name: room[offset:].view(dtype) for name, (offset, dtype) in offsets.items()}
        self._field["query_starts"][0] = 0
        self._block_size = block_size
        self.num_tokens = self.num_rows = self.num_picks = 0
        self.max_query_tokens = self.max_context_tokens = 1

    def row(self, row: Row) -> None:
        """Add the tokens of one sequence."""
        sequence, start, count, field = row.sequence, row.start, row.count, self._field
        at, end = self.num_tokens, self.num_tokens + count
        size = self._block_size
        if count == 1:
            is_known = start < len(sequence.tokens)
            field["ids"][at] = sequence.tokens[start] if is_known else -1 - sequence.place
            field["positions"][at] = start
            field["slots"][at] = sequence.blocks[start // size] * size + start % size
            field["rope_positions"][at] = start + sequence.rope_shift
        else:
            positions = np.arange(start, start + count)
            known = sequence.tokens[start : start + count]
            field["ids"][at : at + len(known)] = known
            field["ids"][at + len(known) : end] = -1 - sequence.place
            field["positions"][at:end] = positions
            first = start // size
            blocks = np.asarray(sequence.blocks[first : (start + count - 1) // size + 1])
            field["slots"][at:end] = blocks[positions // size - first] * size + positions % size
            field["rope_positions"][at:end] = positions + sequence.rope_shift
            self.max_query_tokens = max(self.max_query_tokens, count)
        length = start + count
        field["places"][self.num_rows] = sequence.place
        field["context_lens"][self.num_rows] = length
        self.max_context_tokens = max(self.max_context_tokens, length)
        if row.samples:
            field["picks"][self.num_picks] = end - 1
            field["pick_places"][self.num_picks] = sequence.place
            field["pick_positions"][self.num_picks] = length
            self.num_picks += 1
        self.num_rows += 1
        self.num_tokens = end
        field["query_starts"][self.num_rows] = end

    def pad(self, num_rows: int, spare_place: int) -> None:
        """Add rows that store nothing and see nothing."""
        first, field = self.num_rows, self._field
        if num_rows <= first:
            return
        begin, end = self.num_tokens, self.num_tokens + num_rows - first
        field["ids"][begin:end] = 0
        field["positions"][begin:end] = 0
        field["rope_positions"][begin:end] = 0
        field["slots"][begin:end] = -1
        field["places"][first:num_rows] = spare_place
        field["context_lens"][first:num_rows] = 0
        field["query_starts"][first + 1 : num_rows + 1] = np.arange(begin + 1, end + 1)
        field["picks"][first:num_rows] = np.arange(begin, end)
        field["pick_places"][first:num_rows] = spare_place
        field["pick_positions"][first:num_rows] = 0
        self.num_rows, self.num_tokens = num_rows, end


class BlockTables:
    """Which blocks the sequence at each place has, on the device: i32 [places + 1, blocks].

    The last line is nobody's: padding rows read it.
    """

    def __init__(self, *, max_sequences: int, max_blocks: int, device: torch.device) -> None:
        self.tensor = torch.zeros((max_sequences + 1, max_blocks), dtype=torch.int32, device=device)
        self._max_blocks = max_blocks
        self._device = device
        self._num_sent = [0] * max_sequences

    def forget(self, place: int) -> None:
        """Another sequence has this place from now on."""
        self._num_sent[place] = 0

    def send(self, sequences: SequenceOf[Sequence]) -> None:
        """Bring the device up to date with the blocks that these have."""
        at: list[int] = []
        blocks: list[int] = []
        for sequence in sequences:
            sent, num_blocks = self._num_sent[sequence.place], len(sequence.blocks)
            if num_blocks > sent:
                first = sequence.place * self._max_blocks
                at += range(first + sent, first + num_blocks)
                blocks += sequence.blocks[sent:]
                self._num_sent[sequence.place] = num_blocks
        if at:
            both = to_device(torch.tensor([at, blocks]), self._device)
            self.tensor.view(-1)[both[0]] = both[1].to(torch.int32)
