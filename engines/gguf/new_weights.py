"""Makes the weights of a new model: of a checkpoint's files, and smaller ones of whole ones.

The work is done by children (child_work.py). What is being made lies in the folder without
a name, and is gone when it is given up.
"""

import re
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from engines.errors import RequestRefused
from engines.gguf.child_work import Far, work_in_child
from engines.gguf.conversion.order import AdapterOrder, ConvertOrder
from engines.gguf.files.digests import Digest
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.importing import keep, unfinished
from engines.gguf.files.in_thread import in_thread
from engines.gguf.header import MalformedGguf, read_header
from engines.gguf.quantizing import check_source, quantize
from engines.gguf.registry.download import HowToFetch
from engines.protocol import Progress

MAX_FILES = 2000
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_MEMORY_BYTES = 6 * 1024**3
_MEMORY_FACTOR = 2  # all files are mapped; one tensor at a time is copied


class NewWeights:
    """The weights of one model in the making; `digest` is there when `steps` has ended."""

    def __init__(self, folder: ModelFolder, how: HowToFetch) -> None:
        self.digest: Digest | None = None
        self._folder = folder
        self._how = how

    async def converted(
        self, files: Mapping[str, Digest], name: str, quantization: str | None
    ) -> AsyncGenerator[Progress, None]:
        """Convert a checkpoint, whose files are blobs, and quantize it if asked to."""
        sizes = [self._folder.blob(digest).stat().st_size for digest in files.values()]
        self._how.check_disk(self._folder.blobs, sum(sizes) * (2 if quantization else 1))
        memory_bytes = sum(sizes) * _MEMORY_FACTOR + _MEMORY_BYTES
        async with _making(self._folder) as target, _laid_out(self._folder, files) as folder:
            order = ConvertOrder(str(folder), str(target), name)
            steps = work_in_child("engines.gguf.conversion", order, memory_bytes=memory_bytes)
            async with aclosing(steps):
                async for far in steps:
                    yield _progress("converting model", far)
            if quantization is not None:
                async with aclosing(self.quantized(target, quantization)) as more:
                    async for step in more:
                        yield step
            if self.digest is None:
                self.digest = await in_thread(keep, self._folder, target)

    async def quantized(self, source: Path, quantization: str) -> AsyncGenerator[Progress, None]:
        """Quantize a file; one that is so already stays as it is, and `digest` None."""
        header = await in_thread(read_header, source)
        if header.quantization.upper() == quantization:
            return
        check_source(header, quantization)
        self._how.check_disk(self._folder.blobs, header.size_bytes)
        status = f"quantizing {header.quantization.upper()} model to {quantization}"
        async with _making(self._folder) as target:
            async with aclosing(quantize(source, target, quantization)) as steps:
                async for far in steps:
                    yield _progress(status, far)
            try:
                await in_thread(read_header, target)
            except MalformedGguf as error:
                raise RequestRefused(
                    f"the model cannot be made {quantization}: {error.message}", param="quantize"
                ) from None
            self.digest = await in_thread(keep, self._folder, target)

    async def adapter(
        self, files: Mapping[str, Digest], base: Path
    ) -> AsyncGenerator[Progress, None]:
        """Convert an adapter that PEFT wrote, for the model in `base`."""
        sizes = [self._folder.blob(digest).stat().st_size for digest in files.values()]
        self._how.check_disk(self._folder.blobs, 2 * sum(sizes))
        memory_bytes = sum(sizes) * _MEMORY_FACTOR + _MEMORY_BYTES
        async with _making(self._folder) as target, _laid_out(self._folder, files) as folder:
            order = AdapterOrder(str(folder), str(base), str(target))
            module = "engines.gguf.conversion.adapter"
            async with aclosing(work_in_child(module, order, memory_bytes=memory_bytes)) as steps:
                async for far in steps:
                    yield _progress("converting adapter", far)
            self.digest = await in_thread(keep, self._folder, target)


def check_file_name(name: str) -> None:
    """Raise `RequestRefused` for what is no plain name of a file."""
    if not _FILE_NAME.fullmatch(name):
        raise RequestRefused(
            f"{name!r:.100} is not the plain name of a file, such as model.safetensors",
            param="modelfile",
        )


@asynccontextmanager
async def _making(folder: ModelFolder) -> AsyncGenerator[Path]:
    with unfinished(folder) as path:
        yield path


@asynccontextmanager
async def _laid_out(folder: ModelFolder, files: Mapping[str, Digest]) -> AsyncGenerator[Path]:
    """A folder where blobs have the names of a checkpoint's files."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as made:
        for name, digest in files.items():
            check_file_name(name)
            (Path(made) / name).symlink_to(folder.blob(digest).resolve())
        yield Path(made)


def _progress(status: str, far: Far) -> Progress:
    return Progress(status=status, done_bytes=far.done_bytes, total_bytes=far.total_bytes)
