"""What a policy says of memory and keep-alive holds for calls over HTTP, in a thread or a process."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.gateway import open_gateway
from tests.gguf_files import write_gguf
from tests.serving import Server, serving, settings_in, write_policy

POLICY = {
    "gateway.toml": """
        plugins = [
          "anonymous", "api_keys", "allow_lists", "defaults", "routing", "rate_limits", "metrics",
          "gguf_engine",
        ]
        [anonymous]
        team = "me"
        role = "admin"
    """,
    "models.toml": """
        ["*"]
          [["*".targets]]
          engine = "laptop"
    """,
    # So that the prompt is counted before it is answered.
    "limits.toml": "[none]\ntokens_per_minute = 1_000_000",
}


@contextmanager
def served(folder: Path, engine: str) -> Iterator[Server]:
    common = '[laptop]\nkind = "gguf"\nnum_threads = 1\nprobe = false\ncontext_tokens = 256\n'
    policy = write_policy(folder / "policy", {**POLICY, "engines.toml": common + engine})
    models = folder / "models"
    models.mkdir()
    for seed, name in enumerate("ab"):
        write_gguf(models / f"{name}.gguf", seed=seed)
    with serving(open_gateway(settings_in(folder, policy=policy))) as server:
        yield server


def ask(server: Server, model: str) -> httpx.Response:
    body = {"model": model, "prompt": "hello", "max_tokens": 3}
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)


def loaded(server: Server) -> set[str]:
    told: dict[str, Any] = httpx.get(f"{server.url}/admin/models", timeout=60).json()
    return {model["name"] for model in told["models"] if model["loaded"]}


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_models_own_keep_alive_holds_and_it_is_loaded_once_for_each_call(
    tmp_path: Path, isolation: str
) -> None:
    engine = f"""
        isolation = "{isolation}"
        [laptop.models.a]
        keep_alive_seconds = 0
        [laptop.models.b]
        keep_alive_seconds = -1
    """
    with served(tmp_path, engine) as server:
        for model in ("b", "a", "a"):
            assert ask(server, model).status_code == 200

        deadline = time.monotonic() + 20
        while loaded(server) != {"b"} and time.monotonic() < deadline:
            pass
        assert loaded(server) == {"b"}
        metrics = httpx.get(f"{server.url}/metrics").text
        loads = re.findall(r'penstock_model_load_seconds_count{.*model_name="(.)".*} (\S+)', metrics)
        assert dict(loads) == {"a": "2.0", "b": "1.0"}


def test_a_model_too_large_for_the_budget_is_a_503_that_says_what_to_change(
    tmp_path: Path,
) -> None:
    with served(tmp_path, "max_memory_bytes = 100_000\n") as server:
        reply = ask(server, "a")

    assert reply.status_code == 503
    message = reply.json()["error"]["message"]
    assert "model 'a' needs" in message
    assert "may take 97.7 KiB: raise max_memory_bytes" in message
