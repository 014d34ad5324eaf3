"""What a GGUF file says about its model, checked before any native code sees the file.

llama.cpp trusts much of what it reads: a model of 0 or 10^6 layers, or one that
uses more experts than it has, ends the whole process. `read_header` refuses such
files with a message instead. It cannot prove a file harmless, so a file not seen
before is also loaded once in a child process; see probe.py.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from engines.gguf.byte_reader import MalformedGguf, malformed
from engines.gguf.file_format import TOKENS, Array, GgufFile, Scalar, read_file

__all__ = ["GgufHeader", "MalformedGguf", "read_header"]

MAX_BLOCKS = 512  # llama.cpp's LLAMA_MAX_LAYERS; more is an assertion there
MAX_EXPERTS = 1024
MAX_WIDTH = 2**20
MAX_CONTEXT_TOKENS = 2**30
MAX_TEMPLATE_BYTES = 2**20
MAX_SHOWN_BYTES = 1024  # longer strings are left out of `metadata`

_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_POOLINGS = ("none", "mean", "cls", "last", "rank")
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
# llama.cpp's llama_ftype, in its order; "-" was given up.
_FILE_TYPES = """
    f32 f16 q4_0 q4_1 - - - q8_0 q5_0 q5_1 q2_k q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m
    q6_k iq2_xxs iq2_xs q2_k_s iq3_xs iq3_xxs iq1_s iq4_nl iq3_s iq3_m iq2_s iq2_m iq4_xs iq1_m
    bf16 - - - tq1_0 tq2_0 mxfp4_moe nvfp4 q1_0 q2_0
