"""Which tensors the GGUF file gets, and how each is made of the checkpoint's.

llama.cpp wants query, key and value apart and gate and up apart, but for Phi-3, where
it wants them together; a checkpoint may have either. Its `llama` turns neighbouring
numbers of a head by one angle where transformers turns the halves against each other, so the
rows of queries and keys change places. Gemma's norms multiply by 1 + weight; here
the 1 is added once.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable
from engines.checkpoint.model_shape import ModelShape
from engines.checkpoint.tensor_files import TensorEntry
from engines.checkpoint.tensor_names import TensorNames, check_names
from engines.gguf.conversion.stored import Numbers, as_float32, dtype_of, one_dtype, stored

_NAMES: Mapping[str, str] = {
    "input_norm": "attn_norm",
    "attention.out": "attn_output",
    "attention.query_norm": "attn_q_norm",
    "attention.key_norm": "attn_k_norm",
    "post_attention_norm": "post_attention_norm",
    "mlp_norm": "ffn_norm",
    "post_mlp_norm": "post_ffw_norm",
    "mlp.down": "ffn_down",
}


@dataclass(frozen=True, slots=True)
class NewTensor:
    """One tensor of the new file; `make` reads its numbers."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # "F32", "F16" or "BF16"
    make: Callable[[], Numbers]


