"""What a gateway's process asks of an engine's child that keeps model files."""

from collections.abc import AsyncGenerator, Sequence

from msgspec import Struct

from engines.errors import Unsupported
from engines.modelfile_text import Instruction
from engines.protocol import Engine, ModelLibrary, Progress


class Copy(Struct, frozen=True, tag="copy"):
    """Answered with None."""

    source: str
    target: str


class Delete(Struct, frozen=True, tag="delete"):
    """Answered with None."""

    name: str


class Show(Struct, frozen=True, tag="show"):
    """Answered with `ModelDetails`."""

    name: str


class ListedName(Struct, frozen=True, tag="listed_name"):
    """Answered with a name; empty if there is none."""

    name: str


class HasBlob(Struct, frozen=True, tag="has_blob"):
    """Answered with a bool."""

    digest: str


class AddFile(Struct, frozen=True, tag="add_file"):
    """Answered with the file's digest."""

    path: str
    digest: str | None


LibraryQuestion = Copy | Delete | Show | ListedName | HasBlob | AddFile


# Answered with a `Progress` for each step, and None at the end.


class Pull(Struct, frozen=True, tag="pull"):
    """See `ModelLibrary.pull`."""

    name: str


class Push(Struct, frozen=True, tag="push"):
    """See `ModelLibrary.push`."""

    name: str


class Create(Struct, frozen=True, tag="create"):
    """See `ModelLibrary.create`."""

    name: str
    modelfile: str | Sequence[Instruction]
    quantize: str | None = None


Job = Pull | Push | Create


async def answer_of(engine: Engine, question: LibraryQuestion) -> object:
    """What the engine answers. Raises any `EngineError`."""
    library = _library(engine)
    match question:
        case Copy(source, target):
            return await library.copy(source, target)
        case Delete(name):
            return await library.delete(name)
        case Show(name):
            return await library.show(name)
        case ListedName(name):
            return await library.listed_name(name) or ""
        case HasBlob(digest):
            return await library.has_blob(digest)
        case AddFile(path, digest):
            return await library.add_file(path, digest)


def steps_of(engine: Engine, job: Job) -> AsyncGenerator[Progress, None]:
    """The steps of a job. Raises `Unsupported`."""
    library = _library(engine)
    match job:
        case Pull(name):
            return library.pull(name)
        case Push(name):
            return library.push(name)
        case Create(name, modelfile, quantize):
            return library.create(name, modelfile, quantize=quantize)


def _library(engine: Engine) -> ModelLibrary:
    if not isinstance(engine, ModelLibrary):
        raise Unsupported(f"engine {engine.name!r} keeps no model files")
    return engine
