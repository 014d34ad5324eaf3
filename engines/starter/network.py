"""The starter model's network in PyTorch: a small Llama, written for training on a CPU.

The parameter names are those of `LlamaForCausalLM` in transformers, so a state dict is
already the content of `model.safetensors`. Only training imports this file: engines run
the exported files with their own code.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The sizes of the network. Every row length is a multiple of 256: any GGUF block fits."""

    vocab_size: int = 3072
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    def to_config(self) -> dict[str, object]:
        """The same sizes as the `config.json` that transformers reads."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **asdict(self),
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
            "torch_dtype": "bfloat16",
            "use_cache": True,
        }


class Norm(nn.Module):
    """Root-mean-square norm, computed in float32 as llama.cpp and transformers do."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.epsilon)


class Attention(nn.Module):
    """Causal attention with rotary positions; several query heads share one key/value head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        query_size = shape.num_attention_heads * shape.head_dim
        key_size = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        B, T, _ = x.shape
        shape = self.shape
        q = self.q_proj(x).view(B, T, shape.num_attention_heads, shape.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(B, T, shape.num_key_value_heads, shape.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(B, T, shape.num_key_value_heads, shape.head_dim).transpose(1, 2)
        q, k = rotate(q, rotation), rotate(k, rotation)
        groups = shape.num_attention_heads // shape.num_key_value_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        mixed = attend(q, k, v)
        return self.o_proj(mixed.transpose(1, 2).reshape(B, T, -1))


class FeedForward(nn.Module):
    """The gated feed-forward half of a layer (SwiGLU)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and beside the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """The embedding, the layers and the last norm: everything but the logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)


class Network(nn.Module):
    """The whole model. The embedding matrix is also the output matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        depth_scale = (2 * shape.num_hidden_layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                continue
            into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(weight, std=0.02 * (depth_scale if into_residual else 1.0))

    def forward(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """The logits at the `wanted` positions only, given as a mask of `tokens`' shape.

        Four tokens in five are prompt, which is not trained on: leaving their logits out
        saves a tenth of the time."""
        rotation = rotary_table(self.shape, tokens.shape[1], tokens.device)
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, rotation)
        x = self.model.norm(x[wanted])
        return F.linear(x, self.model.embed_tokens.weight)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention in three plain operations.

    PyTorch's fused attention for the CPU took a third of the time of a whole step, and its
    backward pass nine times as long as these at 512 tokens."""
    B, H, T, D = q.shape
    later = torch.full((T, T), -1e4, dtype=v.dtype, device=q.device).triu(1)
    q, k, v = q.reshape(B * H, T, D), k.reshape(B * H, T, D), v.reshape(B * H, T, D)
    scores = torch.baddbmm(later.expand(B * H, T, T), q, k.mT, alpha=D**-0.5)
    return (scores.softmax(-1, dtype=v.dtype) @ v).view(B, H, T, D)


def rotary_table(shape: Shape, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    steps = torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
    angles = torch.arange(length, device=device).float()[:, None] * shape.rope_theta**-steps
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()  # [tokens, head_dim] each


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    turned = x * cos + torch.cat((-second, first), dim=-1) * sin
    return turned.to(x.dtype)
