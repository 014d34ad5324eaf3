"""LoRA adapters: small files that change what a model's weights do (Hu et al., 2021).

An adapter's header is read before llama.cpp sees the file, and compared with the model that
it is meant for: llama.cpp ends the process on some that do not fit.
"""

import math
from pathlib import Path
from typing import NamedTuple

from engines.gguf.byte_reader import MalformedGguf
from engines.gguf.file_format import GgufFile, Scalar, Tensor, read_file

_ENDINGS = (".lora_a", ".lora_b")
_NOT_MULTIPLIED = ("i8", "i16", "i32", "i64", "f64")  # ggml multiplies by none of these
_TOKENS = "token_embd.weight"


class Adapter(NamedTuple):
    """An adapter's file, and how much of its change is applied."""

    path: Path
    scale: float = 1.0


def check_adapter(path: Path, model: GgufFile) -> None:
    """Refuse, with `MalformedGguf`, what is no LoRA adapter for this very model."""
    adapter = read_file(path)
    _check_kind(adapter, model)
    shapes = {tensor.name: tensor.shape for tensor in model.tensors}
    pairs: dict[str, dict[str, Tensor]] = {}
    for tensor in adapter.tensors:
        name, ending = tensor.name[:-7], tensor.name[-7:]
        if tensor.name.endswith("_norm.weight"):
            continue  # llama.cpp leaves these out, too
        if ending not in _ENDINGS:
            raise MalformedGguf(f"{adapter.name}: tensor {tensor.name!r} is no part of a LoRA")
        if tensor.type.name in _NOT_MULTIPLIED:
            kind = tensor.type.name
            raise MalformedGguf(f"{adapter.name}: tensor {tensor.name!r} is of type {kind}")
        pairs.setdefault(name, {})[ending] = tensor
    if not pairs:
        raise MalformedGguf(f"{adapter.name}: changes no tensor")
    for name, pair in pairs.items():
        if len(pair) != len(_ENDINGS):
            raise MalformedGguf(f"{adapter.name}: tensor {name!r} has one of its two halves")
        if name not in shapes:
            raise MalformedGguf(
                f"{adapter.name}: changes tensor {name!r}, which {model.name} does not have: it "
                "was made for another model"
            )
        _check_pair(adapter.name, name, shapes[name], pair[".lora_a"], pair[".lora_b"])


def _check_kind(adapter: GgufFile, model: GgufFile) -> None:
    said = adapter.scalars
    if said.get("general.type") != "adapter" or said.get("adapter.type") != "lora":
        raise MalformedGguf(
            f"{adapter.name}: is no LoRA adapter in GGUF form; llama.cpp's "
            "`convert_lora_to_gguf.py` makes one"
        )
    found = said.get("general.architecture")
    wanted = model.scalars.get("general.architecture")
    if found != wanted:
        raise MalformedGguf(
            f"{adapter.name}: was made for a model of architecture {_shown(found)}, and "
            f"{model.name} is of {_shown(wanted)}"
        )
    if "adapter.alora.invocation_tokens" in {*said, *adapter.arrays}:
        raise MalformedGguf(
            f"{adapter.name}: is an activated LoRA, which only acts after certain tokens: "
            "these are not supported"
        )
    alpha = said.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        raise MalformedGguf(f"{adapter.name}: adapter.lora.alpha is {_shown(alpha)}")


def _check_pair(file: str, name: str, base: tuple[int, ...], a: Tensor, b: Tensor) -> None:
    """The change is B·A: A takes what the weights take, B gives what they give."""
    wide = (*base, 1, 1)[:4]
    a_shape, b_shape = (*a.shape, 1, 1, 1)[:4], (*b.shape, 1, 1, 1)[:4]
    if name.endswith(_TOKENS):  # looked up by token, so A has a row for each of them
        fits = (a_shape[1], b_shape[1]) == (wide[1], wide[0]) and a_shape[0] == b_shape[0]
    else:
        fits = (a_shape[0], b_shape[1]) == wide[:2] and a_shape[1] == b_shape[0]
        fits = fits and a_shape[2:] == b_shape[2:] == wide[2:]
    if not fits:
        raise MalformedGguf(
            f"{file}: changes tensor {name!r} of shape {base} by {a.shape} and {b.shape}, which "
            "do not fit: it was made for another model"
        )


def _shown(value: Scalar | None) -> str:
    return "nothing" if value is None else ascii(value)[:60]
