"""One engine, one shape, one process: `python -m tests.gpu_bench.one ENGINE SHAPE OUT`.

Writes what it measured to OUT as JSON, or why it could not. The clock of
`start_seconds` begins with the process, so imports count as they do for a user.
"""

import time

BEGAN = time.perf_counter()

import json  # noqa: E402 - the clock comes first
import sys  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from contextlib import AbstractContextManager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import msgspec  # noqa: E402

from tests.gpu_bench.figures import Figures, Subject, measure  # noqa: E402
from tests.gpu_bench.our_engine import NotMeasured, in_process, over_http, paged_engine  # noqa: E402
from tests.gpu_bench.peers import transformers_engine, vllm_engine  # noqa: E402

ENGINES = ("paged", "paged over HTTP", "transformers", "vllm")
SHAPES = Path(__file__).parent / "shapes"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one process found out."""

    engine: str
    shape: str
    figures: Figures | None = None
    problem: str | None = None  # why there are no figures


def opened(
    engine: str, folder: Path, options: Mapping[str, Any]
) -> AbstractContextManager[Subject]:
    """An engine by its name on the command line."""
    match engine:
        case "paged":
            return in_process(lambda: paged_engine(folder, options))
        case "paged over HTTP":
            return over_http(folder, options)
        case "transformers":
            return transformers_engine(folder)
        case "vllm":
            return vllm_engine(folder)
        case _:
            raise NotMeasured(f"there is no engine {engine!r} (there are: {', '.join(ENGINES)})")


def run(engine: str, shape: str, options: Mapping[str, Any], batches: list[int]) -> Outcome:
    """Measure, or find out why not."""
    try:
        with opened(engine, SHAPES / shape, options) as subject:
            subject.seconds_for([[1, 2, 3]], [1], temperature=0.0)
            started = time.perf_counter() - BEGAN
            tell(f"first token {started:.1f} s after the process began")
            figures = measure(subject, tell, batches=batches)
            figures = msgspec.structs.replace(figures, start_seconds=started)
            return Outcome(engine=engine, shape=shape, figures=figures)
    # A peer may fail in ways of its own; the table goes on without it, and says why.
    except Exception as error:  # noqa: BLE001
        return Outcome(engine=engine, shape=shape, problem=f"{type(error).__name__}: {error}")


def tell(line: str) -> None:
    """Progress, for whoever watches."""
    sys.stderr.write(f"    {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    engine, shape, out, options, batches = sys.argv[1:]
    outcome = run(engine, shape, json.loads(options), json.loads(batches))
    Path(out).write_bytes(msgspec.json.encode(outcome))
