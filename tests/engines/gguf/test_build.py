"""The installer of llama.cpp: which flags it chooses, and what it says."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from engines.gguf import build

ROOT = Path(__file__).parents[3]
GCC = "c++ (Debian 12.2.0-14) 12.2.0"
AMX_CPUINFO = """\
processor\t: 0
model name\t: A processor
flags\t\t: fpu sse2 avx512f amx_bf16 amx_tile amx_int8

processor\t: 1
flags\t\t: fpu sse2
"""
ARM_CPUINFO = "processor\t: 0\nFeatures\t: fp asimd i8mm\n"


def machine(**changes: object) -> build.Machine:
    plain = build.Machine("Linux", frozenset({"sse2", "avx2"}), GCC, has_nvcc=False)
    return replace(plain, **changes)  # pyright: ignore[reportArgumentType]


TARGET = build.Target("/venv", "cpython311", "linux-x86_64", None, None)


def test_the_version_is_the_one_that_pyproject_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert f"llama-cpp-python=={build.VERSION}" in project["dependencies"]


def test_openmp_is_always_off_and_vision_on() -> None:
    for system in ("Linux", "Darwin"):
        arguments = build.plan(machine(system=system)).arguments

        assert arguments[:2] == ("-DGGML_OPENMP=OFF", "-DLLAVA_BUILD=ON")


def test_the_features_of_a_processor_are_read_from_cpuinfo() -> None:
    assert "amx_int8" in build.cpu_flags(AMX_CPUINFO)
    assert build.cpu_flags(ARM_CPUINFO) == {"fp", "asimd", "i8mm"}
    assert build.cpu_flags("") == frozenset()


def test_gcc_on_an_amx_processor_gets_both_flags_that_keep_the_stores() -> None:
    chosen = build.plan(machine(cpu_flags=build.cpu_flags(AMX_CPUINFO)))

    assert chosen.arguments[2:] == (
        "-DCMAKE_C_FLAGS=-fno-tree-dse -fno-dse",
        "-DCMAKE_CXX_FLAGS=-fno-tree-dse -fno-dse",
    )
    assert any("AMX on, with -fno-tree-dse -fno-dse" in reason for reason in chosen.reasons)


def test_clang_and_processors_without_amx_get_no_workaround() -> None:
    amx = frozenset({"amx_int8"})

    assert len(build.plan(machine(cpu_flags=amx, compiler="clang version 17")).arguments) == 2
    assert len(build.plan(machine()).arguments) == 2


def test_a_gpu_is_used_only_when_asked_for() -> None:
    unasked = build.plan(machine(has_nvcc=True))
    asked = build.plan(machine(has_nvcc=True), gpu=True)

    assert "-DGGML_CUDA=ON" not in unasked.arguments
    assert any("--gpu" in reason for reason in unasked.reasons)
    assert "-DGGML_CUDA=ON" in asked.arguments


def test_a_gpu_without_nvcc_is_refused_with_the_way_out() -> None:
    with pytest.raises(build.CannotBuild, match="install it or leave --gpu"):
        build.plan(machine(), gpu=True)


def test_metal_needs_no_flag_on_macos() -> None:
    chosen = build.plan(machine(system="Darwin"), gpu=True)

    assert len(chosen.arguments) == 2
    assert "Metal on: the default on macOS" in chosen.reasons


def test_the_callers_own_cmake_arguments_come_last() -> None:
    chosen = build.plan(machine(), extra="-DGGML_NATIVE=OFF '-DCMAKE_C_FLAGS=-O1 -g'")

    assert chosen.arguments[-2:] == ("-DGGML_NATIVE=OFF", "-DCMAKE_C_FLAGS=-O1 -g")


def test_the_same_choices_have_the_same_key_and_any_other_has_another() -> None:
    arguments = build.plan(machine()).arguments
    key = build.cache_key(machine(), TARGET, arguments)
    others = {
        build.cache_key(machine(), TARGET, [*arguments, "-DGGML_CUDA=ON"]),
        build.cache_key(machine(cpu_flags=frozenset({"sse2"})), TARGET, arguments),
        build.cache_key(machine(compiler="c++ 14"), TARGET, arguments),
        build.cache_key(machine(libc="glibc 2.41"), TARGET, arguments),
        build.cache_key(machine(), replace(TARGET, tag="cpython312"), arguments),
        build.cache_key(machine(), replace(TARGET, platform="macosx-14-arm64"), arguments),
    }

    again = build.cache_key(machine(cpu_flags=frozenset({"avx2", "sse2"})), TARGET, arguments)

    assert key == again
    assert key not in others
    assert len(others) == 6


def test_what_is_changed_in_the_sources_changes_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = build.cache_key(machine(), TARGET, [])
    changed = tmp_path / "masked_cells.cmake"
    changed.write_text(f"{build.MASKED_CELLS.read_text()}# changed")

    monkeypatch.setattr(build, "MASKED_CELLS", changed)

    assert build.cache_key(machine(), TARGET, []) != key


def test_the_library_that_is_installed_passes_masked_cells() -> None:
    found = re.search('set\\(mark "(.+)"\\)', build.MASKED_CELLS.read_text())
    assert found is not None
    package = importlib.util.find_spec("llama_cpp")
    assert package is not None
    assert package.origin is not None
    libraries = list((Path(package.origin).parent / "lib").glob("libggml-cpu*"))

    assert libraries
    assert all(found[1].encode() in library.read_bytes() for library in libraries)


def test_where_it_is_installed_does_not_change_the_key() -> None:
    elsewhere = replace(TARGET, prefix="/other", version="0.3.1", record="abc")

    assert build.cache_key(machine(), TARGET, []) == build.cache_key(machine(), elsewhere, [])


def test_a_missing_compiler_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(build.CannotBuild) as refused:
        build.find_compiler({}, which=lambda name: "/bin/cc" if name == "cc" else None)

    assert "no C++ compiler was found (looked for c++, g++, clang++)" in str(refused.value)
    assert "apt-get install build-essential" in str(refused.value)


def test_the_compiler_that_the_environment_names_is_the_one_looked_for() -> None:
    found = build.find_compiler({"CC": "mycc", "CXX": "ccache my++"}, which=lambda name: name)

    assert found == "ccache"
    with pytest.raises(build.CannotBuild, match="looked for mycc"):
        build.find_compiler({"CC": "mycc"}, which=lambda name: None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  [12/80] Building CXX object ggml.o\n", 0.15),
        ("[80/80] Linking\n", 1.0),
        ("  [ 42%] Building C object\n", 0.42),
        ("  Downloading llama_cpp_python-0.3.36.tar.gz\n", None),
        ("[0/0] nothing", None),
        ("[9/3] nonsense", None),
    ],
)
def test_progress_is_read_from_ninja_and_make(line: str, expected: float | None) -> None:
    assert build.progress_of(line) == expected


def test_a_heartbeat_says_how_long_and_how_far() -> None:
    assert build.heartbeat(75, 0.5) == "  1 min 15 s: 50% compiled"
    assert build.heartbeat(15, None) == "  0 min 15 s: fetching sources and build tools"


def test_the_cache_follows_xdg() -> None:
    assert build.cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/penstock/wheels")
    assert build.cache_folder({}) == Path.home() / ".cache" / "penstock" / "wheels"


def test_a_build_that_pip_replaced_counts_as_not_installed(tmp_path: Path) -> None:
    target = replace(TARGET, prefix=str(tmp_path), version=build.VERSION, record="abc")
    (tmp_path / build.STAMP).write_text(json.dumps({"key": "k", "record": "abc"}))

    assert build.is_installed(target, "k")
    assert not build.is_installed(target, "another")
    assert not build.is_installed(replace(target, record="replaced"), "k")
    assert not build.is_installed(replace(target, version=None, record=None), "k")


@pytest.mark.parametrize("content", [None, "", "[", "[]"])
def test_a_missing_or_broken_stamp_counts_as_not_installed(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / build.STAMP).write_text(content)

    assert not build.is_installed(replace(TARGET, prefix=str(tmp_path)), "k")


def test_a_failed_command_keeps_its_log_and_shows_its_last_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", "print('[1/2] compiling'); print('boom'); raise SystemExit(3)"]

    code = build._run_with_progress(command, {}, tmp_path / "log")

    assert code == 3
    assert "boom" in capsys.readouterr().out
    assert "[1/2] compiling" in (tmp_path / "log").read_text()


def test_it_runs_with_the_standard_library_alone(tmp_path: Path) -> None:
    script = ROOT / "engines" / "gguf" / "build.py"

    ended = subprocess.run(
        [sys.executable, "-I", "-S", script, "--plan", "--python", sys.executable],
        capture_output=True,
        text=True,
        timeout=50,
        env={"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )

    assert ended.returncode == 0, ended.stderr
    assert "-DGGML_OPENMP=OFF" in ended.stdout
    assert f"would be built into {tmp_path}" in ended.stdout


def test_a_python_that_does_not_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code = build.main(["--python", "/no/such/python"])

    assert code == 1
    assert "/no/such/python does not run" in capsys.readouterr().err
