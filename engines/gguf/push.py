"""Pushes a model of a folder to a registry, which then has it under the same name."""

from collections.abc import AsyncGenerator
from pathlib import Path

import structlog

from engines.errors import ModelNotFound, RequestRefused, Unavailable
from engines.gguf.files.in_thread import in_thread
from engines.gguf.files.manifests import Layer
from engines.gguf.files.names import DEFAULT_HOST, shown
from engines.gguf.library import Library
from engines.gguf.registry.credentials import Credentials
from engines.gguf.registry.hugging_face import HOSTS
from engines.gguf.registry.origin import origin_of
from engines.gguf.registry.registry import Registry, UploadLost
from engines.gguf.registry.web import Patience, Web
from engines.protocol import Progress

log = structlog.get_logger()

PIECE_BYTES = 16 * 1024 * 1024
_MAX_UPLOADS = 3  # of one blob, where the registry loses them


class Push:
    """One push of one name."""

    def __init__(
        self, library: Library, text: str, *, credentials: Credentials, patience: Patience
    ) -> None:
        """Raises `RequestRefused` for what cannot be pushed, `ModelNotFound` for what is not."""
        self._origin = origin_of(text)
        self._credentials = credentials
        self._patience = patience
        name = self._origin.name
        if self._origin.url is not None or name.host.lower() in (DEFAULT_HOST, *HOSTS):
            raise RequestRefused(
                f"{shown(text)} cannot be pushed: that takes a registry of your own, named first, "
                "as in registry.example.com/team/model",
                param="model",
            )
        place = library.place_of(name)
        if place is None or place[1].display != name.display:
            raise ModelNotFound(
                text, f"there is no model {shown(name.display)}: copy one to this name first"
            )
        self._folder, self._spelled = place

    async def steps(self) -> AsyncGenerator[Progress, None]:
        """Do it, and tell how far it is. Raises any `EngineError`."""
        yield Progress(status="retrieving manifest")
        manifest = await in_thread(self._folder.read, self._spelled)
        async with Web(self._patience) as web:
            registry = Registry(web, self._origin.name, self._origin.scheme, self._credentials)
            for layer in manifest.all_layers:
                async for step in self._pushed(registry, layer):
                    yield step
            yield Progress(status="pushing manifest")
            await registry.put_manifest(manifest)
        yield Progress(status="success")

    async def _pushed(self, registry: Registry, layer: Layer) -> AsyncGenerator[Progress, None]:
        if await registry.has(layer):
            yield _step(layer, layer.size_bytes)
            return
        if not await in_thread(self._folder.check, layer):
            raise Unavailable(
                f"blob {layer.digest} is missing here or is not what its name says; pull or "
                "create the model again"
            )
        for attempt in range(1, _MAX_UPLOADS + 1):
            try:
                async for step in self._uploaded(registry, layer):
                    yield step
                return
            except UploadLost as lost:
                if attempt == _MAX_UPLOADS:
                    raise Unavailable(str(lost)) from None
                log.warning("upload_began_anew", digest=str(layer.digest), reason=str(lost))

    async def _uploaded(self, registry: Registry, layer: Layer) -> AsyncGenerator[Progress, None]:
        yield _step(layer, 0)
        path = self._folder.blob(layer.digest)
        place = await registry.begin_upload()
        sent = 0
        while sent < layer.size_bytes:
            piece = await in_thread(_read_at, path, sent)
            if not piece:
                raise Unavailable(f"blob {layer.digest} has become shorter while it was pushed")
            place = await registry.upload(place, sent, piece)
            sent += len(piece)
            yield _step(layer, sent)
        await registry.end_upload(place, layer.digest)


def _step(layer: Layer, done_bytes: int) -> Progress:
    return Progress(
        status=f"pushing {layer.digest.short}",
        digest=str(layer.digest),
        done_bytes=done_bytes,
        total_bytes=layer.size_bytes,
    )


def _read_at(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(PIECE_BYTES)
