from pathlib import Path

import pytest
from msgspec import Struct

from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from engines.process import EngineSpec


class Folders(Struct, frozen=True):
    """A configuration that holds what TOML does not."""

    weights: Path
    names: frozenset[str] = frozenset({"a"})


def build(name: str, config: Folders, **folders: Path) -> object:
    return name, config, folders


def test_a_configuration_arrives_as_it_was_with_its_folders_absolute() -> None:
    config = Folders(Path("weights/llama"))

    spec = EngineSpec.of(f"{__name__}:build", config, data_dir=Path("data"))

    assert spec.build("gpu0") == ("gpu0", config, {"data_dir": Path("data").absolute()})


def test_a_gguf_engine_is_built_by_its_name() -> None:
    spec = EngineSpec.of(
        "engines.gguf.engine:GgufEngine", GgufConfig(num_slots=3), models_dir=Path("m")
    )

    engine = spec.build("laptop")

    assert isinstance(engine, GgufEngine)
    assert engine.name == "laptop"


def test_what_only_this_process_knows_is_refused_here() -> None:
    with pytest.raises(ValueError, match="must be in modules with names"):
        EngineSpec.of("__main__:build", GgufConfig())


def test_a_value_of_an_unknown_type_is_refused_by_the_child() -> None:
    class Holder(Struct):
        thing: complex

    spec = EngineSpec.of(f"{__name__}:build", Holder(1j))

    with pytest.raises(AttributeError):
        spec.build("gpu0")
