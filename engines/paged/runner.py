"""One model on its device: a step's forward pass, then its sampling.

Implements what generation.py asks of a runner. Only the step thread calls it. On
a GPU nothing here waits but `Pending.read`: kernels and copies are launched in
order on one stream, and tokens stay on the device, where the next step reads
them from `Sampler.last_tokens`.
"""

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engines.paged.batch import BlockTables, StepBuffers, StepTensors
from engines.paged.gpus import work_on
from engines.paged.graphs import Graphs, Recorder
from engines.paged.kernels.decode_attention import choose_num_splits
from engines.paged.models.decoder import Decoder
from engines.paged.prompt_scores import PromptScores
from engines.paged.results import Pending
from engines.paged.sampler import Sampler
from engines.paged.sequence import Row, Sequence, StepPlan
from engines.paged.step_inputs import KVCache, StepInputs
from engines.paged.transfers import to_device


@dataclass(frozen=True, slots=True)
class Launched:
    """A forward pass under way, and what sampling needs of its plan.

    `tokens` is not None where a graph has sampled already.
    """

    rows: tuple[Row, ...]
    tensors: StepTensors
    hidden: Tensor
    tokens: Tensor | None = None

    @property
    def picks(self) -> list[Row]:
        """The rows that sample, in order."""
        return [row for row in self.rows if row.samples]


