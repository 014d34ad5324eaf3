"""A served gateway with teams, keys and an issuer, to be attacked."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.keys import Keys, open_pepper
from gateway.ledger import open_ledger
from gateway.narrowing import Narrowing
from gateway.settings import Settings
from tests.fakes import ScriptedEngine
from tests.identity_provider import IdentityProvider, identity_provider
from tests.serving import Server, scripted_gateway, serving, settings_in, write_policy

TEAMS = """
[platform]
models    = ["*"]
endpoints = ["*"]

[search]
models    = ["chat-*", "!chat-secret"]
endpoints = ["openai.*"]

[embedders]
models    = ["*"]
endpoints = ["openai.embeddings"]

[office]
models    = ["*"]
endpoints = ["*"]
networks  = ["192.0.2.0/24"]
"""
MODELS = """
[chat-small]
aliases = ["gpt-4o-mini"]
[[chat-small.targets]]
engine = "scripted"
model  = "scripted-model"

[chat-secret]
aliases = ["chat-alias"]
[[chat-secret.targets]]
engine = "scripted"
model  = "scripted-model"

["wild-*"]
[["wild-*".targets]]
engine = "scripted"
"""
OIDC = """
[oidc.issuers.corp]
issuer       = "{url}"
audiences    = ["penstock"]
role_claim   = "roles"
admin_values = ["gate-admin"]
"""
PLUGINS = '"access_log", "api_keys", "oidc", {more}"allow_lists", "defaults", "routing"'


class Gate:
    """The gateway's URL, its issuer, and a key of every kind."""

    def __init__(self, server: Server, provider: IdentityProvider, settings: Settings) -> None:
        self.url = server.url
        self.server = server
        self.provider = provider
        self._settings = settings
        self._client = httpx.Client(timeout=30)

    def key(self, team: str, *, role: str = "member", **narrowing: Any) -> str:
        """A key as another process makes one."""

        async def made() -> str:
            async with (
                open_ledger(self._settings.ledger_url) as ledger,
                Keys(ledger, pepper=open_pepper(self._settings)) as keys,
            ):
                new = await keys.create(
                    team,
                    "a key",
                    role=role,  # type: ignore[arg-type]
                    narrowing=Narrowing(**narrowing),
                )
                return new.secret

        return asyncio.run(made())

    def ask(self, method: str, path: str, key: str | None = None, **options: Any) -> httpx.Response:
        """One request, with the key as a bearer token."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers.setdefault("authorization", f"Bearer {key}")
        url = httpx.URL(self.url).copy_with(raw_path=path.encode())
        return self._client.request(method, url, headers=headers, **options)

    def chat(self, key: str, model: str, **options: Any) -> httpx.Response:
        """One question to a model."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        return self.ask("POST", "/v1/chat/completions", key, json=body, **options)

    def models(self, key: str, **options: Any) -> list[str]:
        """What the caller is told there is."""
        answer = self.ask("GET", "/v1/models", key, **options)
        assert answer.status_code == 200, answer.text
        return [model["id"] for model in answer.json()["data"]]

    def close(self) -> None:
        self._client.close()


@contextmanager
def open_gate(
    directory: Path,
    *,
    more_plugins: str = "",
    tables: str = "",
    **settings: Any,
) -> Iterator[Gate]:
    """Serve until the block ends. `more_plugins` act after the keys and the tokens."""
    with identity_provider() as provider:
        plugins = PLUGINS.format(more=more_plugins)
        files: Mapping[str, str] = {
            "gateway.toml": f"plugins = [{plugins}]\n{OIDC.format(url=provider.url)}\n{tables}",
            "models.toml": MODELS,
            "teams.toml": TEAMS,
            "limits.toml": "[bulk]\nmax_output_tokens = 8",
        }
        given = settings_in(directory, **settings)
        engine = ScriptedEngine.saying("hello there", model_names=("scripted-model", "wild-one"))
        gateway = scripted_gateway(
            write_policy(directory / "policy", files), {"scripted": engine}, settings=given
        )
        with serving(gateway) as server:
            gate = Gate(server, provider, given)
            try:
                yield gate
            finally:
                gate.close()