"""
_FILE_TYPE_NAMES = dict(enumerate(_FILE_TYPES.split()))


class GgufHeader(Struct, frozen=True, kw_only=True):
    """A model that llama.cpp may be shown; sizes count tokens, numbers or bytes as named."""

    architecture: str
    name: str | None
    num_blocks: int
    context_tokens: int
    embedding_length: int
    num_tokens: int
    num_parameters: int
    quantization: str
    chat_template: str | None
    pooling_type: str | None
    is_causal: bool
    size_bytes: int
    metadata: Mapping[str, Scalar]

    @property
    def is_embedding_model(self) -> bool:
        """Made to embed text, or to score it; it cannot write any."""
        return self.pooling_type in ("mean", "cls", "last", "rank") or not self.is_causal


def read_header(path: Path) -> GgufHeader:
    """Read and check `path` without loading it; raise `MalformedGguf` for all that is wrong."""
    return _Checks(read_file(path)).header()


class _Checks:
    """One file being checked; each method reads some keys and refuses what no model has."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.architecture = ""

    def header(self) -> GgufHeader:
        self._refuse_what_is_no_model()
        self.architecture = self._text("general.architecture", required=True) or ""
        if not _ARCHITECTURE.fullmatch(self.architecture):
            self._fail("general.architecture", self.architecture, "a name such as 'llama'")
        num_blocks = self._number("block_count", 1, MAX_BLOCKS)
        embedding_length = self._number("embedding_length", 1, MAX_WIDTH)
        context_tokens = self._number("context_length", 1, MAX_CONTEXT_TOKENS)
        self._check_heads(num_blocks, embedding_length)
        self._check_experts(num_blocks)
        self._check_numbers(num_blocks)
        num_tokens = self._check_vocabulary(embedding_length)
        pooling = self._number("pooling_type", 0, len(_POOLINGS) - 1, default=-1)
        return GgufHeader(
            architecture=self.architecture,
            name=self._text("general.name"),
            num_blocks=num_blocks,
            context_tokens=context_tokens,
            embedding_length=embedding_length,
            num_tokens=num_tokens,
            num_parameters=sum(math.prod(tensor.shape) for tensor in self.file.tensors),
            quantization=self._quantization(),
            chat_template=self._chat_template(),
            pooling_type=None if pooling < 0 else _POOLINGS[pooling],
            is_causal=self._is_causal(),
            size_bytes=self.file.size_bytes,
            metadata=self._metadata(),
        )

    def _refuse_what_is_no_model(self) -> None:
        num_parts = self.file.scalars.get("split.count", 0)
        if num_parts not in (0, 1):
            raise MalformedGguf(
                f"{self.file.name}: is one part of a model split into {num_parts} files; join them "
                "with `llama-gguf-split --merge` first"
            )
        kind = self._text("general.type") or "model"
        if kind != "model" or self._text("general.architecture") == "clip":
            named = "a vision projector" if kind in ("model", "mmproj") else f"of type {kind!r}"
            raise MalformedGguf(f"{self.file.name}: is {named}, not a model that writes text")
        if not self.file.tensors:
            raise MalformedGguf(f"{self.file.name}: has no tensors, so there is no model in it")

    def _check_heads(self, num_blocks: int, embedding_length: int) -> None:
        heads = self._per_block("attention.head_count", num_blocks, 0, MAX_WIDTH)
        kv_heads = self._per_block("attention.head_count_kv", num_blocks, 0, MAX_WIDTH)
        has_own_length = self._key("attention.key_length") in self.file.scalars
        for count in heads:
            # Without a key_length, llama.cpp derives it by this division.
            if count and not has_own_length and embedding_length % count:
                expected = f"a divisor of embedding_length {embedding_length}"
                self._fail(self._key("attention.head_count"), count, expected)
        if not heads or not kv_heads:
            return
        most = max(len(heads), len(kv_heads))
        pairs = zip(heads * (most // len(heads)), kv_heads * (most // len(kv_heads)), strict=True)
        for count, kv_count in pairs:
            if kv_count and count % kv_count:
                expected = f"a divisor of head_count {count}"
                self._fail(self._key("attention.head_count_kv"), kv_count, expected)

    def _check_experts(self, num_blocks: int) -> None:
        num_experts = self._number("expert_count", 0, MAX_EXPERTS, default=0)
        used = self._per_block("expert_used_count", num_blocks, 0, num_experts)
        if num_experts and not any(used):
            shown = max(used, default=0)
            self._fail(self._key("expert_used_count"), shown, f"1 to {num_experts}")
        groups = self._number("expert_group_count", 0, max(0, num_experts - 1), default=0)
        if groups > 1:
            if num_experts % groups:
                expected = f"a divisor of expert_count {num_experts}"
                self._fail(self._key("expert_group_count"), groups, expected)
            self._number("expert_group_used_count", 1, groups - 1)

    def _check_numbers(self, num_blocks: int) -> None:
        """Numbers that llama.cpp asserts on while it loads or computes."""
        self._number("nextn_predict_layers", 0, num_blocks, default=0)
        self._per_block("feed_forward_length", num_blocks, 0, 2**28)
        for name in ("key_length", "value_length"):
            self._number(f"attention.{name}", 1, MAX_WIDTH, default=1)
        self._number("rope.dimension_count", 0, MAX_WIDTH, default=0)
        for name in ("layer_norm_rms_epsilon", "layer_norm_epsilon", "group_norm_epsilon"):
            self._real(f"attention.{name}", at_least=0.0)
        for name in ("freq_base", "scaling.factor"):
            self._real(f"rope.{name}", at_least=0.0)
        scaling = self._text(self._key("rope.scaling.type"))
        if scaling is not None and scaling not in _ROPE_SCALINGS:
            self._fail(self._key("rope.scaling.type"), scaling, f"one of {_ROPE_SCALINGS}")

    def _check_vocabulary(self, embedding_length: int) -> int:
        tokens = self._array(TOKENS, ("string",))
        if tokens is None or not tokens.length:
            self._fail(TOKENS, "missing", "the model's vocabulary")
        # Two tokens of one spelling are an assertion in llama.cpp.
        if tokens.num_distinct != tokens.length:
            shown = f"{tokens.length} tokens of which {tokens.num_distinct} differ"
            self._fail(TOKENS, shown, "no token twice")
        self._text("tokenizer.ggml.model", required=True)
        self._array("tokenizer.ggml.merges", ("string",))
        for name, item_types in (("scores", ("float32", "int32")), ("token_type", ("int32",))):
            array = self._array(f"tokenizer.ggml.{name}", item_types)
            if array is not None and array.length != tokens.length:
                expected = f"as many as tokens, {tokens.length}"
                self._fail(f"tokenizer.ggml.{name}", f"{array.length} items", expected)
        for tensor in self.file.tensors:
            expected = (embedding_length, tokens.length)
            if tensor.name == "token_embd.weight" and tensor.shape != expected:
                self._fail("the shape of tensor 'token_embd.weight'", tensor.shape, expected)
        return tokens.length

    def _is_causal(self) -> bool:
        key = self._key("attention.causal")
        value = self.file.scalars.get(key, True)
        if not isinstance(value, bool):
            self._fail(key, value, "a bool")
        return value

    def _chat_template(self) -> str | None:
        template = self._text("tokenizer.chat_template")
        if template is not None and len(template.encode()) > MAX_TEMPLATE_BYTES:
            size = f"{len(template.encode())} bytes long"
            self._fail("tokenizer.chat_template", size, f"at most {MAX_TEMPLATE_BYTES} bytes")
        return template

    def _quantization(self) -> str:
        file_type = self.file.scalars.get("general.file_type")
        named = _FILE_TYPE_NAMES.get(file_type, "-") if isinstance(file_type, int) else "-"
        if named != "-":
            return named
        by_type = Counter[str]()
        for tensor in self.file.tensors:
            by_type[tensor.type.name] += tensor.size_bytes
        return by_type.most_common(1)[0][0]

    def _metadata(self) -> dict[str, Scalar]:
        return {
            key: value
            for key, value in self.file.scalars.items()
            if not isinstance(value, str) or len(value.encode()) <= MAX_SHOWN_BYTES
        }

    def _fail(self, field: str, value: object, expected: object) -> NoReturn:
        raise malformed(self.file.name, field, value, expected)

    def _key(self, name: str) -> str:
        return f"{self.architecture}.{name}"

    def _text(self, key: str, *, required: bool = False) -> str | None:
        value = self._scalar(key)
        if value is None and not required:
            return None
        if not isinstance(value, str):
            self._fail(key, "missing" if value is None else value, "a string")
        return value

    def _number(self, name: str, least: int, most: int, *, default: int | None = None) -> int:
        key = self._key(name)
        value = self._scalar(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._fail(key, "missing" if value is None else value, f"{least} to {most}")
        return value

    def _real(self, name: str, *, at_least: float) -> None:
        key = self._key(name)
        value = self._scalar(key)
        if value is None:
            return
        if isinstance(value, bool | str) or not math.isfinite(value) or value < at_least:
            self._fail(key, value, f"a finite number of at least {at_least:g}")

    def _per_block(self, name: str, num_blocks: int, least: int, most: int) -> list[int]:
        """A number for all blocks, or an array with one for each; empty when the key is not there.

        When it is there, the result has one item or `num_blocks` of them."""
        key = self._key(name)
        array = self.file.arrays.get(key)
        if array is None:
            return [self._number(name, least, most)] if key in self.file.scalars else []
        if array.length != num_blocks or array.items is None:
            self._fail(key, f"{array.length} items long", f"{num_blocks}, one for each block")
        for item in array.items:
            if not isinstance(item, int) or not least <= item <= most:
                self._fail(key, item, f"{least} to {most} for each block")
        return [int(item) for item in array.items]

    def _array(self, key: str, item_types: tuple[str, ...]) -> Array | None:
        if key in self.file.scalars:
            self._fail(key, self.file.scalars[key], "an array")
        array = self.file.arrays.get(key)
        if array is not None and array.item_type not in item_types:
            expected = " or ".join(item_types)
            self._fail(key, f"an array of {array.item_type}", f"an array of {expected}")
        return array

    def _scalar(self, key: str) -> Scalar | None:
        if key in self.file.arrays:
            self._fail(key, f"an array of {self.file.arrays[key].length}", "a single value")
        return self.file.scalars.get(key)
