"""An Ollama models folder, laid out by hand, is served through the gateway as it stands."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from gateway.gateway import open_gateway
from tests.engines.gguf.files.test_hugging_face_cache import put as put_in_cache
from tests.engines.gguf.ollama_folder import everything, put_model
from tests.gguf_files import write_gguf
from tests.serving import Server, serving, settings_in

DEV = Path(__file__).parents[2] / "policies" / "dev"
LIBRARY = "registry.ollama.ai/library"
STARTER = Path(__file__).parents[2] / "engines" / "starter" / "starter.gguf"
# In Go, and it says what the model's own template says.
TEMPLATE = (
    b"{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ if .Prompt }}"
    b"<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}<|im_start|>assistant\n{{ .Response }}"
)


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ollama") / "models"
    weights = STARTER.read_bytes()
    put_model(folder, f"{LIBRARY}/chatty/latest", {"model": weights, "template": TEMPLATE})
    put_model(
        folder,
        f"{LIBRARY}/chatty/short",
        {"model": weights, "params": b'{"num_predict":3,"temperature":0}', "license": b"MIT"},
    )
    put_model(folder, "hf.co/Org/Repo-GGUF/Q8_0", {"model": weights})
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    path = write_gguf(folder / "tiny.gguf", layers=1, width=32)
    put_in_cache(folder / "hub", "Org/Tiny-GGUF", "tiny-Q8_0.gguf", path.read_bytes())
    path.unlink()
    return folder / "hub"


@pytest.fixture(scope="module", params=["thread", "process"])
def server(
    ollama: Path,
    hub: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("served")
    shutil.copytree(DEV, directory / "policy")
    with (directory / "policy" / "engines.toml").open("a") as engines:
        engines.write(
            f'num_threads = 1\nisolation = "{request.param}"\n'
            f'ollama_models_dir = "{ollama}"\nhugging_face_cache_dir = "{hub}"\n'
        )
    gateway = open_gateway(settings_in(directory, policy=directory / "policy"))
    with serving(gateway) as running:
        yield running


def chat(server: Server, model: str, **fields: object) -> dict:  # type: ignore[type-arg]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello!"}],
        "temperature": 0,
        **fields,
    }
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_it_is_listed_and_answers_without_a_byte_copied(server: Server, ollama: Path) -> None:
    before = everything(ollama)

    listed = httpx.get(f"{server.url}/v1/models", timeout=30).json()["data"]
    first = chat(server, "chatty")
    again = chat(server, "chatty:latest")
    short = chat(server, "chatty:short")
    other = chat(server, "hf.co/Org/Repo-GGUF:Q8_0")
    plain = chat(server, "starter")
    cached = chat(server, "hf.co/Org/Tiny-GGUF:Q8_0", max_tokens=2)

    names = {model["id"] for model in listed}
    assert {"chatty:latest", "chatty:short", "hf.co/Org/Repo-GGUF:Q8_0", "starter"} <= names
    assert "hf.co/Org/Tiny-GGUF:Q8_0" in names
    answer = first["choices"][0]["message"]["content"]
    assert answer
    for reply in (again, other, plain):
        assert reply["choices"][0]["message"]["content"] == answer
    assert short["choices"][0]["finish_reason"] == "length"
    assert short["usage"]["completion_tokens"] == 3
    assert cached["usage"]["completion_tokens"] == 2
    assert everything(ollama) == before
    assert not (server.gateway.settings.models_dir / "blobs").exists()


async def test_it_is_shown_with_what_its_name_stands_for(ollama: Path, tmp_path: Path) -> None:
    config = GgufConfig(ollama_models_dir=str(ollama))
    engine = GgufEngine("laptop", config, models_dir=tmp_path / "ours", data_dir=tmp_path)
    before = everything(ollama)

    details = await engine.show("chatty:short")
    await engine.close()

    assert details.parameters.splitlines() == ["num_predict 3", "temperature 0"]
    assert details.licenses == ("MIT",)
    assert (details.info.family, details.info.quantization) == ("llama", "q8_0")
    assert details.info.size_bytes is not None
    assert details.info.size_bytes > STARTER.stat().st_size
    assert everything(ollama) == before
