"""Tokens to vectors, and vectors back to scores for every token."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.checkpoint.model_shape import ModelShape
from engines.paged.layers.linear import Linear, Placement, make_linear

# Rows of the token table are padded to this: matrix products over an odd number of
# outputs fall off the tensor cores' fast path.
VOCAB_MULTIPLE = 64


def padded_vocab(vocab_size: int) -> int:
    """Rows that the token table is given; those behind the vocabulary are zero."""
    return -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


class TokenEmbedding(nn.Module):
    """One row for each token; where the head is tied, the same memory gives the scores."""

    def __init__(self, shape: ModelShape, placement: Placement) -> None:
        super().__init__()
        self.weight = placement.empty(padded_vocab(shape.vocab_size), shape.hidden_size)
        # Gemma's scale is rounded to the type of the weights first (transformers #29402).
        scale = torch.tensor(shape.embedding_scale, dtype=placement.dtype)
        self.scale = float(scale)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Look tokens up."""
        vectors = F.embedding(token_ids, self.weight)
        return vectors if self.scale == 1.0 else vectors * self.scale


def make_head(shape: ModelShape, embedding: TokenEmbedding, placement: Placement) -> Linear | None:
    """The matrix from vectors to scores; None where a model has none, or it is the embedding's."""
    if not shape.has_head or shape.is_tied:
        return None
    return make_linear(shape.hidden_size, [embedding.weight.shape[0]], placement=placement)
