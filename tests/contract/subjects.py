"""The engines that the contract suite is run against, each opened with one model."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.process import EngineSpec, ProcessEngine
from engines.protocol import Engine, GenerateRequest, Sampling
from engines.remote.config import RemoteConfig
from engines.remote.engine import RemoteEngine
from tests.engines.process import children
from tests.fakes import Hold, ScriptedEngine, Step
from tests.gguf_files import write_gguf
from tests.serving import scripted_gateway, serving, write_policy

_PAGED = PagedConfig(max_sequences=8, max_batch_tokens=64, num_threads=1)


@dataclass(frozen=True)
class Subject:
    """An engine under test, the model to ask, and what the suite must know of it."""

    engine: Engine
    model: str
    num_loads: Callable[[], int]
    too_many_words: int  # a prompt of so many words cannot fit the model's context
    # An upstream has the model and its tokenizer; what it does not tell, nobody here knows.
    has_the_model: bool = True

    def endless(self, request: GenerateRequest) -> GenerateRequest:
        """The request, changed so that its answer does not end by itself soon."""
        return msgspec.structs.replace(request, sampling=Sampling(temperature=0.0, ignore_eos=True))


@asynccontextmanager
async def scripted() -> AsyncGenerator[Subject, None]:
    """The fake that other tests rely on."""
    engine = ScriptedEngine(_script)
    await engine.start()
    yield Subject(engine, "scripted-model", lambda: engine.num_loads, too_many_words=200)
    await engine.close()


@asynccontextmanager
async def gguf() -> AsyncGenerator[Subject, None]:
    """llama.cpp, on a model with random weights."""
    with TemporaryDirectory() as folder:
        write_gguf(Path(folder) / "random.gguf", context_tokens=2048)
        # Other tests use the processor at the same time; llama.cpp's threads wait spinning.
        config = GgufConfig(num_threads=1)
        engine = GgufEngine("laptop", config, models_dir=Path(folder), data_dir=Path(folder))
        await engine.start()
        yield Subject(engine, "random", lambda: engine.num_loads, too_many_words=2100)
        await engine.close()


@asynccontextmanager
async def paged() -> AsyncGenerator[Subject, None]:
    """The paged engine, on the starter model's safetensors."""
    engine = PagedEngine("gpu0", _PAGED)
    await engine.start()
    yield Subject(engine, "starter", lambda: engine.num_loads, too_many_words=2100)
    await engine.close()


@asynccontextmanager
async def remote() -> AsyncGenerator[Subject, None]:
    """A served gateway with the scripted engine, as an upstream."""
    scripted = ScriptedEngine(_script)
    with TemporaryDirectory() as folder:
        directory = write_policy(Path(folder) / "policy", _UPSTREAM_MODELS)
        with serving(scripted_gateway(directory, {"scripted": scripted})) as server:
            config = RemoteConfig(base_url=f"{server.url}/v1", models=["*", "!no-such-*"])
            engine = RemoteEngine("up", config)
            await engine.start()
            yield Subject(
                engine,
                "scripted-model",
                lambda: engine.catalog.num_reads,
                too_many_words=200,
                has_the_model=False,
            )
            await engine.close()


_UPSTREAM_MODELS = {
    "models.toml": """
        [scripted-model]
          [[scripted-model.targets]]
          engine = "scripted"
    """
}


def _script(request: GenerateRequest) -> list[Step]:
    last = request.messages[-1].text
    steps: list[Step] = [f"{i} {last[:3]} " for i in range(20)]
    return [*steps, Hold()] if request.sampling.ignore_eos else steps


@asynccontextmanager
async def process_of_scripted() -> AsyncGenerator[Subject, None]:
    """The fake again, in a child process."""
    with TemporaryDirectory() as folder:
        loads = Path(folder) / "num_loads"
        spec = EngineSpec.of(f"{children.HERE}:tallied_scripted", children.Script(flag=str(loads)))
        engine = ProcessEngine("hosted", spec)
        await engine.start()
        yield Subject(engine, "scripted-model", lambda: int(loads.read_text()), too_many_words=200)
        await engine.close()


@asynccontextmanager
async def process_of_gguf() -> AsyncGenerator[Subject, None]:
    """llama.cpp again, in a child process."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_gguf(folder / "random.gguf", context_tokens=2048)
        spec = EngineSpec.of(
            f"{children.HERE}:tallied_gguf",
            GgufConfig(num_threads=1),
            models_dir=folder,
            data_dir=folder,
        )
        engine = ProcessEngine("hosted", spec)
        await engine.start()
        loads = folder / "num_loads"
        yield Subject(engine, "random", lambda: int(loads.read_text()), too_many_words=2100)
        await engine.close()


@asynccontextmanager
async def process_of_paged() -> AsyncGenerator[Subject, None]:
    """The paged engine again, in a child process."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        spec = EngineSpec.of(f"{children.HERE}:tallied_paged", _PAGED, data_dir=folder)
        engine = ProcessEngine("hosted", spec)
        await engine.start()
        loads = folder / "num_loads"
        yield Subject(engine, "starter", lambda: int(loads.read_text()), too_many_words=2100)
        await engine.close()


SUBJECTS: Mapping[str, Callable[[], AbstractAsyncContextManager[Subject]]] = {
    "gguf": gguf,
    "paged": paged,
    "remote": remote,
    "process of gguf": process_of_gguf,
    "process of paged": process_of_paged,
    "process of scripted": process_of_scripted,
    "scripted": scripted,
}
