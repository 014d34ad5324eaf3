"""Builds and installs llama-cpp-python with the flags that this machine needs.

    python engines/gguf/build.py --python .venv/bin/python

Runs before anything is installed, so it uses the standard library only and
imports nothing of Penstock. What pip builds by itself has two traps, both
measured on the pinned version:

- gcc 12 drops the stores that fill an AMX tile configuration (its intrinsic
  claims to read 8 bytes of 64), so on processors with `amx_int8` the first
  prompt of a quantized model ends the process. Without dead-store elimination
  (both `-fno-tree-dse` and `-fno-dse`; one is not enough) the stores stay and
  AMX works. Which later gcc needs it no more is not known, so all get the flags.
- OpenMP counts threads over all teams: as soon as a second thread calls
  llama.cpp, decoding gets 2 to 5 times slower. ggml's own thread pool does not.

And one loop of its sources is made faster as it is configured: masked_cells.cmake.

A finished wheel is kept by everything that decides
its content, so a second clone installs in seconds. pip's own wheel cache is
passed by: it does not look at the flags.
"""

import argparse
import hashlib
import json
import os
import platform
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.3.36"  # as in pyproject.toml; a test compares them
STAMP = ".penstock-gguf-build.json"
HEARTBEAT_SECONDS = 15.0
MASKED_CELLS = Path(__file__).resolve().with_name("masked_cells.cmake")

_NINJA = re.compile(r"^\s*\[(\d+)/(\d+)\]")
_MAKE = re.compile(r"^\s*\[\s*(\d+)%\]")
_ASK_TARGET = """
import hashlib, importlib.metadata, json, sys, sysconfig
try:
    found = importlib.metadata.distribution("llama-cpp-python")
    version, record = found.version, hashlib.sha256((found.read_text("RECORD") or "").encode())
    record = record.hexdigest()
except importlib.metadata.PackageNotFoundError:
    version = record = None
tag = f"{sys.implementation.name}{sys.version_info[0]}{sys.version_info[1]}"
print(json.dumps({"prefix": sys.prefix, "tag": tag, "platform": sysconfig.get_platform(),
                  "version": version, "record": record}))
"""


class CannotBuild(Exception):
    """The build cannot start or failed; the message says what to do."""


@dataclass(frozen=True)
class Machine:
    """What of this machine decides how llama.cpp is compiled."""

    system: str
    cpu_flags: frozenset[str]
    compiler: str  # the first line of `c++ --version`
    has_nvcc: bool
    libc: str = ""


@dataclass(frozen=True)
class Target:
    """The environment to install into; `version` and `record` are of what it has now."""

    prefix: str
    tag: str
    platform: str
    version: str | None
    record: str | None


@dataclass(frozen=True)
class Plan:
    """The CMake arguments, and one line on each choice."""

    arguments: tuple[str, ...]
    reasons: tuple[str, ...]


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The feature words of the first processor in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(words.split())
    return frozenset()


def plan(machine: Machine, *, gpu: bool = False, extra: str = "") -> Plan:
    """Choose the CMake arguments; `extra` is the caller's own CMAKE_ARGS, which come last."""
    arguments = ["-DGGML_OPENMP=OFF", "-DLLAVA_BUILD=ON"]
    reasons = [
        "OpenMP off: with it, several models in one process slow each other down",
        "vision on: it is a fifth of the time that compiling takes",
        "attention passes the cells of other streams four at a time: a quarter less time for a "
        "step of 16 streams with 900 tokens each",
    ]
    for more, why in (_amx(machine), _gpu(machine, asked=gpu)):
        arguments += more
        reasons += why
    if extra:
        arguments += shlex.split(extra)
        reasons.append(f"also, from CMAKE_ARGS: {extra}")
    return Plan(tuple(arguments), tuple(reasons))


def _amx(machine: Machine) -> tuple[list[str], list[str]]:
    if "amx_int8" not in machine.cpu_flags:
        return [], ["no AMX in this processor: no compiler workaround needed"]
    if "clang" in machine.compiler.lower():
        return [], ["AMX on: clang compiles its set-up as written"]
    flags = "-fno-tree-dse -fno-dse"
    return (
        [f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}"],
        [f"AMX on, with {flags}: without them gcc's code ends the process at the first prompt"],
    )


