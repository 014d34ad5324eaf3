"""A real OCI registry for tests: Debian's docker-registry, in a folder of its own."""

import hashlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

START_SECONDS = 30.0
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {folder}/storage}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class DockerRegistry:
    """One docker-registry; `host` is what comes first in the names of its models."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"
        self.storage = folder / "storage"

    def put(self, repository: str, tag: str, layers: dict[str, bytes]) -> bytes:
        """Put a model there by hand, not by our code; returns its manifest."""
        described = [
            {
                "mediaType": f"application/vnd.ollama.image.{kind}",
                "digest": self.put_blob(repository, content),
                "size": len(content),
            }
            for kind, content in layers.items()
        ]
        config = b'{"model_format":"gguf"}'
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "digest": self.put_blob(repository, config),
                    "size": len(config),
                },
                "layers": described,
            }
        ).encode()
        httpx.put(
            f"{self.url}/v2/{repository}/manifests/{tag}",
            content=manifest,
            headers={"content-type": MANIFEST_TYPE},
        ).raise_for_status()
        return manifest

    def put_blob(self, repository: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        begun = httpx.post(f"{self.url}/v2/{repository}/blobs/uploads/")
        place = httpx.URL(begun.headers["location"]).copy_add_param("digest", digest)
        httpx.put(place, content=content).raise_for_status()
        return digest

    def damage(self, digest: str) -> Path:
        """Change a byte of a blob where the registry keeps it."""
        hexadecimal = digest.removeprefix("sha256:")
        path = self.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal
        content = bytearray((path / "data").read_bytes())
        content[len(content) // 2] ^= 1
        (path / "data").write_bytes(content)
        return path / "data"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextmanager
def docker_registry() -> Iterator[DockerRegistry]:
    """A running registry that is gone afterwards."""
    binary = shutil.which("docker-registry")
    assert binary is not None, "docker-registry is not installed; `make test` installs it"
    with TemporaryDirectory(prefix="penstock-registry-") as name:
        folder, port = Path(name), free_port()
        (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port))
        with subprocess.Popen(
            [binary, "serve", str(folder / "config.yml")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                _wait_for(process, port)
                yield DockerRegistry(port, folder)
            finally:
                process.kill()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/v2/").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert process.poll() is None, "docker-registry ended at its start"
        assert time.monotonic() < deadline, "docker-registry does not answer"
        time.sleep(0.02)
