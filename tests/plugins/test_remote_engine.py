from pathlib import Path

import httpx
import pytest

from engines.protocol import Capability, GenerateRequest
from gateway.engine_registry import EngineStartFailed
from gateway.gateway import Gateway
from gateway.hooks import read_policy
from gateway.policy.load import PolicyInvalid
from tests.api.remote_stage import POLICY
from tests.fakes import ScriptedEngine, Step
from tests.serving import (
    SCRIPTED_POLICY,
    ScriptedConfig,
    serving,
    settings_in,
    write_policy,
)
from tests.upstream import CHAT, answering, chunk, playing, sending, streaming

URL = 'base_url = "http://127.0.0.1:9/v1"'


def written(directory: Path, engine: str) -> Path:
    files = {
        **POLICY,
        "engines.toml": f'[up]\nkind = "remote"\n{engine}\n',
        "models.toml": '[m]\n[[m.targets]]\nengine = "up"\n',
    }
    return write_policy(directory / "policy", files)


def problems(directory: Path, engine: str) -> str:
    with pytest.raises(PolicyInvalid) as refusal:
        read_policy(written(directory, engine))
    return "\n".join(refusal.value.problems)


def test_a_policy_with_everything_in_it_loads(tmp_path: Path) -> None:
    policy = read_policy(
        written(
            tmp_path,
            f"""{URL}
            api_key = {{ env = "UP_KEY" }}
            headers = {{ x-tag = "blue" }}
            secret_headers = {{ api-key = {{ file = "key" }} }}
            models = ["*", "!x"]
            context_tokens = {{ "qwen/small" = 32768 }}
            capabilities = {{ "qwen/small" = ["chat", "tools"] }}
            passthrough = ["responses", "GET responses/*"]
            pass_headers = ["openai-beta"]
            return_headers = ["x-cost"]
            allow_networks = ["127.0.0.0/8"]
            allow_private = false
            max_tokens_field = "max_completion_tokens"
            """,
        )
    )

    config = policy.engines["up"].config
    assert config.api_key.env == "UP_KEY"
    assert Path(config.secret_headers["api-key"].file) == tmp_path / "policy" / "key"
    assert config.context_tokens == {"qwen/small": 32768}
    assert config.capabilities == {"qwen/small": (Capability.CHAT, Capability.TOOLS)}


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ("", '"base_url" is missing'),
        (f'{URL}\napi_key = "sk-literal-12345678"', "a secret is never written in a policy"),
        (f'{URL}\nsecret_headers = {{ a = "sk-x" }}', "a secret is never written in a policy"),
        (f"{URL}\nidel_seconds = 3", 'did you mean "idle_seconds"'),
        (f"{URL}\nidle_seconds = 0", "idle_seconds is 0"),
        (f'{URL}\ncapabilities = {{ a = ["see"] }}', '"see" is not one of "chat"'),
        ('base_url = "https://u:p@h/v1"', "base_url holds a password"),
        ('base_url = "http://169.254.169.254/v1"', "no upstream may have"),
        (f'{URL}\npass_headers = ["Cookie"]', "never passed on"),
        (f'{URL}\npassthrough = ["../x"]', "passthrough has"),
    ],
)
def test_what_is_wrong_in_a_policy_is_told(tmp_path: Path, engine: str, told: str) -> None:
    found = problems(tmp_path, engine)

    assert told in found
    assert "sk-literal" not in found


async def test_a_secret_that_is_missing_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    policy = read_policy(written(tmp_path, f'{URL}\napi_key = {{ env = "PENSTOCK_TEST_NO_KEY" }}'))

    with pytest.raises(EngineStartFailed, match=r"'up' did not start.*PENSTOCK_TEST_NO_KEY"):
        async with Gateway(settings_in(tmp_path), policy).running():
            pass


def test_an_upstreams_models_are_found_and_told_with_kind_and_context(tmp_path: Path) -> None:
    listed = {"data": [{"id": "qwen/small", "max_model_len": 1234}, {"id": "qwen/secret"}]}
    with playing() as upstream:
        upstream.scene = answering(listed)
        files = {
            **POLICY,
            "engines.toml": f'[up]\nkind = "remote"\nbase_url = "{upstream.base_url}"\n'
            'models = ["qwen/*", "!*secret"]',
            "models.toml": '["*"]\n[["*".targets]]\nengine = "up"\n'
            '[named]\n[[named.targets]]\nengine = "up"\nmodel = "qwen/small"\n',
        }
        gateway = Gateway(
            settings_in(tmp_path), read_policy(write_policy(tmp_path / "policy", files))
        )
        with serving(gateway) as server:
            models = httpx.get(f"{server.url}/v1/models").json()["data"]
            tags = httpx.get(f"{server.url}/api/tags").json()["models"]
            shown = httpx.post(f"{server.url}/api/show", json={"model": "named"}).json()
            upstream.scene = answering(CHAT)
            body = {"model": "qwen/small", "messages": []}
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
            body = {"model": "qwen/secret", "messages": []}
            refused = httpx.post(f"{server.url}/v1/chat/completions", json=body)

    assert {model["id"] for model in models} == {"named", "qwen/small"}
    assert {(model["kind"], model["context_length"]) for model in models} == {("remote", 1234)}
    assert not any("capabilities" in model for model in models)  # nobody has told them
    assert not any("capabilities" in tag for tag in tags)
    assert "capabilities" not in shown
    assert (answer.status_code, refused.status_code) == (200, 404)


