"""Makes a GGUF adapter of a LoRA that PEFT wrote: `python -m engines.gguf.conversion.adapter`.

An adapter has two thin matrices for each weight that it changes, A and B, whose product is
added to it. They go by the names of the base model's own tensors, whose file says which there
are and how long. Where conversion let the rows of queries and keys change places
(tensors.py), those of their Bs do, too.
"""

import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.checkpoint.json_fields import JsonFields
from engines.checkpoint.tensor_files import TensorEntry, read_header
from engines.errors import EngineError, RequestRefused
from engines.gguf.child_work import Far, Tell, serve_order
from engines.gguf.conversion.order import AdapterOrder
from engines.gguf.conversion.stored import as_float32, dtype_of, stored
from engines.gguf.conversion.tensors import turned
from engines.gguf.file_format import GgufFile, MalformedGguf, read_file

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(
    r"base_model\.model\.(?:model\.|language_model\.)*layers\.(\d+)\.(\w+\.\w+)\.lora_([AB])\.weight"
)
_MODULES: Mapping[str, str] = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_adapter(folder: Path, base: Path, target: Path, tell: Tell) -> None:
    """Convert the adapter in `folder` for the model in `base`. Raises `RequestRefused`."""
    try:
        alpha_of = _read_config(folder)
        file = read_file(base)
        matrices = _read_matrices(folder, file)
    except (EngineError, MalformedGguf) as error:
        raise RequestRefused(
            f"the adapter cannot be converted: {error.message}", param="modelfile"
        ) from None
    ranks = {a.shape[0] for a, _ in matrices.values()}
    writer = gguf.GGUFWriter(target, str(file.scalars["general.architecture"]))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha_of(ranks.pop()))
    for name, (a, b) in matrices.items():
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    size_bytes = target.stat().st_size
    tell(Far(size_bytes, size_bytes))


class _Alpha:
    """What products are multiplied by, times the rank, as llama.cpp wants it."""

    def __init__(self, alpha: float, rank: int, *, by_root: bool) -> None:
        self._alpha = alpha
        self._rank = rank
        self._by_root = by_root

    def __call__(self, rank: int) -> float:
        if rank != self._rank:
            raise RequestRefused(
                f"the adapter cannot be converted: {CONFIG} says rank {self._rank}, the weights "
                f"have {rank}",
                param="modelfile",
            )
        return self._alpha * math.sqrt(rank) if self._by_root else self._alpha


def _read_config(folder: Path) -> _Alpha:
    config = JsonFields.read(folder / CONFIG)
    if config.text("peft_type", "LORA") != "LORA":
        raise CheckpointUnsupported(f"{CONFIG}: peft_type {config.values['peft_type']!r:.50}")
    for key in ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.values.get(key):
            raise CheckpointUnsupported(f"{CONFIG}: {key} has no counterpart in llama.cpp")
    if config.values.get("bias", "none") != "none":
        raise CheckpointUnsupported(f"{CONFIG}: biases have no counterpart in llama.cpp")
    rank = config.integer("r", high=4096)
    by_root = config.flag("use_rslora", default=False)
    return _Alpha(config.number("lora_alpha", 8.0), rank, by_root=by_root)


Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def _read_matrices(folder: Path, base: GgufFile) -> dict[str, Pair]:
    path = folder / WEIGHTS
    if not path.exists():
        raise CheckpointUnavailable(f"{WEIGHTS} is missing, and {CONFIG} is there")
    entries: dict[str, dict[str, TensorEntry]] = {}
    for entry in read_header(path):
        found = _NAME.fullmatch(entry.name)
        module = _MODULES.get(found[2]) if found else None
        if found is None or module is None:
            raise CheckpointUnsupported(
                f"{WEIGHTS}: {entry.name!r:.120} changes what adapters here cannot; they can "
                f"change {', '.join(_MODULES)}"
            )
        entries.setdefault(f"blk.{found[1]}.{module}.weight", {})[found[3]] = entry
    if not entries:
        raise CheckpointUnavailable(f"{WEIGHTS} has no tensors")
    shapes = {tensor.name: tensor.shape for tensor in base.tensors}
    return {
        name: _pair(name, pair, shapes.get(name), _turned_heads(base, name))
        for name, pair in entries.items()
    }


def _pair(
    name: str, pair: Mapping[str, TensorEntry], shape: tuple[int, ...] | None, heads: int
) -> Pair:
    if len(pair) != 2:
        raise CheckpointUnavailable(f"{WEIGHTS}: one of the two matrices for {name} is missing")
    a, b = pair["A"], pair["B"]
    for entry in (a, b):
        dtype_of(entry)
    fits = len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1]
    if shape is None or not fits or (a.shape[1], b.shape[0]) != shape:
        there = f"is {list(shape)}" if shape else "is not there"
        raise CheckpointUnavailable(
            f"{WEIGHTS}: matrices of {list(a.shape)} and {list(b.shape)} for {name}, which {there} "
            "in the base model: the adapter belongs to another one"
        )
    of_rows = as_float32(stored(b))
    return as_float32(stored(a)), turned(of_rows, heads) if heads else of_rows


def _turned_heads(base: GgufFile, name: str) -> int:
    """How many heads' rows change places in this tensor; 0 if none do."""
    architecture = base.scalars.get("general.architecture")
    kind = name.split(".")[2]
    if architecture != "llama" or kind not in ("attn_q", "attn_k"):
        return 0
    queries = base.scalars.get("llama.attention.head_count", 0)
    keys = base.scalars.get("llama.attention.head_count_kv", queries)
    heads = queries if kind == "attn_q" else keys
    if not isinstance(heads, int) or heads < 1:
        raise CheckpointUnsupported("the base model does not say how many heads it has")
    return heads


def work(order: AdapterOrder, tell: Tell) -> None:
    """Convert what the order names."""
    write_adapter(Path(order.folder), Path(order.base), Path(order.target), tell)


if __name__ == "__main__":
    sys.exit(serve_order(sys.argv[1:], AdapterOrder, work))