def _gpu(machine: Machine, *, asked: bool) -> tuple[list[str], list[str]]:
    if machine.system == "Darwin":
        return [], ["Metal on: the default on macOS"]
    if not asked:
        hint = "; --gpu compiles it in, nvcc is here" if machine.has_nvcc else ""
        return [], [f"GPU off: not asked for{hint}"]
    if not machine.has_nvcc:
        raise CannotBuild("--gpu needs nvcc of the CUDA toolkit on PATH; install it or leave --gpu")
    return ["-DGGML_CUDA=ON"], ["GPU on (CUDA): compiling takes many times longer"]


def cache_key(machine: Machine, target: Target, arguments: Iterable[str]) -> str:
    """Names a wheel by all that decides its content."""
    parts = {
        "version": VERSION,
        "arguments": list(arguments),
        "masked_cells": MASKED_CELLS.read_text(),
        "cpu": sorted(machine.cpu_flags),
        "compiler": machine.compiler,
        "libc": machine.libc,
        "tag": target.tag,
        "platform": target.platform,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"llama-cpp-python-{VERSION}-{digest[:16]}"


def find_compiler(
    environment: Mapping[str, str], which: Callable[[str], str | None] = shutil.which
) -> str:
    """The C++ compiler that CMake will use; refuses with the command that installs one."""
    for variable, names in (("CC", ("cc", "gcc", "clang")), ("CXX", ("c++", "g++", "clang++"))):
        chosen = shlex.split(environment.get(variable, ""))[:1] or names
        found = next((path for path in map(which, chosen) if path), None)
        if found is None:
            language = "C" if variable == "CC" else "C++"
            raise CannotBuild(
                f"llama.cpp is compiled here, but no {language} compiler was found (looked for "
                f"{', '.join(chosen)}); install one: `apt-get install build-essential` (Debian, "
                "Ubuntu), `dnf install gcc gcc-c++` (Fedora), `xcode-select --install` (macOS)"
            )
    return found or ""


def read_machine(environment: Mapping[str, str]) -> Machine:
    compiler = find_compiler(environment)
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    cpuinfo = Path("/proc/cpuinfo")
    return Machine(
        system=platform.system(),
        cpu_flags=cpu_flags(cpuinfo.read_text()) if cpuinfo.exists() else frozenset(),
        compiler=version.stdout.partition("\n")[0],
        has_nvcc=shutil.which("nvcc") is not None,
        libc=" ".join(platform.libc_ver()),
    )


def ask_target(python: Path) -> Target:
    """What the environment of `python` is and has."""
    try:
        answer = subprocess.run(
            [python, "-c", _ASK_TARGET], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotBuild(
            f"{python} does not run ({error}); give the Python of the environment to install "
            "into with --python"
        ) from None
    return Target(**json.loads(answer.stdout))


def is_installed(target: Target, key: str) -> bool:
    """True when the environment has this very build: pip may have replaced it meanwhile."""
    try:
        stamp = json.loads((Path(target.prefix) / STAMP).read_text())
    except (OSError, ValueError):
        return False
    return target.version == VERSION and stamp == {"key": key, "record": target.record}


def progress_of(line: str) -> float | None:
    """How much is compiled, 0 to 1, if this line of Ninja or Make says it."""
    if found := _NINJA.match(line):
        done, total = int(found[1]), int(found[2])
        return done / total if 0 < done <= total else None
    if found := _MAKE.match(line):
        return min(100, int(found[1])) / 100
    return None


def heartbeat(seconds: float, progress: float | None) -> str:
    """One line that says how far the build is."""
    elapsed = f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    if progress is None:
        return f"  {elapsed}: fetching sources and build tools"
    return f"  {elapsed}: {progress:.0%} compiled"


def build_wheel(python: Path, arguments: Iterable[str], kept: Path) -> Path:
    """Compile a wheel into the folder `kept`, which appears only when it is complete."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    log = kept.parent / f"{kept.name}.log"
    # Not among the arguments, which name the wheel: every clone has it at another path.
    included = f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={MASKED_CELLS}"
    environment = os.environ | {"CMAKE_ARGS": shlex.join([included, *arguments])}
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="building-") as folder:
        command = [str(python), "-m", "pip", "wheel", "--verbose", "--no-cache-dir", "--no-deps"]
        command += ["--no-binary", "llama-cpp-python", "--wheel-dir", folder]
        code = _run_with_progress([*command, f"llama-cpp-python=={VERSION}"], environment, log)
        wheels = list(Path(folder).glob("llama_cpp_python-*.whl"))
        if code or not wheels:
            raise CannotBuild(f"llama-cpp-python did not build; the whole log is {log}")
        kept.mkdir(exist_ok=True)
        return wheels[0].replace(kept / wheels[0].name)


def _run_with_progress(command: list[str], environment: Mapping[str, str], log: Path) -> int:
    """Run `command`, keep what it prints in `log`, and show that it is alive."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(process, lines, log), daemon=True).start()
    recent: deque[str] = deque(maxlen=25)
    started = spoke = time.monotonic()
    progress: float | None = None
    is_running = True
    while is_running:
        try:
            line = lines.get(timeout=1)
            is_running = line is not None
        except queue.Empty:
            line = ""
        if line:
            recent.append(line)
            progress = progress_of(line) or progress
        now = time.monotonic()
        if now - spoke >= HEARTBEAT_SECONDS:
            say(heartbeat(now - started, progress))
            spoke = now
    code = process.wait()
    if code:
        say("".join(recent).rstrip())
    return code


def _read_lines(
    process: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str | None]", log: Path
) -> None:
    try:
        with log.open("w") as file, process.stdout or nullcontext(()) as output:
            for line in output:
                file.write(line)
                lines.put(line)
    finally:
        lines.put(None)


def install(python: Path, wheel: Path, key: str) -> None:
    """Install the wheel alone, and note in the environment which build it is."""
    # What llama-cpp-python itself needs comes later, with Penstock's own constraints.
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel]
    if subprocess.run(command, check=False).returncode:
        raise CannotBuild(f"pip did not install {wheel}; delete the file to have it built anew")
    target = ask_target(python)
    stamp = json.dumps({"key": key, "record": target.record})
    (Path(target.prefix) / STAMP).write_text(stamp)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def cache_folder(environment: Mapping[str, str]) -> Path:
    root = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "penstock" / "wheels"


