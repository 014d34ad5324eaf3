"""Makes a smaller GGUF file of a large one, with llama.cpp's quantizer.

`python -m engines.gguf.quantizing` is the child that does it; see child_work.py.
"""

import os
import re
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path

from msgspec import Struct

from engines.errors import RequestRefused, Unavailable
from engines.gguf import native
from engines.gguf.child_work import Far, Tell, serve_order, work_in_child
from engines.gguf.file_format import read_file
from engines.gguf.header import GgufHeader

# llama.cpp's numbers (llama_ftype). Those below 3 bits a weight and the smaller IQ kinds are
# left out: without an importance matrix, which nobody gives us, llama.cpp refuses them.
QUANTIZATIONS: Mapping[str, int] = {
    "F32": 0, "F16": 1, "BF16": 32,
    "Q8_0": 7, "Q6_K": 18, "Q5_K_M": 17, "Q5_K_S": 16, "Q5_1": 9, "Q5_0": 8,
    "Q4_K_M": 15, "Q4_K_S": 14, "Q4_1": 3, "Q4_0": 2, "IQ4_NL": 25, "IQ4_XS": 30,
    "Q3_K_L": 13, "Q3_K_M": 12, "Q3_K_S": 11, "Q2_K": 10,
}  # fmt: skip
_SHORT = {"Q5_K": "Q5_K_M", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M"}
WHOLE = ("f32", "f16", "bf16")  # what can be quantized without losing twice
_TENSOR = re.compile(r"\[ *[0-9]+/ *[0-9]+\] (\S+)")
_MEMORY_BYTES = 4 * 1024**3
_MEMORY_FACTOR = 3  # the file is mapped, and its largest tensor is there in three types


class QuantizeOrder(Struct, frozen=True):
    """What the child is told."""

    source: str
    target: str
    quantization: str
    num_threads: int


def quantization_named(text: str) -> str:
    """`Q4_K_M` for `q4_K_M`. Raises `RequestRefused` with the list."""
    name = _SHORT.get(text.upper(), text.upper())
    if name not in QUANTIZATIONS:
        raise RequestRefused(
            f"{text!r:.50} is no quantization that models are made in; there are: "
            + ", ".join(QUANTIZATIONS),
            param="quantize",
        )
    return name


def check_source(header: GgufHeader, quantization: str) -> None:
    """Raise `RequestRefused` for a model that has lost too much already."""
    if header.quantization not in WHOLE:
        raise RequestRefused(
            f"the model is {header.quantization.upper()} already; only F32, F16 and BF16 ones can "
            f"be made {quantization}: create it from the original weights",
            param="quantize",
        )


def _memory_for(source: Path) -> int:
    return source.stat().st_size * _MEMORY_FACTOR + _MEMORY_BYTES


async def quantize(source: Path, target: Path, quantization: str) -> AsyncGenerator[Far, None]:
    """Write `target`, and tell how far it is, counted in the bytes of `source`."""
    order = QuantizeOrder(str(source), str(target), quantization, os.cpu_count() or 1)
    memory_bytes = _memory_for(source)
    module = "engines.gguf.quantizing"  # `__name__` of the child is another
    async with aclosing(work_in_child(module, order, memory_bytes=memory_bytes)) as steps:
        async for far in steps:
            yield far


def _work(order: QuantizeOrder, tell: Tell) -> None:
    sizes = {tensor.name: tensor.size_bytes for tensor in read_file(Path(order.source)).tensors}
    total_bytes = sum(sizes.values())
    done_bytes = 0
    begun = 0  # the tensor that is being worked on

    def on_line(line: str) -> None:
        nonlocal done_bytes, begun
        found = _TENSOR.match(line)
        if found is not None:
            done_bytes += begun
            begun = sizes.get(found[1], 0)
            tell(Far(done_bytes, total_bytes))

    native.quantize(
        Path(order.source),
        Path(order.target),
        QUANTIZATIONS[order.quantization],
        num_threads=order.num_threads,
        on_line=on_line,
    )
    if not Path(order.target).stat().st_size:
        raise Unavailable("llama.cpp wrote nothing")
    tell(Far(total_bytes, total_bytes))


if __name__ == "__main__":
    sys.exit(serve_order(sys.argv[1:], QuantizeOrder, _work))
