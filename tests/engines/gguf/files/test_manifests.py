"""Manifests: what is read out of a good one, and why a bad one is refused."""

import json
from typing import Any

import pytest

from engines.errors import Unavailable
from engines.gguf.files.digests import digest_of
from engines.gguf.files.manifests import (
    CONFIG_TYPE,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    Layer,
    layer,
    new_manifest,
    read_manifest,
)

DIGEST = str(digest_of(b"weights"))
MODEL = {"mediaType": "application/vnd.ollama.image.model", "digest": DIGEST, "size": 7}
GOOD: dict[str, Any] = {"schemaVersion": 2, "layers": [MODEL]}


def test_a_manifest_is_read_as_it_was_served() -> None:
    config = {"mediaType": CONFIG_TYPE, "digest": str(digest_of(b"{}")), "size": 2}
    raw = json.dumps({**GOOD, "config": config, "layers": [MODEL, MODEL]}).encode()

    manifest = read_manifest(raw, "model 'x'")

    assert manifest.digest == digest_of(raw)
    assert [found.kind for found in manifest.layers] == ["model", "model"]
    assert manifest.size_bytes == 9  # one blob is counted once
    assert manifest.digests == {digest_of(b"weights"), digest_of(b"{}")}


def test_a_manifest_of_ours_reads_back() -> None:
    config = Layer(media_type=CONFIG_TYPE, digest=digest_of(b"{}"), size_bytes=2)
    written = new_manifest(config, [layer("model", digest_of(b"weights"), 7)])

    assert read_manifest(written.raw, "x") == written


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schemaVersion": 1}, "schemaVersion is 1"),
        ({"layers": []}, "0 layers"),
        ({"layers": [MODEL] * (MAX_LAYERS + 1)}, f"{MAX_LAYERS + 1} layers"),
        ({"layers": None}, "Expected `array`"),
        ({"layers": [{**MODEL, "size": -1}]}, "size of -1"),
        ({"layers": [{**MODEL, "size": 2**63}]}, "size of 9223372036854775808"),
        ({"layers": [{**MODEL, "size": "7"}]}, "Expected `int`"),
        ({"layers": [{**MODEL, "digest": "sha256:../../x"}]}, "is not sha256:"),
        ({"config": {**MODEL, "digest": "../x"}}, "is not sha256:"),
        ({"manifests": [{}]}, "an index of manifests"),
    ],
)
def test_a_manifest_that_lies_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Unavailable) as refused:
        read_manifest(json.dumps({**GOOD, **changes}).encode(), "model 'x'")

    assert refused.value.message.startswith("the manifest of model 'x' cannot be used: ")
    assert said in refused.value.message


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b" " * (MAX_MANIFEST_BYTES + 1)]
)
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(Unavailable, match="the manifest of x cannot be used"):
        read_manifest(raw, "x")
