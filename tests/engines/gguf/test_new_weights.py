"""Models made of a checkpoint's files, which were handed over one by one, in a real child."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from engines.errors import RequestRefused, Unavailable
from engines.gguf.config import GgufConfig
from engines.gguf.create import Create
from engines.gguf.engine import GgufEngine
from engines.gguf.header import read_header
from engines.gguf.recipe import recipe_of
from engines.protocol import GenerateRequest, Message, Sampling, Text, TextDelta
from tests.engines.gguf.conversion.exact_logits import exact_logits
from tests.engines.gguf.conversion.test_adapter import put_adapter
from tests.engines.gguf.conversion.test_writing import QWEN_RULE, STARTER
from tests.engines.gguf.creating import blob_of, created, library_of, statuses
from tests.engines.gguf.registry.pulling import QUICK
from tests.engines.paged.random_checkpoints import reference
from tests.gguf_files import write_gguf

FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors")


def handed_over(folder: Path, tmp_path: Path, *names: str) -> str:
    """The starter model's safetensors as blobs, and the Modelfile that names them."""
    tokenizer = json.loads((STARTER / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = QWEN_RULE
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    paths = [*(STARTER / name for name in FILES), tmp_path / "tokenizer.json"]
    lines = [f"FROM @{blob_of(folder, path)} {path.name}" for path in paths]
    return "\n".join(line for line in lines if not names or line.split()[-1] in names)


async def test_a_checkpoint_becomes_a_model_that_answers(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    modelfile = handed_over(folder, tmp_path)

    steps = await created(folder, "made", f"{modelfile}\nPARAMETER temperature 0", quantize="q8_0")

    said = statuses(steps)
    assert said[:3] == [
        "gathering model components",
        "converting model",
        "quantizing BF16 model to Q8_0",
    ]
    header = read_header(library_of(folder).find("made"))
    assert (header.name, header.quantization) == ("made:latest", "q8_0")
    assert await answer(folder, "made") == await answer(folder, "starter")
    assert list((folder / "blobs" / ".copies").iterdir()) == []


async def answer(folder: Path, model: str) -> str:
    engine = GgufEngine("x", GgufConfig(num_threads=1), models_dir=folder, data_dir=folder)
    request = GenerateRequest(
        id="1",
        model=model,
        messages=[Message(role="user", parts=(Text("Hello!"),))],
        sampling=Sampling(temperature=0.0),
        max_tokens=12,
    )
    try:
        events = [event async for event in engine.generate(request)]
    finally:
        await engine.close()
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_an_adapter_that_peft_wrote_becomes_one_of_llama_cpps(tmp_path: Path) -> None:
    folder, lora = tmp_path / "models", tmp_path / "lora"
    put_adapter(lora, reference(STARTER), ("self_attn.q_proj", "mlp.up_proj"))
    weights = blob_of(folder, STARTER / "starter.gguf")
    lines = [f"ADAPTER @{blob_of(folder, path)} {path.name}" for path in sorted(lora.iterdir())]

    steps = await created(folder, "tuned", "\n".join([f"FROM @{weights}", *lines]))

    assert "converting adapter" in statuses(steps)
    (adapter,) = recipe_of(library_of(folder).look_up("tuned")).adapters
    assert exact_logits(STARTER / "starter.gguf", [9, 8, 7], adapter=adapter).shape == (3, 3072)
    with pytest.raises(RequestRefused, match="the adapter belongs to another one"):
        other = blob_of(folder, write_gguf(tmp_path / "other.gguf", width=32))
        await created(folder, "wrong", "\n".join([f"FROM @{other}", *lines]))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("config.json", "tokenizer.json"), "model.safetensors is missing"),
        (("model.safetensors",), "config.json is missing"),
    ],
)
async def test_a_file_that_was_not_handed_over_is_named(
    tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    folder = tmp_path / "models"

    with pytest.raises(RequestRefused, match=said) as refused:
        await created(folder, "made", handed_over(folder, tmp_path, *names))

    assert refused.value.param == "modelfile"
    assert str(folder) not in refused.value.message
    assert not (folder / "manifests").exists()


async def test_a_disk_without_room_is_noticed_first(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    how = msgspec.structs.replace(QUICK, free_bytes=lambda _: 1000)
    made = Create(library_of(folder), "made", handed_over(folder, tmp_path), how=how)

    with pytest.raises(Unavailable, match="make room"):
        async for _ in made.steps():
            pass


async def test_a_conversion_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    made = Create(library_of(folder), "made", handed_over(folder, tmp_path))

    async with aclosing(made.steps()) as steps:
        async for step in steps:
            if step.status == "converting model":
                break

    assert not (folder / "manifests").exists()
    assert list((folder / "blobs" / ".copies").iterdir()) == []


def test_a_child_ends_when_its_parent_is_gone() -> None:
    root = Path(__file__).parents[3]
    child = subprocess.Popen(
        [sys.executable, "-c", f"""
import sys, threading
from engines.gguf.child_work import Far, serve_order
def work(order, tell):
    tell(order)
    threading.Event().wait()
sys.exit(serve_order(["{2**34}"], Far, work))
"""],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b'{"done_bytes":1,"total_bytes":2}\n')
    child.stdin.flush()
    assert json.loads(child.stdout.readline()) == {"done_bytes": 1, "total_bytes": 2}

    child.stdin.close()

    assert child.wait(30) == 1
    child.stdout.close()


async def test_many_models_can_be_made_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    modelfile = handed_over(folder, tmp_path)

    await asyncio.gather(*(created(folder, f"m{number}", modelfile) for number in range(2)))

    first, second = (library_of(folder).look_up(f"m{number}") for number in range(2))
    assert read_header(first.path).name == "m0:latest"
    assert read_header(second.path).name == "m1:latest"
