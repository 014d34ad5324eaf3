"""The decoder: every text model that this engine runs, told apart by its `ModelShape`.

One forward pass takes T tokens of any number of sequences; a prompt's chunk and an
answer's next token are rows like any other. The model reads its inputs and the cache
that it is handed and keeps nothing between steps, so a process can have any number of
them, and a CUDA graph can hold one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.checkpoint.model_shape import LayerShape, ModelShape
from engines.paged.layers.attention import PagedAttention
from engines.paged.layers.embedding import TokenEmbedding, make_head
from engines.paged.layers.linear import Placement
from engines.paged.layers.mlp import GatedMlp
from engines.paged.layers.norm import RmsNorm
from engines.paged.layers.rotary import Rope, long_rope_offset, rotary_table
from engines.paged.step_inputs import KVCache, StepInputs


class DecoderLayer(nn.Module):
    """Attention and MLP, each between norms; returns what is still to be added."""

    def __init__(self, shape: ModelShape, layer: LayerShape, placement: Placement) -> None:
        super().__init__()
        self.input_norm = RmsNorm(shape, placement)
        self.attention = PagedAttention(shape, layer, placement)
        has_post_norms = shape.has_post_norms
        self.post_attention_norm = RmsNorm(shape, placement) if has_post_norms else None
        self.mlp_norm = RmsNorm(shape, placement)
        self.mlp = GatedMlp(shape, placement)
        self.post_mlp_norm = RmsNorm(shape, placement) if has_post_norms else None

    def forward(
        self,
        pending: tuple[Tensor, Tensor | None],
        inputs: StepInputs,
        rope: Rope,
        cache: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """`pending` is what the layer before computed, and what that is to be added to.

        The sum is left to the next norm, which does both in one pass over memory.
        """
        x, residual = pending
        if residual is None:
            residual, x = x, self.input_norm(x)
        else:
            x, residual = self.input_norm.add(x, residual)
        x = self.attention(x, inputs, rope, cache)
        if self.post_attention_norm is not None:
            x = self.post_attention_norm(x)
        x, residual = self.mlp_norm.add(x, residual)
        x = self.mlp(x)
        if self.post_mlp_norm is not None:
            x = self.post_mlp_norm(x)
        return x, residual


class Decoder(nn.Module):
    """A decoder with its weights; made and filled by weights.py.

    `long_rope_offset` is not None for a model whose long sequences turn by frequencies of
    their own (layers/rotary.py). Such a model's `StepInputs.rope_positions` are the
    positions for a sequence to be turned by the short ones, positions + offset for a
    long one; where they are None, everything is turned by the long ones.
    """

    def __init__(self, shape: ModelShape, placement: Placement, *, context_tokens: int) -> None:
        super().__init__()
        self.shape = shape
        self.context_tokens = context_tokens
        self.long_rope_offset = long_rope_offset(shape.ropes, context_tokens)
        self.embedding = TokenEmbedding(shape, placement)
        self.layers = nn.ModuleList(DecoderLayer(shape, layer, placement) for layer in shape.layers)
        self.norm = RmsNorm(shape, placement)
        self.head = make_head(shape, self.embedding, placement)
        self.cos_sins = [
            rotary_table(rope, context_tokens, placement.device) for rope in shape.ropes
        ]

    def forward(self, inputs: StepInputs, kv: KVCache) -> Tensor:
        """Run T tokens and store their keys and values; [T, hidden], after the final norm."""
        positions = self._rope_positions(inputs)
        ropes = [Rope(cos_sin, positions) for cos_sin in self.cos_sins]
        pending: tuple[Tensor, Tensor | None] = (self.embedding(inputs.token_ids), None)
        for index, layer in enumerate(self.layers):
            rope = ropes[self.shape.layers[index].rope]
            pending = layer(pending, inputs, rope, kv.layer(index))
        x, residual = pending
        assert residual is not None  # a model has a layer
        hidden, _ = self.norm.add(x, residual)
        return hidden

    def _rope_positions(self, inputs: StepInputs) -> Tensor:
        if inputs.rope_positions is not None:
            return inputs.rope_positions
        if self.long_rope_offset is None:
            return inputs.positions
        return inputs.positions + self.long_rope_offset

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token in the vocabulary, float32 [R, vocab]."""
        if not self.shape.has_head:
            raise ValueError(f"{self.shape.architecture} has no head; it can only embed")
        scores = F.linear(hidden, self.embedding.weight) if self.head is None else self.head(hidden)
        scores = scores[:, : self.shape.vocab_size].float()
        if self.shape.logit_softcap is None:
            return scores
        return self.shape.logit_softcap * torch.tanh(scores / self.shape.logit_softcap)
