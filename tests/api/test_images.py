"""Images over HTTP to a `gguf` model, in both dialects, in a thread and in a process."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.gguf.native import has_mtmd
from gateway.gateway import open_gateway
from tests.engines.gguf.projector_files import NUM_TOKENS, picture, write_projector
from tests.gguf_files import write_gguf
from tests.serving import Server, serving, settings_in

pytestmark = pytest.mark.skipif(not has_mtmd(), reason="llama.cpp was built without vision")

DEV = Path(__file__).parents[2] / "policies" / "dev"
RED, BLUE = (base64.b64encode(picture(color)).decode() for color in (250, 10))


@pytest.fixture(scope="module", params=["thread", "process"])
def server(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("images")
    models = directory / "gguf"
    models.mkdir()
    write_gguf(models / "seeing.gguf", quantization="f32")
    shutil.copy(models / "seeing.gguf", models / "blind.gguf")
    projector = write_projector(directory / "projector")
    shutil.copytree(DEV, directory / "policy")
    with (directory / "policy" / "engines.toml").open("a") as engines:
        engines.write(
            f'num_threads = 1\nmodels_dir = "{models}"\nisolation = "{request.param}"\n'
            f'[laptop.models."seeing"]\nprojector = "{projector}"\n'
        )
    gateway = open_gateway(settings_in(directory, policy=directory / "policy"))
    with serving(gateway) as running:
        yield running


def openai(server: Server, model: str, *urls: str) -> httpx.Response:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, *parts]}],
        "temperature": 0,
        "max_tokens": 8,
    }
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def data_url(picture: str) -> str:
    return f"data:image/png;base64,{picture}"


def test_pictures_change_the_answer_and_count_as_tokens(server: Server) -> None:
    red, blue, none = (
        openai(server, "seeing", *urls).json() for urls in ([data_url(RED)], [data_url(BLUE)], [])
    )

    answers = {reply["choices"][0]["message"]["content"] for reply in (red, blue, none)}
    tokens = [reply["usage"]["prompt_tokens"] for reply in (red, blue, none)]
    assert len(answers) == 3
    assert tokens == [tokens[2] + NUM_TOKENS, tokens[2] + NUM_TOKENS, tokens[2]]


def test_ollamas_images_are_the_same_pictures(server: Server) -> None:
    def ollama(picture: str) -> Any:
        message = {"role": "user", "content": "look", "images": [picture]}
        body = {"model": "seeing", "messages": [message], "stream": False}
        body["options"] = {"temperature": 0, "num_predict": 8}
        reply = httpx.post(f"{server.url}/api/chat", json=body, timeout=60)
        assert reply.status_code == 200, reply.text
        return reply.json()

    red, again, blue = ollama(RED), ollama(RED), ollama(BLUE)

    assert red["message"]["content"] == again["message"]["content"] != blue["message"]["content"]
    assert red["prompt_eval_count"] > NUM_TOKENS


@pytest.mark.parametrize(
    ("model", "url", "said"),
    [
        ("blind", data_url(RED), "this model cannot read images"),
        ("seeing", data_url(base64.b64encode(b"no picture").decode()), "image"),
        ("seeing", "data:image/png;base64,%%%", "base64"),
        ("seeing", "https://example.com/cat.png", "data"),
    ],
)
def test_a_picture_that_cannot_be_read_is_a_400_that_says_why(
    server: Server, model: str, url: str, said: str
) -> None:
    reply = openai(server, model, url)

    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert said in error["message"]
    assert error["param"].startswith("messages")
