"""Turns token lists into vectors, with a decoder or an encoder.

A batch is run from beginning to end in one step and leaves nothing behind: a decoder's
keys and values are needed by the layer that made them and no longer, so one layer's
memory serves all of them. Texts are never cut: one that is too long is refused, and one
that is longer than a batch is a batch of its own.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from engines.errors import ContextTooLong, RequestRefused, Unavailable
from engines.paged.models.decoder import Decoder
from engines.paged.models.encoder import Encoder, Packing
from engines.paged.pooling import Pooling
from engines.paged.step_inputs import KVCache, StepInputs

BLOCK_SIZE = 16


class Embedder:
    """One model that embeds; whoever calls it owns the device meanwhile."""

    def __init__(
        self, model: Decoder | Encoder, pooling: Pooling, *, max_batch_tokens: int = 8192
    ) -> None:
        self._model: Decoder | Encoder | None = model
        self._vocab_size = model.shape.vocab_size
        self._pooling = pooling
        self._max_batch_tokens = max_batch_tokens
        longest = model.shape.context_tokens
        if isinstance(model, Decoder):
            longest = model.context_tokens
        self.max_tokens = min(longest, pooling.max_tokens or longest)
        self._way_out = "choose a model with a longer context"
        self.num_dimensions = model.shape.hidden_size
        parameter = next(model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype

    def bound(self, max_tokens: int, way_out: str) -> None:
        """Refuse texts of more tokens than so many, and say what would let them in."""
        if max_tokens < self.max_tokens:
            self.max_tokens, self._way_out = max_tokens, way_out

    def close(self) -> None:
        """Let the weights go; whoever asks for vectors after this is refused."""
        self._model = None

    def check(self, tokens: Sequence[int], dimensions: int | None = None) -> None:
        """Raise `RequestRefused` where these tokens, or so many dimensions, cannot be."""
        if not tokens:
            raise RequestRefused("an input to embed has no tokens", param="input")
        if len(tokens) > self.max_tokens:
            raise ContextTooLong(
                prompt_tokens=len(tokens),
                context_tokens=self.max_tokens,
                param="input",
                message=f"an input has {len(tokens)} tokens, and this model embeds at most "
                f"{self.max_tokens} here: shorten it, or {self._way_out}",
            )
        vocab_size = self._vocab_size
        if not (min(tokens) >= 0 and max(tokens) < vocab_size):
            wrong = next(token for token in tokens if not 0 <= token < vocab_size)
            raise RequestRefused(
                f"token id {wrong} is not one of this model's, 0 to {vocab_size - 1}", param="input"
            )
        if dimensions is not None and not 1 <= dimensions <= self.num_dimensions:
            raise RequestRefused(
                f"dimensions is {dimensions}; this model's vectors have 1 to {self.num_dimensions}",
                param="dimensions",
            )

    def batches(self, inputs: Sequence[Sequence[int]]) -> Iterator[slice]:
        """Cut inputs, each within `max_tokens`, into runs that fit one step, or are one input."""
        begin, room = 0, self._max_batch_tokens
        for index, tokens in enumerate(inputs):
            if len(tokens) > room and index > begin:
                yield slice(begin, index)
                begin, room = index, self._max_batch_tokens
            room -= len(tokens)
        if begin < len(inputs):
            yield slice(begin, len(inputs))

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]], *, dimensions: int | None = None) -> Tensor:
        """One vector of length one for each input of one batch; float32 [inputs, dimensions].

        Fewer dimensions are the first ones, for models that were trained to bear it
        (Matryoshka, arXiv 2205.13147). Where the model gives a vector without a direction,
        for that input alone, it is all NaN. Raises `RequestRefused`.
        """
        model = self._model
        if model is None:
            raise Unavailable("the model was unloaded")
        for tokens in batch:
            self.check(tokens, dimensions)
        lengths = [len(tokens) for tokens in batch]
        token_ids = torch.tensor([token for tokens in batch for token in tokens])
        token_ids = token_ids.to(self._device)
        if isinstance(model, Encoder):
            hidden = model(token_ids, Packing(lengths, self._device))
        else:
            hidden = self._decode(model, token_ids, lengths)
        vectors = self._pool(hidden.float(), lengths)[:, :dimensions].cpu()
        sizes = vectors.norm(dim=-1, keepdim=True)
        return torch.where(sizes.isfinite() & (sizes > 0), vectors / sizes, float("nan"))

    def _decode(self, model: Decoder, token_ids: Tensor, lengths: list[int]) -> Tensor:
        shape = model.shape
        blocks = [-(-length // BLOCK_SIZE) for length in lengths]
        layer = (1, sum(blocks), BLOCK_SIZE, shape.num_kv_heads, shape.head_dim)
        keys = torch.zeros(layer, device=self._device, dtype=self._dtype)
        values = torch.zeros_like(keys)
        every = (shape.num_layers, -1, -1, -1, -1)
        cache = KVCache(keys.expand(every), values.expand(every))
        return model(step_inputs(token_ids, lengths, blocks, model), cache)

    def _pool(self, hidden: Tensor, lengths: list[int]) -> Tensor:
        counts = torch.tensor(lengths, device=self._device)
        kind = self._pooling.kind
        if kind == "last":
            return hidden[counts.cumsum(0) - 1]
        if kind == "cls":
            return hidden[counts.cumsum(0) - counts]
        return torch.segment_reduce(hidden, kind, lengths=counts, axis=0)


def step_inputs(
    token_ids: Tensor, lengths: list[int], blocks: list[int], model: Decoder
) -> StepInputs:
    """Whole texts as one step, the blocks of each behind those of the one before."""
    device = token_ids.device
    counts = torch.tensor(lengths)
    positions = torch.cat([torch.arange(length) for length in lengths])
    firsts = torch.tensor(blocks).cumsum(0) - torch.tensor(blocks)
    tables = firsts[:, None] + torch.arange(max(blocks))
    rope_positions = None
    if model.long_rope_offset is not None:
        is_long = counts > model.long_rope_offset
        rope_positions = positions + model.long_rope_offset * is_long.repeat_interleave(counts)
        rope_positions = rope_positions.to(device)
    return StepInputs(
        token_ids=token_ids,
        positions=positions.to(device),
        slots=(positions + (firsts * BLOCK_SIZE).repeat_interleave(counts)).to(device),
        # A short text's row runs on into its neighbours' blocks, which are not read for it.
        block_tables=tables.clamp(max=sum(blocks) - 1).int().to(device),
        query_starts=torch.cat((counts.new_zeros(1), counts.cumsum(0))).int().to(device),
        context_lens=counts.int().to(device),
        max_query_tokens=max(lengths),
        max_context_tokens=max(lengths),
        rope_positions=rope_positions,
    )
