"""An OpenID Connect issuer for tests: real HTTP on loopback, real keys, any mistake on demand.

with identity_provider() as provider:
    token = provider.token(team="search")
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

Key = RSAKey | ECKey | OKPKey
Answer = tuple[int, Mapping[str, str], bytes]

AUDIENCE = "penstock"


@lru_cache(maxsize=16)
def rsa_key(name: str) -> RSAKey:
    """The RSA key of this name, made once: making one takes a while."""
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig"}, private=True)


@lru_cache(maxsize=16)
def ec_key(name: str, curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve, {"kid": name, "use": "sig"}, private=True)  # type: ignore[arg-type]


def b64(value: Any) -> str:
    """What stands between the dots of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: Mapping[str, Any], payload: Any, key: Key) -> str:
    """A token of any header and payload, signed as the header's `alg` says, or as RS256."""
    algorithm = header.get("alg") if header.get("alg") in ("ES256", "PS256", "Ed25519") else "RS256"
    content = f"{b64(dict(header))}.{b64(payload)}"
    signature = jws.JWSRegistry.algorithms[algorithm].sign(content.encode(), key)
    return f"{content}.{b64(signature)}"


class IdentityProvider:
    """One issuer. `answers` replaces what a path answers; `requests` counts who asked for what."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key: Key = rsa_key("first")
        self.published: list[dict[str, Any]] = [public(self.key)]
        self.answers: dict[str, Callable[[], Answer]] = {}
        self.requests: list[str] = []

    @property
    def jwks_requests(self) -> int:
        return self.requests.count("/keys")

    def rotate(self, key: Key, *, keeps_old: bool = False) -> None:
        """Sign with another key from now on."""
        old = self.published if keeps_old else []
        self.key = key
        self.published = [*old, public(key)]

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "iat": now,
            "exp": now + 600,
            "team": "search",
        } | changes
        return {name: value for name, value in claims.items() if value is not None}

    def header(self, **changes: Any) -> dict[str, Any]:
        algorithm = "ES256" if isinstance(self.key, ECKey) else "RS256"
        header = {"alg": algorithm, "kid": self.key.kid, "typ": "JWT"} | changes
        return {name: value for name, value in header.items() if value is not None}

    def token(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A good token, but for what is changed; None leaves a claim out."""
        return signed(self.header(**(header or {})), self.claims(**claims), self.key)

    def fails(self, status: int = 500) -> None:
        """Answer nothing but errors from now on."""
        for path in ("/keys", "/.well-known/openid-configuration"):
            self.answers[path] = lambda: (status, {}, b"{}")

    def answer(self, path: str) -> Answer:
        self.requests.append(path)
        if path in self.answers:
            return self.answers[path]()
        documents: dict[str, Any] = {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "id_token_signing_alg_values_supported": ["none", "HS256", "RS256"],
            },
            "/keys": {"keys": self.published},
        }
        if path not in documents:
            return 404, {}, b""
        return 200, {"content-type": "application/json"}, json.dumps(documents[path]).encode()


def public(key: Key, **changes: Any) -> dict[str, Any]:
    """A key as it is published."""
    return {**key.as_dict(private=False), **changes}


@contextmanager
def identity_provider() -> Iterator[IdentityProvider]:
    """An issuer that answers until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = provider.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider = IdentityProvider(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
