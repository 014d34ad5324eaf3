"""`make bench-gpu`, or `python -m tests.gpu_bench --help` for its options."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec
from rich.console import Console

from gateway.bench.roofline import Machine
from tests.gpu_bench.figures import BATCHES
from tests.gpu_bench.one import ENGINES, Outcome
from tests.gpu_bench.peers import TRANSFORMERS_SETTINGS, VLLM_SETTINGS
from tests.gpu_bench.table import notes_of, shapes_there_are, table_of

ROOT = Path(__file__).parent.parent.parent
PROCESS_SECONDS = 1800.0


@click.command()
@click.option("--engines", default=",".join(ENGINES), show_default=True)
@click.option("--shapes", default=",".join(shapes_there_are()), show_default=True)
@click.option("--batches", default=",".join(map(str, BATCHES)), show_default=True)
@click.option("--options", default="{}", help="JSON of more keys for the paged engine's table.")
@click.option("--json", "json_to", type=click.Path(path_type=Path), help="Write outcomes here.")
@click.option("--tests/--no-tests", default=True, help="Run the kernel tests first.")
def main(
    engines: str, shapes: str, batches: str, options: str, json_to: Path | None, *, tests: bool
) -> None:
    """Run every kernel test on this GPU, then measure engines and shapes against its roofline."""
    tests_failed = tests and not kernel_tests_pass()
    machine = machine_in_a_process()
    asked = [(e, s) for s in shapes.split(",") for e in engines.split(",")]
    sizes = [int(batch) for batch in batches.split(",")]
    outcomes: list[Outcome] = []
    for engine, shape in asked:
        click.echo(f"{shape}, {engine}", err=True)
        outcomes.append(in_a_process(engine, shape, json.loads(options), sizes))
        if json_to is not None:  # after each, so that a run that is cut off leaves what it has
            json_to.write_bytes(msgspec.json.encode({"machine": machine, "outcomes": outcomes}))
    show(outcomes, machine)
    if tests_failed:
        raise click.ClickException("kernel tests failed; see above")


def kernel_tests_pass() -> bool:
    """Every test marked `gpu`, and the kernels' own, which take a GPU where there is one."""
    kernels = [str(path) for path in ROOT.glob("tests/engines/*/kernels")]
    passed = True
    for selection in ([*kernels] if kernels else [], ["-m", "gpu", "tests/engines"]):
        if selection:
            code = subprocess.run([sys.executable, "-m", "pytest", "-q", *selection], cwd=ROOT)
            passed = passed and code.returncode in (0, 5)  # 5: no test has the mark
    return passed


def machine_in_a_process() -> Machine:
    """Measured in a process of its own, which leaves the GPU's memory free."""
    program = (
        "import msgspec, sys; from tests.gpu_bench.machine import measured_machine; "
        "sys.stdout.buffer.write(msgspec.json.encode(measured_machine()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise click.ClickException("no GPU could be measured here; see above")
    return msgspec.json.decode(done.stdout, type=Machine)


def in_a_process(
    engine: str, shape: str, options: dict[str, object], batches: Sequence[int]
) -> Outcome:
    """What one engine reaches with one shape; a process that dies says so in the table."""
    with TemporaryDirectory() as directory:
        out = Path(directory) / "outcome.json"
        command = [sys.executable, "-m", "tests.gpu_bench.one", engine, shape, str(out)]
        arguments = [json.dumps(options), json.dumps(list(batches))]
        try:
            done = subprocess.run([*command, *arguments], cwd=ROOT, timeout=PROCESS_SECONDS)
        except subprocess.TimeoutExpired:
            problem = f"took longer than {PROCESS_SECONDS:.0f} s"
            return Outcome(engine=engine, shape=shape, problem=problem)
        if not out.exists():
            problem = f"its process ended with {done.returncode}"
            return Outcome(engine=engine, shape=shape, problem=problem)
        return msgspec.json.decode(out.read_bytes(), type=Outcome)


def show(outcomes: Sequence[Outcome], machine: Machine) -> None:
    """Print the table and what must be known to read it."""
    console = Console(width=120, highlight=False, markup=False, soft_wrap=True)
    console.print(table_of(outcomes, machine))
    for note in notes_of(outcomes, machine):
        console.print(note)
    settings = {"transformers": TRANSFORMERS_SETTINGS, "vllm": VLLM_SETTINGS}
    for engine, text in settings.items():
        if any(o.engine == engine and o.figures for o in outcomes):
            console.print(f"{engine}: {text}")


if __name__ == "__main__":
    main()
