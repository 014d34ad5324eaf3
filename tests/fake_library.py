"""A scripted engine that keeps models, in memory: `ModelLibrary` without files and registries."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from engines.errors import ContextTooLong, EngineError, ModelNotFound, RequestRefused
from engines.modelfile_text import Instruction
from engines.protocol import (
    Capability,
    Embeddings,
    EmbedRequest,
    Message,
    ModelDetails,
    ModelInfo,
    Progress,
    Text,
)
from tests.fakes import Hold, Script, ScriptedEngine

DIGEST = "sha256:" + "ab" * 32
ABLE = frozenset(
    {
        Capability.CHAT,
        Capability.COMPLETE,
        Capability.EMBED,
        Capability.TOOLS,
        Capability.REASONING,
    }
)


class FakeLibrary(ScriptedEngine):
    """Knows which models there are; a pull finds whatever is asked for, unless told otherwise."""

    def __init__(self, script: Script = ("hello", " there"), **options: object) -> None:
        super().__init__(script, **options)  # type: ignore[arg-type]
        self.blobs: dict[str, bytes] = {}
        self.jobs: list[tuple[str, ...]] = []  # what was asked of the library, in order
        self.modelfiles: dict[str, str | Sequence[Instruction]] = {}
        self.pull_steps: list[Progress | EngineError | Hold] = []
        self.num_ended_early = 0
        self.expires_at: float | None = None
        self.able = ABLE
        self.max_embed_tokens = 10_000

    @property
    def names(self) -> list[str]:
        return self._model_names

    @property
    def loaded(self) -> set[str]:
        return self._loaded

    async def embed(self, request: EmbedRequest) -> Embeddings:
        for text in request.inputs:
            words = len(text.split()) if isinstance(text, str) else len(text)
            if words > self.max_embed_tokens:
                raise ContextTooLong(
                    prompt_tokens=words, context_tokens=self.max_embed_tokens, param="input"
                )
        return await super().embed(request)

    async def pull(self, name: str) -> AsyncGenerator[Progress, None]:
        self.jobs.append(("pull", name))
        finished = False
        try:
            for step in self.pull_steps or [*_pulling(), Progress(status="success")]:
                if isinstance(step, EngineError):
                    raise step
                if isinstance(step, Hold):
                    await step.wait()
                    continue
                if step.status == "success":
                    self._add(name)
                    finished = True
                yield step
        finally:
            self.num_ended_early += not finished

    async def push(self, name: str) -> AsyncGenerator[Progress, None]:
        self.jobs.append(("push", name))
        self._found(name)
        for step in (
            Progress(status="retrieving manifest"),
            Progress(status="pushing ababababab", digest=DIGEST, total_bytes=10, done_bytes=10),
            Progress(status="pushing manifest"),
            Progress(status="success"),
        ):
            yield step

    async def create(
        self, name: str, modelfile: str | Sequence[Instruction], *, quantize: str | None = None
    ) -> AsyncGenerator[Progress, None]:
        self.jobs.append(("create", name, *([quantize] if quantize else [])))
        self.modelfiles[name] = modelfile
        yield Progress(status="writing manifest")
        self._add(name)
        yield Progress(status="success")

    async def copy(self, source: str, target: str) -> None:
        self.jobs.append(("copy", source, target))
        self._found(source)
        self._add(target)

    async def delete(self, name: str) -> None:
        self.jobs.append(("delete", name))
        self._model_names.remove(self._found(name))

    async def show(self, name: str) -> ModelDetails:
        found = self._found(name)
        return ModelDetails(
            info=self._info(found),
            modelfile=f"FROM {found}\nSYSTEM be kind\n",
            parameters='temperature 0.5\nstop "END"',
            template="{{ .Prompt }}",
            system="be kind",
            licenses=["MIT"],
            messages=[Message(role="user", parts=[Text("hi")])],
            metadata={"general.architecture": "llama", "tokenizer.ggml.fim_pre_token_id": 7},
        )

    async def listed_name(self, name: str) -> str | None:
        full = name if ":" in name else f"{name}:latest"
        names = {name, full}
        folded = {one.lower() for one in names}
        fitting = [one for one in self._model_names if one.lower() in folded]
        return next((one for one in fitting if one in names), next(iter(fitting), None))

    async def has_blob(self, digest: str) -> bool:
        return digest in self.blobs

    async def add_file(self, path: str, digest: str | None = None) -> str:
        content = await asyncio.to_thread(Path(path).read_bytes)
        found = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if digest not in (None, found):
            raise RequestRefused("another digest", param="digest")
        self.blobs[found] = content
        return found

    def _info(self, name: str) -> ModelInfo:
        return ModelInfo(
            name=name,
            capabilities=self.able,
            context_tokens=self._context_tokens,
            loaded=name in self._loaded,
            memory_bytes=2_000_000 if name in self._loaded else None,
            gpu_bytes=500_000,
            expires_at=self.expires_at,
            size_bytes=1_000_000,
            parameters=8_030_261_248,
            family="llama",
            quantization="q4_0",
            modified_at=1_700_000_000.25,
            digest=DIGEST,
        )

    def _add(self, name: str) -> None:
        if name not in self._model_names:
            self._model_names.append(name)

    def _found(self, name: str) -> str:
        for spelled in (name, f"{name}:latest"):
            if spelled in self._model_names:
                return spelled
        raise ModelNotFound(name)


def _pulling() -> list[Progress]:
    return [
        Progress(status="pulling manifest"),
        Progress(status="pulling abababababab", digest=DIGEST, total_bytes=2_000),
        Progress(status="pulling abababababab", digest=DIGEST, total_bytes=2_000, done_bytes=2_000),
        Progress(status="verifying sha256 digest"),
        Progress(status="writing manifest"),
    ]


MODELS: Mapping[str, str] = {
    "models.toml": """
        [chat-small]
        aliases = ["gpt-4o-mini"]
          [[chat-small.targets]]
          engine = "shelf"
          model  = "scripted-model"

        [bare]
          [[bare.targets]]
          engine = "bare"
          model  = "scripted-model"

        ["*"]
          [["*".targets]]
          engine = "shelf"
    """,
    "engines.toml": '[shelf]\nkind = "scripted"\n[bare]\nkind = "scripted"\nnumber = 1',
}
"""A policy of an engine that keeps models, `shelf`, and one that does not, `bare`."""
