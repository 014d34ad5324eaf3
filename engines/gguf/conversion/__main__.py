"""The child that converts one checkpoint; see engines/gguf/child_work.py."""

import sys
from pathlib import Path

from engines.gguf.child_work import Tell, serve_order
from engines.gguf.conversion.order import ConvertOrder
from engines.gguf.conversion.writing import write_gguf


def work(order: ConvertOrder, tell: Tell) -> None:
    """Convert what the order names."""
    write_gguf(Path(order.folder), Path(order.target), order.name, tell)


if __name__ == "__main__":
    sys.exit(serve_order(sys.argv[1:], ConvertOrder, work))
