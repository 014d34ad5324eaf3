"""Attention of one layer: project, turn and store, attend over the paged cache, project."""

from torch import Tensor, nn

from engines.checkpoint.model_shape import LayerShape, ModelShape
from engines.paged.kernels.attention import attention
from engines.paged.kernels.rope import rope_and_store
from engines.paged.layers.linear import Placement, make_linear
from engines.paged.layers.norm import RmsNorm
from engines.paged.layers.rotary import Rope
from engines.paged.step_inputs import StepInputs


class PagedAttention(nn.Module):
    """Reads every earlier key of a sequence from its blocks, having written this step's there."""

    def __init__(self, shape: ModelShape, layer: LayerShape, placement: Placement) -> None:
        super().__init__()
        self.shape = shape
        self.window = layer.window
        self.qkv = make_linear(
            shape.hidden_size,
            [shape.query_size, shape.kv_size, shape.kv_size],
            has_bias=shape.has_qkv_bias,
            placement=placement,
        )
        self.out = make_linear(
            shape.query_size,
            [shape.hidden_size],
            has_bias=shape.has_output_bias,
            placement=placement,
        )
        has_norm, size = shape.has_qk_norm, shape.head_dim
        self.query_norm = RmsNorm(shape, placement, size) if has_norm else None
        self.key_norm = RmsNorm(shape, placement, size) if has_norm else None

    def forward(
        self, x: Tensor, inputs: StepInputs, rope: Rope, cache: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Apply it to [T, hidden]; `cache` is this layer's keys and values."""
        shape = self.shape
        q, k, v = self.qkv(x).split(self.qkv.output_sizes, dim=-1)
        q = rope_and_store(
            q.view(-1, shape.num_heads, shape.head_dim),
            k.view(-1, shape.num_kv_heads, shape.head_dim),
            v.view(-1, shape.num_kv_heads, shape.head_dim),
            rope.positions,
            rope.cos_sin,
            inputs.slots,
            *cache,
            q_weight=None if self.query_norm is None else self.query_norm.weight,
            k_weight=None if self.key_norm is None else self.key_norm.weight,
            eps=shape.norm_epsilon,
            offset=shape.norm_offset,
        )
        attended = attention(
            q,
            *cache,
            inputs,
            scale=shape.attention_scale,
            window=self.window,
            softcap=shape.attention_softcap,
        )
        return self.out(attended.reshape(-1, shape.query_size))
