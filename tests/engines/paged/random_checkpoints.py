"""Small checkpoints with random weights, written by transformers itself.

Each is odd in its own way: head sizes that do not divide the hidden size, vocabularies
that are no multiple of anything, windows shorter than a prompt, every kind of rope.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.utils import logging

torch.set_num_threads(1)  # models this small only wait for their threads
logging.disable_progress_bar()
logging.set_verbosity_error()

SIZES: Mapping[str, Any] = {
    "vocab_size": 203,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
Rewrite = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Case:
    """A model class and what its configuration says beside `SIZES`."""

    model: str
    config: Mapping[str, Any] = field(default_factory=dict)
    shard_bytes: int | None = None
    rewrite: Rewrite | None = None  # what is changed in config.json before anybody reads it


def rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **values}}


LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 32}


def as_old_form(config: dict[str, Any]) -> None:
    """What transformers 4 would have written."""
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["torch_dtype"] = config.pop("dtype", "float32")
    if parameters["rope_type"] != "default":
        config["rope_scaling"] = parameters


def as_older_form(config: dict[str, Any]) -> None:
    """What the first versions that scaled would have written."""
    as_old_form(config)
    config["rope_scaling"]["type"] = config["rope_scaling"].pop("rope_type")


def as_old_gemma3(config: dict[str, Any]) -> None:
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters["full_attention"]["rope_theta"]
    config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    config["sliding_window_pattern"] = 2
    del config["layer_types"]


def as_su(config: dict[str, Any]) -> None:
    as_old_form(config)
    config["partial_rotary_factor"] = config["rope_scaling"].pop("partial_rotary_factor")
    config["rope_scaling"]["type"] = "su"
    for key in ("rope_type", "attention_factor", "factor"):
        del config["rope_scaling"][key]


def without(*keys: str) -> Rewrite:
    def rewrite(config: dict[str, Any]) -> None:
        for key in keys:
            del config[key]

    return rewrite


LONGROPE = rope(
    "longrope",
    short_factor=[1.0, 1.1, 1.3, 1.6],
    long_factor=[1.5, 2.0, 4.0, 7.0],
    factor=4.0,
    attention_factor=math.sqrt(1 + math.log(4.0) / math.log(40)),
    original_max_position_embeddings=40,
)
LONGROPE["rope_parameters"]["partial_rotary_factor"] = 0.75
LONGROPE |= {"original_max_position_embeddings": 40, "max_position_embeddings": 160}

GEMMA3_ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0},
}

DECODERS: Mapping[str, Case] = {
    "llama": Case("Llama"),
    "llama-tied-biased": Case(
        "Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    ),
    "llama-one-kv-head-wide-heads": Case(
        "Llama", {"head_dim": 20, "num_key_value_heads": 1, "rms_norm_eps": 0.1}
    ),
    "llama-llama3": Case("Llama", rope("llama3", **LLAMA3), shard_bytes=40_000),
    "llama-llama3-old-form": Case(
        "Llama", rope("llama3", **LLAMA3) | {"vocab_size": 257}, rewrite=as_old_form
    ),
    "llama-linear-older-form": Case("Llama", rope("linear", factor=2.5), rewrite=as_older_form),
    "llama-dynamic": Case(
        "Llama",
        rope("dynamic", factor=2.0) | {"rms_norm_eps": 1e-6},
        rewrite=without("rms_norm_eps"),
    ),
    "llama-yarn": Case(
        "Llama", rope("yarn", factor=4.0, original_max_position_embeddings=32), shard_bytes=30_000
    ),
    "llama-yarn-untruncated-mscale": Case(
        "Llama",
        rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=32,
            truncate=False,
            beta_fast=16.0,
            beta_slow=2.0,
            mscale=1.5,
            mscale_all_dim=0.5,
        ),
    ),
    "llama-yarn-attention-factor": Case(
        "Llama",
        rope("yarn", factor=2.0, original_max_position_embeddings=64, attention_factor=1.3),
    ),
    "qwen2": Case("Qwen2", {"hidden_size": 56, "vocab_size": 199}),
    "qwen2-tied-windowed": Case(
        "Qwen2",
        {
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 1,
        },
    ),
    "qwen2-yarn": Case(
        "Qwen2", rope("yarn", factor=4.0, original_max_position_embeddings=32) | {"head_dim": 24}
    ),
    "qwen3": Case("Qwen3", {"head_dim": 32}),
    "qwen3-tied-biased-odd-heads": Case(
        "Qwen3",
        {
            "head_dim": 18,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
            "attention_bias": True,
        },
    ),
    "qwen3-windowed-layers-listed": Case(
        "Qwen3",
        {
            "head_dim": 16,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        shard_bytes=50_000,
    ),
    "mistral-windowed": Case("Mistral", {"sliding_window": 9}),
    "mistral-no-window-wide-heads": Case(
        "Mistral", {"sliding_window": None, "head_dim": 32, "tie_word_embeddings": True}
    ),
    "mistral-window-of-one": Case("Mistral", {"sliding_window": 1, "num_key_value_heads": 4}),
    "gemma2": Case(
        "Gemma2",
        {
            "head_dim": 24,
            "sliding_window": 6,
            "query_pre_attn_scalar": 30,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 4.0,
            "rms_norm_eps": 1e-6,
        },
        rewrite=without("layer_types", "tie_word_embeddings", "rms_norm_eps"),
    ),
    "gemma2-untied-uncapped-biased": Case(
        "Gemma2",
        {
            "head_dim": 16,
            "sliding_window": 20,
            "tie_word_embeddings": False,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "attention_bias": True,
            "vocab_size": 130,
        },
    ),
    "gemma3": Case(
        "Gemma3Text",
        {
            "head_dim": 24,
            "sliding_window": 6,
            "query_pre_attn_scalar": 30,
            "num_hidden_layers": 4,
            "rope_parameters": GEMMA3_ROPES,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "gemma3-old-form": Case(
        "Gemma3Text",
        {
            "head_dim": 16,
            "sliding_window": 11,
            "num_hidden_layers": 4,
            "final_logit_softcapping": 3.0,
            "rope_parameters": GEMMA3_ROPES,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        rewrite=as_old_gemma3,
    ),
    "gemma3-default-pattern": Case(
        "Gemma3Text",
        {"head_dim": 16, "sliding_window": 8, "num_hidden_layers": 7, "num_key_value_heads": 1},
        shard_bytes=60_000,
        rewrite=without("layer_types"),
    ),
    "phi3": Case(
        "Phi3", {"sliding_window": 10, "rms_norm_eps": 1e-5}, rewrite=without("rms_norm_eps")
    ),
    "phi3-partial-tied": Case(
        "Phi3", rope("default", partial_rotary_factor=0.5) | {"tie_word_embeddings": True}
    ),
    "phi3-longrope": Case("Phi3", LONGROPE | {"hidden_size": 44, "num_key_value_heads": 4}),
    "phi3-su-old-form": Case(
        "Phi3", LONGROPE | {"hidden_size": 44, "num_key_value_heads": 1}, rewrite=as_su
    ),
}


def write(case: Case, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a checkpoint of random weights, the same for the same case."""
    model = make(case).to(dtype)
    limits = {} if case.shard_bytes is None else {"max_shard_size": case.shard_bytes}
    model.save_pretrained(folder, **limits)
    if case.rewrite is not None:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        case.rewrite(config)
        path.write_text(json.dumps(config))


def make(case: Case) -> PreTrainedModel:
    """A model whose every weight matters: none is zero, no norm is one, no logits are flat."""
    config_class = getattr(transformers, f"{case.model}Config")
    config = config_class(**{**SIZES, **case.config})
    kind = "Gemma3" if case.model == "Gemma3Text" else case.model
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    randomize(model, is_offset="Gemma" in case.model)
    return model.eval()


def randomize(model: PreTrainedModel, *, is_offset: bool = False) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 0.3 if weight.dim() == 1 else 1.3 * weight.shape[-1] ** -0.5
            weight.normal_(0.0, scale, generator=generator)
            if "norm" in name.lower() and name.endswith("weight") and not is_offset:
                weight.add_(1.0)
            if is_offset and "embed_tokens" in name:
                weight.mul_(0.2)  # or a tied Gemma, which scales it up, says each token again


def reference(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same folder as transformers loads it; its other attentions know no softcap."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", local_files_only=True
    ).eval()
