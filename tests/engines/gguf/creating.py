"""Models made in tests, in a folder of their own."""

from pathlib import Path

from engines.gguf.catalog import Catalog
from engines.gguf.config import GgufConfig
from engines.gguf.create import Create
from engines.gguf.files.digests import Digest
from engines.gguf.files.importing import import_file
from engines.gguf.librarian import Librarian
from engines.gguf.library import Library
from engines.gguf.registry.download import HowToFetch
from engines.protocol import ModelDetails, Progress


def library_of(folder: Path) -> Library:
    return Library(folder, {})


def blob_of(folder: Path, path: Path) -> Digest:
    """Hand a file over, as a client does before it creates."""
    models = library_of(folder).writable_folder()
    digest = import_file(models, path)
    models.note_handed_over(digest)
    return digest


async def created(
    folder: Path,
    name: str,
    modelfile: str,
    *,
    quantize: str | None = None,
    how: HowToFetch | None = None,
) -> list[Progress]:
    """All steps of a making that succeeds."""
    made = Create(library_of(folder), name, modelfile, quantize=quantize, how=how)
    return [step async for step in made.steps()]


async def shown(folder: Path, name: str) -> ModelDetails:
    return await Librarian(Catalog(folder, GgufConfig())).show(name)


def statuses(steps: list[Progress]) -> list[str]:
    """What was said, each run of the same once."""
    said = [step.status for step in steps]
    return [text for place, text in enumerate(said) if not place or said[place - 1] != text]
