"""2,000 GGUF files whose headers were spoilt: each is refused with a reason, or loads.

Our own reader sees all of them. What it lets through is loaded and stepped as the probe's child
does it, every one of them (forked_probes.py), and the engine itself is asked for some of each
outcome: it loads what the child survived and names what ended it.
"""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from engines.errors import EngineError
from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from engines.gguf.header import MalformedGguf, read_header
from tests.engines.gguf.mutations import mutations, places
from tests.gguf_files import write_gguf

NUM_FILES, SEED = 2000, 2026
TINY = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "feed_forward": 64}


def spoilt_files(folder: Path) -> dict[str, Path]:
    """Every spoilt copy of one sound file, by what was done to it."""
    content = write_gguf(folder / "sound.gguf", context_tokens=64, **TINY).read_bytes()
    files: dict[str, Path] = {}
    for name, spoilt in mutations(content, NUM_FILES, SEED):
        files[name] = folder / f"spoilt-{len(files)}.gguf"
        files[name].write_bytes(spoilt)
    return files


async def outcomes_of(paths: list[Path]) -> AsyncGenerator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.engines.gguf.forked_probes",
        cwd=Path(__file__).parents[3],
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    for path in paths:
        process.stdin.write(f"{path}\n".encode())
        yield (await process.stdout.readline()).decode().strip()
    process.stdin.close()
    await process.wait()


@pytest.mark.timeout(300)
async def test_a_spoilt_file_is_refused_with_a_reason_or_loads(tmp_path: Path) -> None:
    let_through: list[Path] = []
    num_refused = 0
    for name, path in spoilt_files(tmp_path).items():
        try:
            read_header(path)
        except MalformedGguf as error:
            assert error.message.startswith(path.name), name
            assert error.message.isprintable(), name
            assert len(error.message) < 1000, name
            num_refused += 1
            path.unlink()
        else:
            let_through.append(path)

    outcomes = [outcome async for outcome in outcomes_of(let_through)]

    # Most are refused before llama.cpp sees them; what it is shown, it seldom minds.
    assert num_refused > NUM_FILES * 0.75
    assert len(outcomes) == len(let_through) == NUM_FILES - num_refused
    kinds = Counter(outcome.partition(" ")[0] for outcome in outcomes)
    assert kinds["SIGALRM"] == 0, "one hangs"
    assert kinds["loads"] > len(let_through) / 2
    await check_engine(tmp_path, dict(zip(let_through, outcomes, strict=True)))


async def check_engine(folder: Path, outcomes: dict[Path, str]) -> None:
    """In this process: the engine loads what a child has survived, and nothing else."""
    source = random.Random(SEED)
    engine = GgufEngine("x", GgufConfig(num_threads=1), models_dir=folder, data_dir=folder)
    for kind in {outcome.partition(" ")[0] for outcome in outcomes.values()}:
        of_kind = [path for path, outcome in outcomes.items() if outcome.startswith(kind)]
        for path in source.sample(of_kind, min(4, len(of_kind))):
            try:
                info = await engine.load(path.stem)
            except EngineError as error:
                assert kind != "loads"
                assert path.stem in error.message
            else:
                assert kind == "loads"
                assert info.loaded
    await engine.close()


def test_the_fields_of_a_header_are_where_they_are(tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "sound.gguf", **TINY).read_bytes()

    found = places(content)

    ends = [place.start + place.size for place in found]
    assert [place.start for place in found[1:]] == ends[:-1]
    kinds = Counter(place.what for place in found)
    assert kinds["tensor_type"] == kinds["offset"] == 12
    assert kinds["magic"] == kinds["version"] == 1
