"""Writes requests as bytes: what an upstream reads before the body.

A client chooses the values of some headers and the query of some paths. None of
that can end a line early: a request is one request, whatever is in it (RFC 9112,
11.1 and 11.2).
"""

import re
import string
from collections.abc import Mapping
from time import monotonic
from urllib.parse import quote, urlsplit

from msgspec import Struct

from engines.errors import RequestRefused, Unavailable
from engines.remote.config import RemoteConfig

CREDENTIAL_SECONDS = 10.0  # a new secret is used after this long at most

# Their heads are made once. Any other path is a caller's, and there is no end to those.
KNOWN_PATHS = ("chat/completions", "completions", "embeddings", "rerank")

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_METHOD = re.compile(r"[A-Z]+")
_PATH = re.compile(r"[A-Za-z0-9_.:~%@+/-]+")
_QUERY_CHARACTERS = string.punctuation.replace("#", "")
_QUERY = re.compile(rf"[A-Za-z0-9{re.escape(_QUERY_CHARACTERS)}]*")


class Question(Struct, frozen=True, kw_only=True):
    """One request to an upstream; `path` is below its base URL."""

    method: str = "POST"
    path: str
    query: str = ""
    body: bytes = b""
    headers: Mapping[str, str] = {}


class RequestWriter:
    """Knows what all requests to one upstream have in common, its credentials among it."""

    def __init__(self, config: RemoteConfig) -> None:
        self._config = config
        parts = urlsplit(config.base_url)
        self._root = parts.path.rstrip("/")
        self._host = _host(parts.hostname or "", parts.port, parts.scheme)
        self._headers: Mapping[str, str] = {}
        self._secrets: tuple[str, ...] = ()
        self._begun: Mapping[str, bytes] = {}  # by path, for POST: all but what a call adds
        self._read_at = -CREDENTIAL_SECONDS

    def head(self, question: Question) -> bytes:
        """The bytes before the body. Raises `Unavailable` where a secret cannot be read, and
        `RequestRefused` for a question that cannot be written as one request."""
        if monotonic() - self._read_at >= CREDENTIAL_SECONDS:
            self.read_credentials()
        begun = self._begun.get(question.path)
        if begun is None or question.query or question.method != "POST":
            return self._unusual(question)
        common = self._headers
        lines = f"content-length: {len(question.body)}\r\n"
        for name, value in question.headers.items():
            if name in common or not (
                value.isascii() and value.isprintable() and _NAME.fullmatch(name)
            ):
                return self._unusual(question)
            lines += f"{name}: {value}\r\n"
        return begun + f"{lines}\r\n".encode()

    def scrubbed(self, text: bytes) -> bytes:
        """`text` without our credentials, should the upstream have repeated one."""
        for secret in self._secrets:
            text = text.replace(secret.encode(), b"***")
        return text

    def forget_credentials(self) -> None:
        """Read the secrets again before the next request: these were refused."""
        self._read_at = -CREDENTIAL_SECONDS

    def read_credentials(self) -> None:
        """Read the secrets. Raises `Unavailable` where one is missing."""
        config = self._config
        try:
            key = config.api_key.reveal() if config.api_key is not None else None
            more = {name: source.reveal() for name, source in config.secret_headers.items()}
        except ValueError as error:
            raise Unavailable(str(error)) from None
        headers = {
            "host": self._host,
            "content-type": "application/json",
            "accept": "*/*",
            "accept-encoding": "identity",
            "user-agent": "penstock",
            **{name.lower(): value for name, value in (*config.headers.items(), *more.items())},
        }
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        for name, value in headers.items():
            if _CONTROL.search(value):
                raise Unavailable(f"the secret for {name!r} has a line break in it, or worse")
        self._headers = headers
        self._secrets = tuple(secret for secret in (key, *more.values()) if secret)
        lines = b"".join(_line(name, value.encode()) for name, value in headers.items())
        self._begun = {path: self._first_line("POST", path) + lines for path in KNOWN_PATHS}
        self._read_at = monotonic()

    def _unusual(self, question: Question) -> bytes:
        """The head of any question."""
        for name, value in question.headers.items():
            if not _NAME.fullmatch(name) or _CONTROL.search(value):
                raise RequestRefused(
                    f"the header {name[:80]!r} has a line break in it, or worse; take it out"
                )
        if not _METHOD.fullmatch(question.method) or not _PATH.fullmatch(question.path):
            raise RequestRefused(
                f"there can be no {question.method[:80]} of {question.path[:80]!r}"
            )
        target = question.path
        if question.query:
            target += f"?{_one_query(question.query)}"
        lines = [self._first_line(question.method, target)]
        given = question.headers
        lines += [
            _line(name, value.encode())
            for name, value in self._headers.items()
            if name not in given
        ]
        lines += [_line(name, _as_it_came(value)) for name, value in given.items()]
        if question.body or question.method != "GET":
            lines.append(b"content-length: %d\r\n" % len(question.body))
        return b"".join([*lines, b"\r\n"])

    def _first_line(self, method: str, target: str) -> bytes:
        return f"{method} {self._root}/{target} HTTP/1.1\r\n".encode("ascii")


def _host(host: str, port: int | None, scheme: str) -> str:
    host = host.partition("%")[0].rstrip(".")
    host = f"[{host}]" if ":" in host else host
    return host if port in (None, 443 if scheme == "https" else 80) else f"{host}:{port}"


def _line(name: str, value: bytes) -> bytes:
    return b"%b: %b\r\n" % (name.encode("ascii"), value)


def _as_it_came(value: str) -> bytes:
    """A caller's header: its bytes were read as Latin-1 on their way in."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()


def _one_query(query: str) -> str:
    """The query, with what may not stand in a request's first line written as %XX."""
    if _QUERY.fullmatch(query):
        return query
    return quote(query, safe=_QUERY_CHARACTERS, encoding="latin-1", errors="replace")