class Tensors:
    """The tensors of one checkpoint, as `architecture` of llama.cpp's has them."""

    def __init__(
        self, shape: ModelShape, entries: Mapping[str, TensorEntry], architecture: str
    ) -> None:
        self._shape = shape
        self._entries = entries
        self._is_fused = architecture == "phi3"
        self._is_turned = architecture == "llama"
        self._names = TensorNames(shape, entries)
        self._used: list[str] = []

    def all(self) -> list[NewTensor]:
        """Every tensor, in the order of the file. Raises `CheckpointUnavailable`."""
        shape = self._shape
        hidden, tokens = shape.hidden_size, shape.vocab_size
        made = [self._matrix("token_embd.weight", "embedding.weight", (tokens, hidden))]
        for index in range(shape.num_layers):
            made += self._layer(index)
        made.append(self._vector("output_norm.weight", "norm.weight", hidden, shape.norm_offset))
        if shape.has_head and not shape.is_tied:
            made.append(self._matrix("output.weight", "head.weight", (tokens, hidden)))
        check_names(self._used, self._entries, self._names)
        return made

    def _layer(self, index: int) -> Iterator[NewTensor]:
        shape, ours, theirs = self._shape, f"layers.{index}", f"blk.{index}"
        hidden, inner, offset = shape.hidden_size, shape.intermediate_size, shape.norm_offset

        def norm(module: str, length: int = hidden) -> NewTensor:
            name = f"{theirs}.{_NAMES[module]}.weight"
            return self._vector(name, f"{ours}.{module}.weight", length, offset)

        def matrix(module: str, rows: int, columns: int, *, has_bias: bool) -> Iterator[NewTensor]:
            name, source = f"{theirs}.{_NAMES[module]}", f"{ours}.{module}"
            yield self._matrix(f"{name}.weight", f"{source}.weight", (rows, columns))
            if has_bias:
                yield self._vector(f"{name}.bias", f"{source}.bias", rows)

        yield norm("input_norm")
        yield from self._attention(ours, theirs)
        out_bias = shape.has_output_bias
        yield from matrix("attention.out", hidden, shape.query_size, has_bias=out_bias)
        if shape.has_qk_norm:
            yield norm("attention.query_norm", shape.head_dim)
            yield norm("attention.key_norm", shape.head_dim)
        if shape.has_post_norms:
            yield norm("post_attention_norm")
        yield norm("mlp_norm")
        yield from self._gate_up(ours, theirs)
        yield from matrix("mlp.down", hidden, inner, has_bias=shape.has_mlp_bias)
        if shape.has_post_norms:
            yield norm("post_mlp_norm")

    def _attention(self, ours: str, theirs: str) -> Iterator[NewTensor]:
        shape = self._shape
        rows = (shape.query_size, shape.kv_size, shape.kv_size)
        turned = (shape.num_heads, shape.num_kv_heads, 0) if self._is_turned else (0, 0, 0)
        for kind in ("weight", "bias") if shape.has_qkv_bias else ("weight",):
            parts = self._parts(f"{ours}.attention.qkv.{kind}", rows, kind)
            if self._is_fused:
                yield self._joined(f"{theirs}.attn_qkv.{kind}", parts)
                continue
            for letter, part, heads in zip("qkv", parts, turned, strict=True):
                yield self._of_part(f"{theirs}.attn_{letter}.{kind}", part, heads)

    def _gate_up(self, ours: str, theirs: str) -> Iterator[NewTensor]:
        inner = self._shape.intermediate_size
        for kind in ("weight", "bias") if self._shape.has_mlp_bias else ("weight",):
            parts = self._parts(f"{ours}.mlp.gate_up.{kind}", (inner, inner), kind)
            if self._is_fused:
                yield self._joined(f"{theirs}.ffn_up.{kind}", parts)
                continue
            for name, part in zip(("gate", "up"), parts, strict=True):
                yield self._of_part(f"{theirs}.ffn_{name}.{kind}", part, 0)

    def _parts(self, source: str, rows: tuple[int, ...], kind: str) -> list["_Part"]:
        """The rows of a weight that a checkpoint may have whole or in parts, as parts."""
        found = self._names.source(source)
        columns = () if kind == "bias" else (self._shape.hidden_size,)
        if found.whole in self._entries or not found.parts:
            entry = self._entry(found.whole, (sum(rows), *columns))
            starts = [sum(rows[:number]) for number in range(len(rows))]
            return [_Part(entry, start, length) for start, length in zip(starts, rows, strict=True)]
        return [
            _Part(self._entry(name, (length, *columns)), 0, length)
            for name, length in zip(found.parts, rows, strict=True)
        ]

    def _of_part(self, name: str, part: "_Part", turned_heads: int) -> NewTensor:
        shape, is_vector = part.shape, len(part.shape) == 1

        def make() -> Numbers:
            numbers = as_float32(part.numbers()) if is_vector else part.numbers()
            return turned(numbers, turned_heads) if turned_heads else numbers

        return NewTensor(name, shape, "F32" if is_vector else part.entry.dtype, make)

    def _joined(self, name: str, parts: list["_Part"]) -> NewTensor:
        rows, columns = sum(part.length for part in parts), parts[0].shape[1:]
        dtype = one_dtype([part.entry for part in parts])

        def make() -> Numbers:
            numbers = np.concatenate([part.numbers() for part in parts])
            return numbers if columns else as_float32(numbers)

        return NewTensor(name, (rows, *columns), dtype if columns else "F32", make)

    def _matrix(self, name: str, source: str, shape: tuple[int, int]) -> NewTensor:
        entry = self._entry(self._names.source(source).whole, shape)
        return NewTensor(name, shape, entry.dtype, lambda: stored(entry))

    def _vector(self, name: str, source: str, length: int, offset: float = 0.0) -> NewTensor:
        entry = self._entry(self._names.source(source).whole, (length,))

        def make() -> Numbers:
            return as_float32(stored(entry)) + np.float32(offset)

        return NewTensor(name, (length,), "F32", make)

    def _entry(self, name: str, shape: tuple[int, ...]) -> TensorEntry:
        self._used.append(name)
        entry = self._entries.get(name)
        if entry is None:
            check_names([name], [], self._names)  # raises, in the words for what is missing
            raise AssertionError
        if entry.shape != shape:
            raise CheckpointUnavailable(
                f"tensor {name!r} is {list(entry.shape)}; config.json says {list(shape)}"
            )
        dtype_of(entry)
        return entry


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a stored tensor."""

    entry: TensorEntry
    start: int
    length: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length, *self.entry.shape[1:])

    def numbers(self) -> Numbers:
        return stored(self.entry)[self.start : self.start + self.length]


def turned(numbers: Numbers, num_heads: int) -> Numbers:
    """Each head's rows, first and second half, taken in turn."""
    halves = numbers.reshape(num_heads, 2, numbers.shape[0] // num_heads // 2, *numbers.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(numbers.shape)