MIXED = {
    "gateway.toml": """
        plugins = ["anonymous", "allow_lists", "defaults", "routing", "remote_engine"]
        [anonymous]
        team = "me"
    """,
    "models.toml": """
        [local-first]
          [[local-first.targets]]
          engine = "scripted"
          model  = "scripted-model"
          [[local-first.fallbacks]]
          engine = "up"
          model  = "upstream-model"

        [remote-first]
          [[remote-first.targets]]
          engine = "up"
          model  = "upstream-model"
          [[remote-first.fallbacks]]
          engine = "scripted"
          model  = "scripted-model"

        [both]
          [[both.targets]]
          engine = "up"
          model  = "upstream-model"
          [[both.targets]]
          engine = "scripted"
          model  = "scripted-model"
    """,
}


def mixed_gateway(directory: Path, url: str, engine: ScriptedEngine) -> Gateway:
    # Read by hand what scripted_gateway reads, with the kind `remote` beside `scripted`.
    from gateway.hooks import hooks_of, installed_plugins, table_of
    from gateway.policy.load import load_policy
    from plugins.remote_engine import RemoteEnginePolicy

    engines = (
        f'[scripted]\nkind = "scripted"\n[up]\nkind = "remote"\nbase_url = "{url}"\n'
        "refresh_seconds = 0"
    )
    files = {**SCRIPTED_POLICY, **MIXED, "engines.toml": engines}
    plugins = installed_plugins()
    policy = load_policy(
        write_policy(directory / "policy", files),
        plugin_tables={name: table_of(plugin) for name, plugin in plugins.items()},
        engine_configs={"scripted": ScriptedConfig, "remote": RemoteEnginePolicy},
        hooks_of={name: hooks_of(plugin) for name, plugin in plugins.items()},
    )
    gateway = Gateway(settings_in(directory), policy)
    gateway.registry.add("scripted", config=ScriptedConfig, build=lambda *_: engine)
    return gateway


def test_a_model_on_engines_of_two_kinds_is_served_by_either(tmp_path: Path) -> None:
    def script(request: GenerateRequest) -> list[Step]:
        return ["said ", "here"]

    engine = ScriptedEngine(script)
    with (
        playing() as upstream,
        serving(mixed_gateway(tmp_path, upstream.base_url, engine)) as one,
        httpx.Client(base_url=one.url, timeout=30) as client,
    ):

        def chat(model: str, **fields: object) -> httpx.Response:
            body = {"model": model, "messages": [{"role": "user", "content": "x"}], **fields}
            return client.post("/v1/chat/completions", json=body)

        models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
        local = chat("local-first")
        passed_on = chat("remote-first")
        several = chat("remote-first", n=2)
        unknown = chat("remote-first", top_a=1)
        upstream.scene = sending()
        fallen_back = chat("remote-first", stream=True)
        upstream.scene = streaming(chunk("there"), chunk())
        both = chat("remote-first", stream=True, n=2)

    assert (models["local-first"]["kind"], models["remote-first"]["kind"]) == ("scripted", "remote")
    assert (models["both"]["kind"], models["both"]["kinds"]) == ("remote", ["remote", "scripted"])
    assert "kinds" not in models["local-first"]
    assert local.json()["choices"][0]["message"]["content"] == "said here"
    # Where some target could not take it, a body is held to this gateway's own fields...
    assert unknown.status_code == 400
    assert unknown.json()["error"]["param"] == "top_a"
    # ...but goes on as it is, and so does the answer.
    assert passed_on.json() == {**CHAT, "model": "remote-first"}
    assert "said " in fallen_back.text
    # Several choices are several requests, each of which may be answered by another target.
    texts = [choice["message"]["content"] for choice in several.json()["choices"]]
    assert texts == ["said here"] * 2
    assert both.text.count('"content":"there"') == 2
