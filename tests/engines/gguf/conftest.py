from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gguf_files import write_gguf


@pytest.fixture
def save(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(content: bytes) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return save


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    # As wide as it takes for rounding to show: see test_sixteen_at_once.
    write_gguf(
        folder / "random.gguf",
        layers=3,
        width=256,
        heads=8,
        kv_heads=4,
        feed_forward=704,
        context_tokens=1024,
        extra_tokens=700,
    )
    return folder
