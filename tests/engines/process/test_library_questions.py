"""A library in a child process answers as one in the gateway's own does."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from engines.errors import EngineError, ModelNotFound, RequestRefused, Unsupported
from engines.gguf.config import GgufConfig
from engines.modelfile_text import Instruction
from engines.process import EngineSpec, ProcessEngine
from engines.protocol import Capability, ModelLibrary, Progress
from tests.docker_registry import docker_registry
from tests.engines.process.hosted import QUICK, hosted
from tests.gguf_files import write_gguf


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return write_gguf(path, layers=1, width=32, quantization="f16")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncGenerator[ProcessEngine]:
    spec = EngineSpec.of(
        "engines.gguf.engine:GgufEngine",
        GgufConfig(num_threads=1, registries=("127.0.0.1",)),
        models_dir=tmp_path / "models",
        data_dir=tmp_path,
    )
    engine = ProcessEngine("hosted", spec, supervision=QUICK)
    await engine.start()
    yield engine
    await engine.close()


async def all_of(steps: AsyncGenerator[Progress, None]) -> list[str]:
    async with aclosing(steps):
        return [step.status async for step in steps]


async def test_a_model_is_made_shown_copied_and_deleted(
    engine: ProcessEngine, weights: Path, tmp_path: Path
) -> None:
    assert isinstance(engine, ModelLibrary)
    digest = f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"

    assert not await engine.has_blob(digest)
    assert await engine.add_file(str(weights), digest) == digest
    assert await engine.has_blob(digest)
    said = await all_of(engine.create("mine", f"FROM @{digest}\nSYSTEM be kind", quantize="q8_0"))
    await engine.copy("mine", "team/other:v2")
    assert await engine.listed_name("TEAM/Other:V2") == "team/other:v2"
    assert await engine.listed_name("nowhere") is None
    details = await engine.show("team/other:v2")
    await engine.delete("mine")

    assert (said[0], said[-1]) == ("gathering model components", "success")
    assert "quantizing F16 model to Q8_0" in said
    assert (details.info.quantization, details.system) == ("q8_0", "be kind")
    assert Capability.CHAT in details.info.capabilities
    assert details.metadata["llama.block_count"] == 1
    names = {info.name for info in await engine.models()}
    assert names == {"starter", "team/other:v2"}


async def test_instructions_arrive_in_the_child_as_they_are(
    engine: ProcessEngine, weights: Path
) -> None:
    system = '"""\nFROM elsewhere\r\n"""'
    said = [("FROM", "", f"@{await engine.add_file(str(weights))}"), ("SYSTEM", "", system)]

    await all_of(engine.create("mine", [Instruction(0, *one) for one in said]))

    assert (await engine.show("mine")).system == system


async def test_models_are_pulled_and_pushed(engine: ProcessEngine, weights: Path) -> None:
    with docker_registry() as registry:
        registry.put("team/tiny", "latest", {"model": weights.read_bytes()})
        name = f"{registry.host}/team/tiny"

        pulled = await all_of(engine.pull(name))
        await engine.copy(name, f"{registry.host}/team/copy:v1")
        pushed = await all_of(engine.push(f"{registry.host}/team/copy:v1"))

    assert (pulled[0], pulled[-1]) == ("pulling manifest", "success")
    assert (pushed[0], pushed[-1]) == ("retrieving manifest", "success")
    assert name + ":latest" in {info.name for info in await engine.models()}


async def test_a_job_that_is_given_up_ends_in_the_child_too(
    engine: ProcessEngine, weights: Path, tmp_path: Path
) -> None:
    digest = await engine.add_file(str(weights))

    async with aclosing(engine.create("x", f"FROM @{digest}", quantize="q4_K_M")) as steps:
        async for step in steps:
            if step.status.startswith("quantizing"):
                break

    assert (await engine.health()).ready
    assert await all_of(engine.create("x", f"FROM @{digest}"))


async def test_errors_are_the_librarys_own(engine: ProcessEngine) -> None:
    with pytest.raises(ModelNotFound, match="there is no model 'nowhere'") as missing:
        await engine.show("nowhere")
    with pytest.raises(RequestRefused, match="is not sha256:") as refused:
        await engine.has_blob("sha256:../x")
    with pytest.raises(RequestRefused, match="line 1 of the Modelfile") as wrong:
        await all_of(engine.create("x", "NONSENSE"))
    with pytest.raises(RequestRefused, match=r"`registries` are 127\.0\.0\.1"):
        await all_of(engine.pull("qwen3"))

    assert missing.value.model == "nowhere"
    assert (refused.value.param, wrong.value.param) == ("digest", "modelfile")


async def test_an_engine_without_model_files_says_so() -> None:
    async with hosted() as engine:
        for ask in (engine.copy("a", "b"), engine.delete("a"), engine.show("a"),
                    engine.has_blob("a"), engine.add_file("a"),
                    engine.listed_name("a")):  # fmt: skip
            with pytest.raises(Unsupported, match="keeps no model files"):
                await ask
        for job in (engine.pull("a"), engine.push("a"), engine.create("a", "FROM b")):
            with pytest.raises(EngineError, match="keeps no model files"):
                await all_of(job)
