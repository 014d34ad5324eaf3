"""Who we are at other hosts, from where other programs keep it.

Registries: the `auths` of Docker's `config.json`, which `docker login`, `podman
login` and `oras login` write. Hugging Face: `HF_TOKEN`, or the file that `hf auth
login` writes.
"""

import base64
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from yarl import URL

DEFAULT_HUGGING_FACE = "https://huggingface.co"
_MAX_FILE_BYTES = 1024 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


class _Login(Struct):
    auth: str = ""


class _DockerConfig(Struct):
    auths: dict[str, _Login] = {}


class Credentials:
    """Reads them anew each time; nothing is kept."""

    def __init__(
        self,
        environment: Mapping[str, str],
        home: Path | None = None,
        *,
        hugging_face_url: str | None = None,
    ) -> None:
        self._hugging_face_url = hugging_face_url
        self._environment = environment
        self._home = home or Path(environment.get("HOME") or "/nonexistent")

    @property
    def hugging_face_url(self) -> str:
        """Where Hugging Face is: what the policy says, `HF_ENDPOINT`, or the real one."""
        said = self._hugging_face_url or self._environment.get("HF_ENDPOINT")
        return (said or DEFAULT_HUGGING_FACE).rstrip("/")

    def of_hugging_face(self) -> str | None:
        """The `Authorization` for Hugging Face, None where nobody is logged in."""
        token = self._environment.get("HF_TOKEN") or self._environment.get("HUGGING_FACE_HUB_TOKEN")
        if not token:
            home = self._environment.get("HF_HOME") or self._home / ".cache" / "huggingface"
            path = self._environment.get("HF_TOKEN_PATH") or Path(home) / "token"
            token = (_read(Path(path)) or b"").decode("utf-8", "replace")
        token = token.strip()
        return f"Bearer {token}" if _TOKEN.fullmatch(token) else None

    def of_registry(self, url: URL) -> str | None:
        """The Basic `Authorization` for a registry, None where nobody is logged in."""
        folder = self._environment.get("DOCKER_CONFIG") or self._home / ".docker"
        content = _read(Path(folder) / "config.json")
        if content is None:
            return None
        try:
            logins = msgspec.json.decode(content, type=_DockerConfig).auths
        except (msgspec.MsgspecError, RecursionError):
            return None
        names = (url.authority, f"{url.scheme}://{url.authority}", f"https://{url.authority}/v2/")
        for name in names:
            if (login := logins.get(name)) is not None and _is_login(login.auth):
                return f"Basic {login.auth}"
        return None


def _is_login(auth: str) -> bool:
    try:
        return b":" in base64.b64decode(auth, validate=True)
    except ValueError:
        return False


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= _MAX_FILE_BYTES else None