class TorchRunner:
    """The device as the step loop sees it. Made on any thread, used on one."""

    def __init__(
        self,
        model: Decoder,
        cache: KVCache,
        sampler: Sampler,
        *,
        max_batch_tokens: int,
        recorder: Recorder | None = None,
    ) -> None:
        """With a `recorder`, steps of answers alone are recorded and replayed."""
        self._model = model
        self._cache = cache
        self._device = device = cache.keys.device
        self._num_multiprocessors = 0
        if device.type == "cuda":
            found = torch.cuda.get_device_properties(device)
            self._num_multiprocessors = found.multi_processor_count
        self.sampler = sampler
        max_sequences = sampler.max_places - 1
        self._spare_place = max_sequences  # padding's
        max_blocks = -(-model.context_tokens // cache.block_size)
        self._tables = BlockTables(
            max_sequences=max_sequences, max_blocks=max_blocks, device=self._device
        )

        def buffers(max_tokens: int, *, is_recorded: bool) -> StepBuffers:
            return StepBuffers(
                max_tokens=max_tokens,
                max_rows=max_sequences,
                block_size=cache.block_size,
                device=self._device,
                is_recorded=is_recorded,
            )

        self._mixed = buffers(max_batch_tokens, is_recorded=False)
        self._answers = buffers(max_sequences, is_recorded=recorder is not None)
        self._graphs = None if recorder is None else Graphs(self, max_sequences, recorder)
        self._prompt_scores = PromptScores(model, sampler.pieces)

    def start(self) -> None:
        """Choose the device for the step thread."""
        work_on(self._device)

    def begin(self, sequence: Sequence) -> None:
        """Set up the device's state for a sequence that got its place."""
        request = sequence.payload
        self.sampler.begin(
            sequence.place,
            request.sampling,
            num_prompt_tokens=sequence.num_prompt_tokens,
            generated=sequence.tokens[sequence.num_prompt_tokens :],
            num_logprobs=request.num_logprobs,
            is_constrained=request.constraint is not None,
        )
        self._tables.forget(sequence.place)

    def end(self, sequence: Sequence, place: int) -> None:
        """Forget the state of a place."""
        self.sampler.end(place)

    def close(self) -> None:
        """Let recordings go, which know this runner as it knows them; no step may follow."""
        self._graphs = None

    @torch.inference_mode()
    def forward(self, plan: StepPlan) -> Launched:
        """Launch a plan's copies and its forward pass."""
        if plan.copies:
            sources, targets = to_device(torch.tensor(plan.copies), self._device).unbind(1)
            self._cache.keys[:, targets] = self._cache.keys[:, sources]
            self._cache.values[:, targets] = self._cache.values[:, sources]
        rows = plan.rows
        self._tables.send([row.sequence for row in rows])
        if plan.num_tokens == len(rows) and all(row.samples for row in rows):
            return self._answer(plan)
        tensors = self._mixed.fill(plan, num_rows=len(rows), spare_place=self._spare_place)
        return Launched(rows, tensors, self.states(tensors))

    def _answer(self, plan: StepPlan) -> Launched:
        """A step in which every row has one token: the kind that a graph can hold."""
        graphs, rows = self._graphs, plan.rows
        bucket = len(rows) if graphs is None else graphs.bucket(len(rows))
        tensors = self._answers.fill(plan, num_rows=bucket, spare_place=self._spare_place)
        if graphs is not None:
            plain = self.sampler.is_plain([row.sequence.place for row in rows])
            computed = graphs.run(self._answers, bucket, samples=plain)
            if computed is not None:
                return Launched(rows, tensors, computed.hidden, computed.tokens)
        return Launched(rows, tensors, self.states(tensors))

    def states(self, tensors: StepTensors) -> Tensor:
        """What the model makes of each token, [T, hidden]; a graph captures this."""
        latest = self.sampler.last_tokens[(-1 - tensors.ids).clamp_min(0)]
        width = self._tables.tensor.shape[1]
        if tensors.max_context_tokens:
            width = -(-tensors.max_context_tokens // self._cache.block_size)
        longest = tensors.max_context_tokens or self._model.context_tokens
        inputs = StepInputs(
            token_ids=torch.where(tensors.ids < 0, latest, tensors.ids),
            positions=tensors.positions,
            slots=tensors.slots,
            block_tables=self._tables.tensor[:, :width].index_select(0, tensors.places),
            query_starts=tensors.query_starts,
            context_lens=tensors.context_lens,
            max_query_tokens=tensors.max_query_tokens,
            max_context_tokens=longest,
            num_splits=self._num_splits(len(tensors.places), longest),
            rope_positions=tensors.rope_positions,
        )
        return self._model(inputs, self._cache)

    def drawn(self, tensors: StepTensors, hidden: Tensor) -> Tensor:
        """Tokens for rows that ask for nothing special, [R]; a graph captures this."""
        logits = self._model.logits(hidden[tensors.picks])
        return self.sampler.sample_plain(logits, tensors.pick_places, tensors.pick_positions)

    def _num_splits(self, num_rows: int, max_context_tokens: int) -> int:
        """Into how many parts a context is split so that few rows keep a whole GPU busy."""
        if not self._num_multiprocessors:
            return 1
        kv_heads = self._model.shape.num_kv_heads
        return choose_num_splits(num_rows, kv_heads, max_context_tokens, self._num_multiprocessors)

    @torch.inference_mode()
    def sample(self, launched: Launched, masks: Mapping[int, Any]) -> Pending:
        """Launch the sampling of a forward pass."""
        picks, tensors = launched.picks, launched.tensors
        scores = self._prompt_scores.of(launched.rows, tensors, launched.hidden)
        if launched.tokens is not None:
            return Pending(self._device, launched.tokens[: len(picks)], None, picks, scores)
        if not picks:
            return Pending(self._device, None, None, picks, scores)
        num = len(picks)
        bits = mask_bits(launched.rows, masks, self._model.shape.vocab_size)
        logits = self._model.logits(launched.hidden[tensors.picks[:num]])
        sampled = self.sampler.sample(
            logits,
            tensors.pick_places[:num],
            tensors.pick_positions[:num],
            None if bits is None else to_device(bits, self._device),
            at=[row.sequence.place for row in picks],
        )
        return Pending(self._device, sampled.token_ids, sampled.logprobs, picks, scores)


def mask_bits(rows: SequenceOf[Row], masks: Mapping[int, Any], vocab_size: int) -> Tensor | None:
    """The masks of all rows that sample, as bits, i32 [R, words]; all ones where there is none.

    `masks` are by row. What a mask is too short for is banned: a model may have more logits than
    its tokenizer has tokens.
    """
    if not masks:
        return None
    sampling = [index for index, row in enumerate(rows) if row.samples]
    words = -(-vocab_size // 32)
    bits = torch.full((len(sampling), words), -1, dtype=torch.int32)
    for at, index in enumerate(sampling):
        if index in masks:
            mask = torch.from_numpy(masks[index].copy()).view(torch.int32)
            bits[at, : len(mask)] = mask[:words]
            bits[at, len(mask) :] = 0
    return bits
