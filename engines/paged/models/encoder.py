"""BERT: an encoder, which sees each text whole and keeps no cache.

Texts of different lengths are put end to end, so no matrix product is spent on padding
and no text's numbers pass through another's. Only attention, which needs them side by
side, pads; what it adds is masked.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.checkpoint.model_shape import ModelShape
from engines.paged.layers.linear import Placement, make_linear


class LayerNorm(nn.Module):
    """(x - mean) / deviation * weight + bias."""

    def __init__(self, shape: ModelShape, placement: Placement) -> None:
        super().__init__()
        self.weight = placement.empty(shape.hidden_size)
        self.bias = placement.empty(shape.hidden_size)
        self.epsilon = shape.norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.epsilon)


class Packing:
    """How texts lie end to end, and where each goes when they lie side by side."""

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        counts = torch.tensor(lengths, device=device)
        columns = torch.arange(max(lengths), device=device)
        self.is_token = columns < counts[:, None]  # [texts, longest]
        self.positions = columns.expand_as(self.is_token)[self.is_token]  # [tokens]
        self.starts = counts.cumsum(0) - counts
        # None lets one text, or texts of one length, skip the mask.
        self.mask = None if bool(self.is_token.all()) else self.is_token[:, None, None]

    def side_by_side(self, x: Tensor, num_heads: int) -> Tensor:
        """[tokens, hidden] to [texts, heads, longest, head size]."""
        padded = x.new_zeros(*self.is_token.shape, x.shape[-1])
        padded[self.is_token] = x
        return padded.unflatten(-1, (num_heads, -1)).transpose(1, 2)

    def end_to_end(self, x: Tensor) -> Tensor:
        """[texts, heads, longest, head size] to [tokens, hidden]."""
        return x.transpose(1, 2).flatten(2)[self.is_token]


class EncoderLayer(nn.Module):
    """Attention and MLP; each is added to its input and then normalized."""

    def __init__(self, shape: ModelShape, placement: Placement) -> None:
        super().__init__()
        self.shape = shape
        hidden, inner = shape.hidden_size, shape.intermediate_size
        self.qkv = make_linear(hidden, [hidden] * 3, has_bias=True, placement=placement)
        self.out = make_linear(hidden, [hidden], has_bias=True, placement=placement)
        self.attention_norm = LayerNorm(shape, placement)
        self.up = make_linear(hidden, [inner], has_bias=True, placement=placement)
        self.down = make_linear(inner, [hidden], has_bias=True, placement=placement)
        self.mlp_norm = LayerNorm(shape, placement)

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Apply it to [tokens, hidden]."""
        q, k, v = (
            packing.side_by_side(part, self.shape.num_heads)
            for part in self.qkv(x).split(self.qkv.output_sizes, dim=-1)
        )
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=packing.mask, scale=self.shape.attention_scale
        )
        x = self.attention_norm(x + self.out(packing.end_to_end(attended)))
        return self.mlp_norm(x + self.down(self._activate(self.up(x))))

    def _activate(self, x: Tensor) -> Tensor:
        if self.shape.activation == "silu":
            return F.silu(x)
        approximate = "tanh" if self.shape.activation == "gelu_tanh" else "none"
        return F.gelu(x, approximate=approximate)


class Encoder(nn.Module):
    """A BERT with its weights; made and filled by weights.py."""

    def __init__(self, shape: ModelShape, placement: Placement) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = placement.empty(shape.vocab_size, shape.hidden_size)
        self.positions = placement.empty(shape.context_tokens, shape.hidden_size)
        self.token_types = placement.empty(shape.num_token_types, shape.hidden_size)
        self.norm = LayerNorm(shape, placement)
        self.layers = nn.ModuleList(EncoderLayer(shape, placement) for _ in shape.layers)

    def forward(
        self, token_ids: Tensor, packing: Packing, token_types: Tensor | None = None
    ) -> Tensor:
        """Hidden states [tokens, hidden] of texts that lie end to end.

        `token_types` tell the two texts of a pair apart; without them all are the first.
        """
        if token_types is None:
            token_types = torch.zeros_like(token_ids)
        x = F.embedding(token_ids, self.tokens) + F.embedding(token_types, self.token_types)
        x = self.norm(x + F.embedding(packing.positions, self.positions))
        for layer in self.layers:
            x = layer(x, packing)
        return x
