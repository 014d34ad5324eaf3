"""Keeps the models of one engine: what `ModelLibrary` promises, but for unloading them.

Everything that touches files runs in threads; the downloads run on the event
loop of whoever iterates. engine.py offers all this to the gateway.
"""

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from engines.errors import ModelNotFound, RequestRefused, Unavailable
from engines.gguf.catalog import Catalog
from engines.gguf.config import GgufConfig
from engines.gguf.copying import copy_model
from engines.gguf.create import Create
from engines.gguf.details import details_of
from engines.gguf.files.digests import DigestInvalid, parse_digest
from engines.gguf.files.importing import import_file
from engines.gguf.files.in_thread import in_thread
from engines.gguf.files.names import parse_name, shown
from engines.gguf.pull import Pull
from engines.gguf.push import Push
from engines.gguf.registry.credentials import Credentials
from engines.gguf.registry.download import HowToFetch
from engines.gguf.registry.origin import check_host, origin_of
from engines.modelfile_text import Instruction
from engines.protocol import ModelDetails, Progress


class Librarian:
    """Changes the library of a catalog."""

    def __init__(
        self,
        catalog: Catalog,
        config: GgufConfig | None = None,
        *,
        how: HowToFetch | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._catalog = catalog
        self._library = catalog.library
        self._how = how or HowToFetch()
        config = config or GgufConfig()
        self._registries = config.registries
        self._credentials = Credentials(environment, hugging_face_url=config.hugging_face_url)

    async def pull(self, name: str) -> AsyncGenerator[Progress, None]:
        """Fetch a model by name."""
        check_host(origin_of(name), self._registries)
        folder = self._library.writable_folder()
        pull = Pull(folder, name, credentials=self._credentials, how=self._how)
        async with aclosing(pull.steps()) as steps:
            async for step in steps:
                yield step

    async def push(self, name: str) -> AsyncGenerator[Progress, None]:
        """Send a model to a registry."""
        check_host(origin_of(name), self._registries)
        patience = self._how.patience
        push = Push(self._library, name, credentials=self._credentials, patience=patience)
        async with aclosing(push.steps()) as steps:
            async for step in steps:
                yield step

    async def create(
        self, name: str, modelfile: str | Sequence[Instruction], *, quantize: str | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Make a model from a Modelfile; what it is made from is pulled if it is not there."""
        made = Create(self._library, name, modelfile, quantize=quantize, how=self._how)
        for base, missing in (await in_thread(made.missing)).items():
            async with aclosing(self._pulled_base(base, missing)) as steps:
                async for step in steps:
                    yield step
        async with aclosing(made.steps()) as steps:
            async for step in steps:
                yield step

    async def copy(self, source: str, target: str) -> None:
        """Give a model another name."""
        await in_thread(self._copied, source, target)

    async def delete(self, name: str) -> str:
        """Remove a name; returns how it was spelled, for whoever has it loaded."""
        return await in_thread(self._deleted, name)

    async def show(self, name: str) -> ModelDetails:
        """Say everything that a model's files say; not whether it is loaded."""
        return await in_thread(self._shown, name)

    async def listed_name(self, name: str) -> str | None:
        """How the model that `name` means is listed."""
        return await in_thread(self._library.listed_name, name)

    async def has_blob(self, digest: str) -> bool:
        """Whether a file of this digest is there, for `create`."""
        try:
            found = parse_digest(digest)
        except DigestInvalid as error:
            raise RequestRefused(str(error), param="digest") from None
        return await in_thread(self._library.writable_folder().blob(found).is_file)

    async def add_file(self, path: str, digest: str | None = None) -> str:
        """Copy a file of this machine into the library as a blob; returns its digest."""
        try:
            expected = None if digest is None else parse_digest(digest)
        except DigestInvalid as error:
            raise RequestRefused(str(error), param="digest") from None
        folder = self._library.writable_folder()
        found = await in_thread(import_file, folder, Path(path), expected)
        await in_thread(folder.note_handed_over, found)
        return str(found)

    async def _pulled_base(
        self, name: str, missing: ModelNotFound
    ) -> AsyncGenerator[Progress, None]:
        """The steps of a pull without the last, which is not the end of what was asked for."""
        try:
            async with aclosing(self.pull(name)) as steps:
                async for step in steps:
                    if step.status != "success":
                        yield step
        except (ModelNotFound, RequestRefused, Unavailable) as error:
            reason = f"FROM: {missing.message}, and it cannot be pulled: {error.message}"
            if isinstance(error, Unavailable):
                raise Unavailable(reason) from None
            raise RequestRefused(reason, param="modelfile") from None

    def _copied(self, source: str, target: str) -> None:
        self._catalog.check_spelling(source, self._library.look_up(source).name)
        copy_model(self._library, source, target)

    def _deleted(self, text: str) -> str:
        try:
            place = self._library.place_of(parse_name(text))
        except RequestRefused:
            place = None
        if place is None:
            self._library.look_up(text)  # raises for what there is not
            raise RequestRefused(
                f"{shown(text)} is a file that somebody put there and nothing that was pulled or "
                "created: delete the file",
                param="model",
            )
        folder, name = place
        self._catalog.check_spelling(text, name.display)
        folder.remove(name)
        return name.display

    def _shown(self, name: str) -> ModelDetails:
        file = self._library.look_up(name)
        return details_of(file, self._catalog.look_up(name))
