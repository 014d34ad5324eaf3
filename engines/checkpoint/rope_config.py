"""Reads a model's rotary embedding from config.json, in its old and its new form.

Up to transformers 4 there are `rope_theta` and `rope_scaling`; since 5 everything is
in `rope_parameters`, for Gemma 3 once for each type of layer. What a missing value
means is taken from transformers, because that is what wrote the file.
"""

import math
from dataclasses import dataclass

from engines.checkpoint.checkpoint_errors import CheckpointUnsupported
from engines.checkpoint.json_fields import JsonFields
from engines.checkpoint.model_shape import RopeKind, RopeShape

DEFAULT_THETA = 10_000.0
KINDS: tuple[RopeKind, ...] = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")
MAX_CONTEXT_TOKENS = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeSource:
    """Where a rope's values are looked up, and what the architecture says about them."""

    config: JsonFields
    parameters: JsonFields  # rope_parameters or rope_scaling, or one layer type's part of it
    head_dim: int
    theta: float = DEFAULT_THETA  # where no file says
    allows_partial: bool = False
    renamed: tuple[str, ...] = ()  # kinds that this architecture means longrope by
    original_context_tokens: int | None = None  # which goes before what `parameters` says


def rope_parameters(config: JsonFields) -> JsonFields:
    """The object that says how positions are scaled; empty in models that do not scale."""
    return config.fields(config.first("rope_scaling", "rope_parameters"))


def read_rope(source: RopeSource) -> RopeShape:
    """Read and check one rope."""
    parameters, config = source.parameters, source.config
    kind = _kind(source)
    theta_owner = parameters if parameters.has("rope_theta") else config
    theta = (
        theta_owner.number("rope_theta", above=1.0)
        if theta_owner.has("rope_theta")
        else source.theta
    )
    rotary_dim = _rotary_dim(source)
    if kind == "default":
        return RopeShape(kind=kind, theta=theta, rotary_dim=rotary_dim)
    if kind in ("linear", "dynamic"):
        factor = parameters.number("factor")
        return RopeShape(kind=kind, theta=theta, rotary_dim=rotary_dim, factor=factor)
    original = _original_context(source)
    if kind == "llama3":
        return _llama3(parameters, theta, rotary_dim, original)
    context = config.integer("max_position_embeddings", high=MAX_CONTEXT_TOKENS)
    factor = parameters.optional_number("factor") or context / original
    if kind == "yarn":
        return _yarn(parameters, theta, rotary_dim, (original, factor))
    return _longrope(parameters, theta, rotary_dim, (original, factor))


def _kind(source: RopeSource) -> RopeKind:
    parameters = source.parameters
    written = parameters.text(parameters.first("rope_type", "type"), "default")
    named = "longrope" if written in source.renamed else written
    for kind in KINDS:
        if kind == named:
            return kind
    raise CheckpointUnsupported(
        f"{parameters.file}: rope type {written!r} is not supported; there are: {', '.join(KINDS)}"
    )


def _rotary_dim(source: RopeSource) -> int:
    key = "partial_rotary_factor"
    owner = source.parameters if source.parameters.has(key) else source.config
    fraction = owner.number(key) if owner.has(key) else 1.0
    if fraction > 1.0:
        owner.fail(key, "a number from 0 to 1")
    if fraction < 1.0 and not source.allows_partial:
        raise CheckpointUnsupported(
            f"{owner.file}: {key} {fraction:g} is supported for Phi3ForCausalLM only"
        )
    size = int(source.head_dim * fraction)
    if size < 2 or size % 2:
        owner.fail(key, f"a fraction of head_dim {source.head_dim} that is even and at least 2")
    return size


def _original_context(source: RopeSource) -> int:
    if source.original_context_tokens is not None:
        return source.original_context_tokens
    key = "original_max_position_embeddings"
    for owner in (source.parameters, source.config):
        if owner.has(key):
            return owner.integer(key, low=2, high=MAX_CONTEXT_TOKENS)
    return source.config.integer("max_position_embeddings", low=2, high=MAX_CONTEXT_TOKENS)


def _llama3(parameters: JsonFields, theta: float, rotary_dim: int, original: int) -> RopeShape:
    low = parameters.number("low_freq_factor")
    high = parameters.number("high_freq_factor")
    if high <= low:
        parameters.fail("high_freq_factor", f"a number above low_freq_factor {low:g}")
    return RopeShape(
        kind="llama3",
        theta=theta,
        rotary_dim=rotary_dim,
        factor=parameters.number("factor"),
        original_context_tokens=original,
        low_frequency_factor=low,
        high_frequency_factor=high,
    )


def _yarn(
    parameters: JsonFields, theta: float, rotary_dim: int, scaling: tuple[int, float]
) -> RopeShape:
    original, factor = scaling
    attention_factor = parameters.optional_number("attention_factor")
    if attention_factor is None:
        attention_factor = _yarn_attention_factor(parameters, factor)
    return RopeShape(
        kind="yarn",
        theta=theta,
        rotary_dim=rotary_dim,
        factor=factor,
        attention_factor=attention_factor,
        original_context_tokens=original,
        beta_fast=parameters.optional_number("beta_fast") or 32.0,
        beta_slow=parameters.optional_number("beta_slow") or 1.0,
        truncate=parameters.flag("truncate", default=True),
    )


def _yarn_attention_factor(parameters: JsonFields, factor: float) -> float:
    def scale(multiplier: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0

    # Files say 0 for "no such multiplier".
    both = [parameters.values.get(key) for key in ("mscale", "mscale_all_dim")]
    if not all(both):
        return scale(1.0)
    return scale(parameters.number("mscale")) / scale(parameters.number("mscale_all_dim"))


def _longrope(
    parameters: JsonFields, theta: float, rotary_dim: int, scaling: tuple[int, float]
) -> RopeShape:
    original, factor = scaling
    attention_factor = parameters.optional_number("attention_factor")
    if attention_factor is None:
        logarithms = math.log(factor) / math.log(original) if factor > 1 else 0.0
        attention_factor = math.sqrt(1 + logarithms)
    return RopeShape(
        kind="longrope",
        theta=theta,
        rotary_dim=rotary_dim,
        factor=factor,
        attention_factor=attention_factor,
        original_context_tokens=original,
        short_factors=parameters.numbers("short_factor", rotary_dim // 2),
        long_factors=parameters.numbers("long_factor", rotary_dim // 2),
    )