def run(python: Path, *, gpu: bool, only_plan: bool) -> None:
    target = ask_target(python)
    machine = read_machine(os.environ)
    chosen = plan(machine, gpu=gpu, extra=os.environ.get("CMAKE_ARGS", ""))
    key = cache_key(machine, target, chosen.arguments)
    kept = cache_folder(os.environ) / key
    wheel = next(iter(kept.glob("*.whl")), None)
    installed = is_installed(target, key)
    if installed and not only_plan:
        say(f"llama-cpp-python {VERSION}: this build is installed already")
        return
    say(f"llama-cpp-python {VERSION}, compiled for this machine by {machine.compiler}:")
    for reason in chosen.reasons:
        say(f"  {reason}")
    if only_plan:
        say(f"  CMAKE_ARGS: {shlex.join(chosen.arguments)}")
        say(f"  wheel: {wheel or f'would be built into {kept}'}")
        return
    if wheel is None:
        say("compiling llama.cpp, once for this machine: about 5 minutes on 2 cores")
        wheel = build_wheel(python, chosen.arguments, kept)
    say(f"installing {wheel}")
    install(python, wheel, key)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        help="the Python to install into (default: the one that runs this)",
    )
    parser.add_argument("--gpu", action="store_true", help="compile for NVIDIA GPUs (needs nvcc)")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    options = parser.parse_args(argv)
    try:
        run(options.python, gpu=options.gpu, only_plan=options.plan)
    except CannotBuild as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
