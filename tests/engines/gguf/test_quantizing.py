"""Smaller weights made of whole ones, by llama.cpp, in a real child process."""

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import numpy as np
import psutil
import pytest

from engines.errors import RequestRefused, Unavailable
from engines.gguf import child_work
from engines.gguf.create import Create
from engines.gguf.header import read_header
from engines.gguf.quantizing import QUANTIZATIONS, quantization_named, quantize
from tests.engines.gguf.creating import blob_of, created, library_of, statuses
from tests.gguf_files import write_gguf

SHAPE = {"layers": 2, "width": 256, "heads": 4, "kv_heads": 2, "feed_forward": 512}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    return write_gguf(path, quantization="f16", **SHAPE)


async def test_a_model_is_made_smaller_and_says_how_far_it_is(whole: Path, tmp_path: Path) -> None:
    digest = blob_of(tmp_path, whole)

    steps = await created(tmp_path, "small", f"FROM @{digest}", quantize="q4_K_M")

    far = [step for step in steps if step.status == "quantizing F16 model to Q4_K_M"]
    assert len(far) > 10
    done = [step.done_bytes for step in far]
    assert done == sorted(done)
    assert far[-1].done_bytes == far[-1].total_bytes
    file = library_of(tmp_path).look_up("small")
    header = read_header(file.path)
    assert header.quantization == "q4_k_m"
    assert header.size_bytes < whole.stat().st_size / 2
    assert header.num_parameters == read_header(whole).num_parameters
    assert file.manifest is not None
    assert {layer.digest for layer in file.manifest.of_kind("model")} != {digest}
    assert list((tmp_path / "blobs" / ".copies").iterdir()) == []


@pytest.mark.parametrize("name", ["q8_0", "Q6_K", "iq4_nl", "q2_k", "bf16"])
async def test_every_kind_of_quantization_gives_what_it_says(
    whole: Path, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "made.gguf"
    async for _ in quantize(whole, target, quantization_named(name)):
        pass

    assert read_header(target).quantization == name.lower()


async def test_another_model_is_quantized_without_a_copy_of_it(whole: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    os.link(whole, models / "plain.gguf")

    await created(models, "small", "FROM plain\nSYSTEM be kind", quantize="q8_0")

    file = library_of(models).look_up("small")
    blobs = [path for path in (models / "blobs").glob("sha256-*") if path.stat().st_size > 10_000]
    assert blobs == [file.path]
    assert read_header(file.path).quantization == "q8_0"


async def test_what_is_so_already_stays_as_it_is(whole: Path, tmp_path: Path) -> None:
    digest = blob_of(tmp_path, whole)

    steps = await created(tmp_path, "same", f"FROM @{digest}", quantize="F16")

    assert f"using existing layer {digest}" in statuses(steps)
    assert library_of(tmp_path).look_up("same").path.name == digest.file_name


async def test_what_was_made_smaller_before_is_refused(whole: Path, tmp_path: Path) -> None:
    small = write_gguf(tmp_path / "small.gguf", layers=1, width=32, quantization="q8_0")
    digest = blob_of(tmp_path, small)

    with pytest.raises(RequestRefused, match="is Q8_0 already; only F32, F16 and BF16"):
        await created(tmp_path, "smaller", f"FROM @{digest}", quantize="q4_0")


@pytest.mark.parametrize("name", ["q9", "", " ", "iq1_s", "q4_k_m; rm", "../q4_0"])
def test_an_unknown_quantization_is_answered_with_the_list(name: str) -> None:
    with pytest.raises(RequestRefused, match="there are: F32, F16, BF16, Q8_0") as refused:
        quantization_named(name)

    assert refused.value.param == "quantize"
    assert quantization_named("q4_k") == "Q4_K_M"


def test_the_numbers_are_llama_cpps() -> None:
    import llama_cpp

    for name, number in QUANTIZATIONS.items():
        prefix = "LLAMA_FTYPE_ALL_" if name == "F32" else "LLAMA_FTYPE_MOSTLY_"
        assert getattr(llama_cpp, prefix + name) == number


async def test_a_quantization_that_is_given_up_ends_its_process_and_leaves_nothing(
    whole: Path, tmp_path: Path
) -> None:
    digest = blob_of(tmp_path, whole)
    made = Create(library_of(tmp_path), "small", f"FROM @{digest}", quantize="q4_K_M")
    before = set(psutil.Process().children())

    async with aclosing(made.steps()) as steps:
        async for step in steps:
            if step.status.startswith("quantizing"):
                break
    async with asyncio.timeout(20):
        while [  # noqa: ASYNC110 - another process ends
            child
            for child in set(psutil.Process().children()) - before
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        ]:
            await asyncio.sleep(0.01)

    assert not (tmp_path / "manifests").exists()
    assert list((tmp_path / "blobs" / ".copies").iterdir()) == []


async def test_a_file_that_llama_cpp_cannot_read_is_told_with_its_reason(tmp_path: Path) -> None:
    broken = write_gguf(tmp_path / "b.gguf", layers=1, width=32, quantization="f16")
    content = broken.read_bytes()
    broken.write_bytes(content.replace(b"llama.block_count", b"llama.block_kount"))

    with pytest.raises(Unavailable, match=r"could not quantize the model: .*block_count"):
        async for _ in quantize(broken, tmp_path / "made", "Q8_0"):
            pass


async def test_a_full_disk_is_noticed_before_anything_is_made(whole: Path, tmp_path: Path) -> None:
    import msgspec

    from tests.engines.gguf.registry.pulling import QUICK

    digest = blob_of(tmp_path, whole)
    how = msgspec.structs.replace(QUICK, free_bytes=lambda _: 1000)
    made = Create(library_of(tmp_path), "small", f"FROM @{digest}", quantize="q8_0", how=how)

    with pytest.raises(Unavailable, match="make room"):
        async for _ in made.steps():
            pass


async def test_a_child_that_dies_is_named_and_a_word_of_its_own_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = child_work.Far(1, 2)
    for script, said in (
        ("kill -SEGV $$", "was ended by SIGSEGV"),
        ("read x; echo no such luck >&2; exit 1", "no such luck"),
        ("read x; exit 1", "without a reason"),
    ):
        child = tmp_path / "python"
        child.write_text(f"#!/bin/bash\n{script}\n")
        child.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(child))
        with pytest.raises(Unavailable, match=said):
            async for _ in child_work.work_in_child("x", order, memory_bytes=1):
                pass


async def test_weights_that_are_not_finite_are_not_made_smaller(tmp_path: Path) -> None:
    odd = write_gguf(tmp_path / "odd.gguf", layers=1, width=32, quantization="f32")
    content = bytearray(odd.read_bytes())
    content[-4000:] = np.full(1000, np.nan, dtype=np.float32).tobytes()
    odd.write_bytes(content)

    with pytest.raises(Unavailable, match="could not quantize"):
        async for _ in quantize(odd, tmp_path / "made", "Q8_0"):
            pass
