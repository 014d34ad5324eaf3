"""A swap while the gateway runs: one line of policy, a reload, and a stream that goes on."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from gateway.gateway import open_gateway
from tests.llama_cpp_server import llama_cpp_server
from tests.serving import Server, serving, settings_in

DEV = Path(__file__).parents[2] / "policies" / "dev"
ASKED = [{"role": "user", "content": "Count from 1 to 20."}]


@contextmanager
def gateway_in(directory: Path, engine: str) -> Iterator[tuple[Server, Path]]:
    directory.mkdir()
    policy = directory / "policy"
    shutil.copytree(DEV, policy)
    (policy / "engines.toml").write_text(f"[laptop]\n{engine}\n")
    with serving(open_gateway(settings_in(directory, policy=policy))) as server:
        yield server, policy / "engines.toml"


def swap(server: Server, engines: Path, engine: str) -> None:
    before = server.gateway.policy.digest
    engines.write_text(f"[laptop]\n{engine}\n")
    server.run(lambda: server.gateway.begin_reload("the test"))
    server.wait_until(lambda: server.gateway.policy.digest != before)


def answer(client: OpenAI) -> tuple[str | None, str, int]:
    reply = client.chat.completions.create(
        model="starter", messages=ASKED, temperature=0, max_tokens=48
    )
    choice = reply.choices[0]
    assert reply.usage is not None
    return choice.message.content, choice.finish_reason, reply.usage.prompt_tokens


@pytest.mark.slow
def test_one_client_is_served_by_each_kind_in_turn_and_its_stream_goes_on(tmp_path: Path) -> None:
    local = "num_threads = 1"
    with (
        llama_cpp_server() as other_server,
        gateway_in(tmp_path / "upstream", f'kind = "gguf"\n{local}') as (upstream, _),
        gateway_in(tmp_path / "gateway", f'kind = "gguf"\n{local}') as (server, engines),
    ):
        client = OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
        answers = [answer(client)]
        stream = client.chat.completions.create(
            model="starter",
            messages=ASKED,
            temperature=0,
            max_tokens=1500,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        chunks = iter(stream)
        pieces = [next(chunks).choices[0].delta.content or "" for _ in range(3)]
        for engine in (
            f'kind = "paged"\n{local}',
            f'kind = "remote"\nbase_url = "{other_server}"',
            f'kind = "remote"\nbase_url = "{upstream.url}/v1"',
        ):
            swap(server, engines, engine)
            answers.append(answer(client))
        last = None
        for chunk in chunks:
            pieces.append(chunk.choices[0].delta.content or "")
            last = chunk.choices[0].finish_reason or last

    assert answers[0][0] == "".join(pieces)[: len(answers[0][0] or "")]
    assert answers == [answers[0]] * 4
    assert last == "length"
