"""Lays a models folder out by hand, from the format as Ollama publishes it, not by our code."""

import hashlib
import json
from pathlib import Path

TYPE = "application/vnd.ollama.image."


def put_blob(folder: Path, content: bytes) -> tuple[str, int]:
    """Write a blob; returns its digest and size."""
    hexadecimal = hashlib.sha256(content).hexdigest()
    path = folder / "blobs" / f"sha256-{hexadecimal}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"sha256:{hexadecimal}", len(content)


def put_model(
    folder: Path,
    name: str,
    layers: dict[str, bytes],
    *,
    config: bytes = b'{"model_format":"gguf","model_family":"llama"}',
) -> Path:
    """Write a model under HOST/NAMESPACE/MODEL/TAG; returns its manifest's path."""

    def described(media_type: str, content: bytes) -> dict[str, object]:
        digest, size = put_blob(folder, content)
        return {"mediaType": media_type, "digest": digest, "size": size}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": described("application/vnd.docker.container.image.v1+json", config),
        "layers": [described(TYPE + kind, content) for kind, content in layers.items()],
    }
    path = folder / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    return path


def everything(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path; locks left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".locks" not in path.parts
    }
