"""Says how a child process builds its engine: by import paths and plain data.

Functions and objects do not cross the wire, and nothing is ever unpickled: the
child imports what the parent names and reads the configuration as msgpack.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engines.protocol import Engine


class EngineSpec(Struct, frozen=True, kw_only=True):
    """What `build` needs in a process that knows nothing yet."""

    factory: str  # "module:name", called as factory(name, config, **folders)
    config_type: str  # "module:name" of the configuration's Struct
    config: bytes
    folders: dict[str, str]

    @classmethod
    def of(cls, factory: str, config: Struct, **folders: Path) -> "EngineSpec":
        """A spec for `factory`, an import path; it is given `folders` as keywords."""
        if "__main__" in (type(config).__module__, factory.partition(":")[0]):
            raise ValueError(f"{factory} and its configuration must be in modules with names")
        return cls(
            factory=factory,
            config_type=f"{type(config).__module__}:{type(config).__qualname__}",
            config=msgspec.msgpack.encode(config, enc_hook=str),
            # The child has the same working directory today; an absolute path needs no such luck.
            folders={name: str(folder.absolute()) for name, folder in folders.items()},
        )

    def build(self, name: str) -> Engine:
        """Import the factory and make the engine; raises what they raise."""
        config = msgspec.msgpack.decode(
            self.config, type=_imported(self.config_type), dec_hook=_path
        )
        folders = {folder: Path(path) for folder, path in self.folders.items()}
        engine: Engine = _imported(self.factory)(name, config, **folders)
        return engine


def _imported(path: str) -> Any:
    module, _, names = path.partition(":")
    found: Any = import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} cannot be sent to an engine's process")
