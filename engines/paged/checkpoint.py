"""A folder as HuggingFace models come: what is in it, before any weight is read.

Opening one reads and checks the small files (config.json and what stands beside it);
the headers of the weights are read when they are first asked for. Nothing here imports
torch, and nothing in a checkpoint is ever run: safetensors and JSON only.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.checkpoint.architectures import read_shape
from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.checkpoint.json_fields import JsonFields
from engines.checkpoint.model_shape import LayerShape, ModelShape, RopeShape
from engines.checkpoint.tensor_files import TensorEntry, read_entries
from engines.paged.pooling import Pooling, read_pooling
from engines.protocol import Capability, Sampling

if TYPE_CHECKING:
    import torch

__all__ = [
    "Checkpoint",
    "CheckpointUnavailable",
    "CheckpointUnsupported",
    "LayerShape",
    "ModelShape",
    "Pooling",
    "RopeShape",
]

# What generation_config.json calls the fields of `Sampling`.
SAMPLING_KEYS: Mapping[str, str] = {
    "temperature": "temperature",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}
MAX_TEMPLATE_BYTES = 2**20
DTYPES: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Checkpoint:
    """One model's files. Raises `CheckpointUnavailable` or `CheckpointUnsupported` at once."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise CheckpointUnavailable(f"{folder.name!r} is not a folder; expected a checkpoint")
        self.folder = folder
        self._config = JsonFields.read(folder / "config.json")
        self._generation = self._optional("generation_config.json")
        self._tokenizer = self._optional("tokenizer_config.json")
        self.shape: ModelShape = read_shape(self._config)
        pooling = read_pooling(folder)
        if pooling is not None and self.shape.has_head:
            # Made to embed, whatever class saved it; its head is not loaded, if it has one.
            self.shape = replace(self.shape, has_head=False)
        self.pooling = pooling or self._default_pooling()

    def _optional(self, name: str) -> JsonFields:
        path = self.folder / name
        return JsonFields.read(path) if path.exists() else JsonFields(name, {})

    def _default_pooling(self) -> Pooling | None:
        if self.shape.is_encoder:
            return Pooling(kind="mean")
        return None if self.shape.has_head else Pooling(kind="last")

    @property
    def family(self) -> str:
        """The word for its kind of model, as config.json has it: "llama"."""
        return self._config.text("model_type", "") or self.shape.architecture

    @property
    def context_tokens(self) -> int:
        """The longest sequence; for a model that embeds, the longest input."""
        longest = self.shape.context_tokens
        if self.pooling is not None and self.pooling.max_tokens is not None:
            return min(longest, self.pooling.max_tokens)
        return longest

    @cached_property
    def eos_token_ids(self) -> frozenset[int]:
        """The tokens that end an answer; generation_config.json goes before config.json."""
        text = self._config.fields("text_config")
        for fields in (self._generation, self._config, text):
            if fields.has("eos_token_id"):
                return frozenset(_token_ids(fields, "eos_token_id", self.shape.vocab_size))
        return frozenset()

    @cached_property
    def tokenizer_config(self) -> Mapping[str, Any]:
        """The content of tokenizer_config.json, with the chat template where it is a file."""
        # Since transformers 4.52 the template is a file of its own, which goes first.
        template = self.folder / "chat_template.jinja"
        if not template.exists():
            return self._tokenizer.values
        return {**self._tokenizer.values, "chat_template": _text(template)}

    @property
    def has_chat_template(self) -> bool:
        """Does it say how messages become a prompt?"""
        return bool(self.tokenizer_config.get("chat_template"))

    @cached_property
    def capabilities(self) -> frozenset[Capability]:
        """What the files allow; tools and reasoning depend on what the template says."""
        if self.pooling is not None:
            return frozenset({Capability.EMBED})
        text = {Capability.COMPLETE, Capability.JSON_SCHEMA, Capability.LOGPROBS}
        return frozenset(text | ({Capability.CHAT} if self.has_chat_template else set()))

    @cached_property
    def default_sampling(self) -> Sampling:
        """How its makers sample, from generation_config.json; `do_sample` false is greedy."""
        generation = self._generation
        if generation.values.get("do_sample") is False:
            return Sampling(temperature=0.0)
        chosen: dict[str, float | int | None] = {
            field: generation.number(key, above=-1e-9)
            for key, field in SAMPLING_KEYS.items()
            if generation.has(key)
        }
        if generation.has("top_k"):
            chosen["top_k"] = generation.integer("top_k", low=0, high=2**31)
        return Sampling(**chosen)  # pyright: ignore[reportArgumentType]

    @cached_property
    def entries(self) -> Mapping[str, TensorEntry]:
        """Every tensor in the weight files, by name; the files' headers are read here."""
        return read_entries(self.folder)

    @property
    def size_bytes(self) -> int:
        """Bytes of the weight files."""
        files = {entry.file for entry in self.entries.values()}
        return sum(file.stat().st_size for file in files)

    @property
    def dtype(self) -> str:
        """The type its weights are to be computed in: "bfloat16", "float16" or "float32"."""
        named = self.shape.dtype
        if named is None:
            bytes_of: dict[str, int] = {}
            for entry in self.entries.values():
                bytes_of[entry.dtype] = bytes_of.get(entry.dtype, 0) + entry.end - entry.begin
            most = max(bytes_of, key=lambda dtype: bytes_of[dtype], default="F32")
            named = DTYPES.get(most, most)
        if named not in DTYPES.values():
            raise CheckpointUnsupported(
                f"{self._config.file}: dtype {named!r} is not supported; there are: "
                + ", ".join(sorted(DTYPES.values()))
            )
        return named

    @property
    def num_parameters(self) -> int:
        """Numbers in the weights that this engine loads; tied ones count once."""
        return self.shape.num_parameters

    def weight_bytes(self, dtype: "torch.dtype | None" = None) -> int:
        """Memory that the weights take, in `dtype` or else in the checkpoint's own."""
        width = dtype.itemsize if dtype is not None else 4 if self.dtype == "float32" else 2
        return self.num_parameters * width

    def kv_bytes_per_token(self, dtype: "torch.dtype") -> int:
        """Memory that one token's keys and values take, over all layers; 0 for an encoder."""
        if self.shape.is_encoder:
            return 0
        return 2 * self.shape.num_layers * self.shape.kv_size * dtype.itemsize


def _token_ids(fields: JsonFields, key: str, vocab_size: int) -> list[int]:
    value = fields.values[key]
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        fields.fail(key, "a token id or a list of them")
    # A default that the file never meant may lie outside; no such token is ever sampled.
    return [token for token in ids if 0 <= token < vocab_size]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise CheckpointUnavailable(f"{path.name} is longer than {MAX_TEMPLATE_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointUnavailable(f"{path.name} is not UTF-8 text") from error
