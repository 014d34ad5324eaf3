"""Pulls a model by name into a models folder.

    qwen3:0.6b, HOST/NAMESPACE/MODEL:TAG   a registry like Ollama's (http:// before it: no TLS)
    hf.co/ORG/REPO:QUANT                   a GGUF file of Hugging Face's
    https://…/model.gguf                   any GGUF file

The manifest is written last, when every blob that it names is there: a model is
there whole or not at all. What was fetched stays when a pull ends early, and the
next one goes on from it. Steps are told in Ollama's words.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import aiohttp

from engines.errors import RequestRefused, Unavailable
from engines.gguf.files.digests import Digest, digest_of
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.in_thread import in_thread
from engines.gguf.files.manifests import Layer, Manifest, layer
from engines.gguf.files.names import ModelName
from engines.gguf.new_model import add_text, assembled
from engines.gguf.registry.credentials import Credentials
from engines.gguf.registry.download import Download, HowToFetch
from engines.gguf.registry.hugging_face import HOSTS, HuggingFace
from engines.gguf.registry.origin import Origin, origin_of
from engines.gguf.registry.registry import Registry
from engines.gguf.registry.transfer import OpenRange, Wanted
from engines.gguf.registry.version_tag import version_tag
from engines.gguf.registry.web import Asked, Broken, Refused, Web, explained
from engines.protocol import Progress

_TICK_SECONDS = 0.1


class Pull:
    """One pull into one folder."""

    def __init__(
        self, folder: ModelFolder, text: str, *, credentials: Credentials, how: HowToFetch
    ) -> None:
        """Raises `RequestRefused` for what is no name."""
        self._folder = folder
        self._origin: Origin = origin_of(text)
        self._credentials = credentials
        self._how = how

    @property
    def name(self) -> ModelName:
        """What the model will be called."""
        return self._origin.name

    async def steps(self) -> AsyncGenerator[Progress, None]:
        """Do it, and tell how far it is. Raises any `EngineError`."""
        self._folder.check_writable()
        yield Progress(status="pulling manifest")
        async with Web(self._how.patience) as web:
            if self._origin.url is not None:
                steps = self._of_url(web)
            elif self._origin.name.host.lower() in HOSTS:
                steps = self._of_hugging_face(web)
            else:
                steps = self._of_registry(web)
            async with aclosing(steps):
                async for step in steps:
                    yield step
        yield Progress(status="success")

    async def _of_registry(self, web: Web) -> AsyncGenerator[Progress, None]:
        registry = Registry(web, self.name, self._origin.scheme, self._credentials)
        manifest = await registry.manifest()
        if not manifest.of_kind("model"):
            raise RequestRefused(
                f"{self.name.display!r} at {self.name.host} is no GGUF model: no layer is one",
                param="model",
            )
        self._check_disk(manifest.all_layers)
        async with self._pinned(manifest.digests):
            for wanted in manifest.all_layers:
                async for step in self._fetched(
                    _wanted(wanted),
                    lambda headers, digest=wanted.digest: registry.blob(digest, headers),
                ):
                    yield step
            async for step in self._named(manifest):
                yield step

    async def _of_hugging_face(self, web: Web) -> AsyncGenerator[Progress, None]:
        hub = HuggingFace(web, self.name, self._credentials)
        await hub.list()
        files = {"model": hub.weights()}
        if (projector := hub.projector()) is not None:
            files["projector"] = projector
        layers = [layer(kind, file.digest, file.size_bytes) for kind, file in files.items()]
        extras = await hub.extras()
        self._check_disk(layers)
        wanted = [*(file.digest for file in files.values()), *map(digest_of, extras.values())]
        async with self._pinned(wanted):
            for file, large in zip(files.values(), layers, strict=True):
                async for step in self._fetched(
                    _wanted(large), lambda headers, file=file: web.open(hub.asked(file, headers))
                ):
                    yield step
        async for step in self._assembled(layers, extras):
            yield step

    async def _of_url(self, web: Web) -> AsyncGenerator[Progress, None]:
        url = self._origin.url
        assert url is not None
        wanted = await self._described(web)

        def open_range(
            headers: Mapping[str, str],
        ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
            return web.open(Asked(url=url, headers=headers))

        found: list[Digest] = []
        async for step in self._fetched(wanted, open_range, found=found, label=url.name):
            yield step
        async for step in self._assembled([layer("model", found[0], wanted.size_bytes)], {}):
            yield step

    async def _described(self, web: Web) -> Wanted:
        """How long the file behind a URL is, and which version of it."""
        url = self._origin.url
        assert url is not None
        try:
            async with web.open(Asked(url=url, headers={"Range": "bytes=0-0"})) as response:
                size = response.headers.get("Content-Range", "").rpartition("/")[2]
                if response.status != 206:
                    size = response.headers.get("Content-Length", "")
                tag = version_tag(response.headers)
        except Refused as error:
            raise explained(error, str(url), str(url.host)) from None
        except Broken as error:
            raise Unavailable(str(error)) from None
        if not size.isdecimal() or len(size) > 18:
            raise Unavailable(f"{url.host} does not say how long {url.name!r:.200} is")
        key = f"url-{digest_of(str(url).encode()).hexadecimal}"
        return Wanted(key=key, size_bytes=int(size), tag=tag)

    async def _fetched(
        self,
        wanted: Wanted,
        open_range: OpenRange,
        *,
        found: list[Digest] | None = None,
        label: str | None = None,
    ) -> AsyncGenerator[Progress, None]:
        """Download one file, telling how far it is; `found` gets its digest."""
        download = Download(self._folder, wanted, open_range, self._how)
        running = asyncio.create_task(download.run())
        status = f"pulling {wanted.digest.short if wanted.digest else label}"
        told: Progress | None = None
        try:
            while True:
                done, _ = await asyncio.wait({running}, timeout=_TICK_SECONDS)
                step = _step(status, wanted, download.total_bytes if done else download.done_bytes)
                if done:
                    digest = running.result()
                    if found is not None:
                        found.append(digest)
                elif download.is_verifying:
                    step = Progress(status="verifying sha256 digest")
                if step != told:
                    told = step
                    yield step
                if done:
                    return
        finally:
            running.cancel()
            await asyncio.wait({running})

    async def _assembled(
        self, files: Sequence[Layer], extras: Mapping[str, bytes]
    ) -> AsyncGenerator[Progress, None]:
        """Make a manifest for files that came without one."""
        digests = [*(file.digest for file in files), *map(digest_of, extras.values())]
        try:
            async with self._pinned(digests):
                more = [
                    await in_thread(add_text, self._folder, kind, text)
                    for kind, text in extras.items()
                ]
                manifest = await in_thread(assembled, self._folder, [*files, *more], {})
                async for step in self._named(manifest):
                    yield step
        except RequestRefused:
            await in_thread(self._folder.discard, digests)
            raise

    async def _named(self, manifest: Manifest) -> AsyncGenerator[Progress, None]:
        yield Progress(status="verifying sha256 digest")
        missing = [layer for layer in manifest.all_layers if not self._folder.has(layer)]
        if missing:
            raise Unavailable(f"blob {missing[0].digest} has gone while the model was pulled")
        yield Progress(status="writing manifest")
        await in_thread(self._folder.write_manifest, self.name, manifest)

    @asynccontextmanager
    async def _pinned(self, digests: Iterable[Digest]) -> AsyncGenerator[None]:
        pin = self._folder.pin(digests)
        try:
            await in_thread(pin.take)
            yield
        finally:
            pin.release()

    def _check_disk(self, layers: Sequence[Layer]) -> None:
        missing = sum(layer.size_bytes for layer in layers if not self._folder.has(layer))
        self._how.check_disk(self._folder.blobs, missing - self._partly_there(layers))

    def _partly_there(self, layers: Sequence[Layer]) -> int:
        """What earlier pulls have fetched of these already."""
        paths = (self._folder.blobs / f"{layer.digest.file_name}-partial" for layer in layers)
        return sum(path.stat().st_blocks * 512 for path in paths if path.is_file())


def _wanted(layer: Layer) -> Wanted:
    return Wanted(key=layer.digest.file_name, size_bytes=layer.size_bytes, digest=layer.digest)


def _step(status: str, wanted: Wanted, done_bytes: int) -> Progress:
    return Progress(
        status=status,
        digest=str(wanted.digest) if wanted.digest else None,
        done_bytes=done_bytes,
        total_bytes=wanted.size_bytes,
    )
