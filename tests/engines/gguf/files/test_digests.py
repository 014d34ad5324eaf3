"""Digests are digests, never paths."""

import hashlib
from pathlib import Path

import pytest

from engines.gguf.files.digests import DigestInvalid, digest_of, digest_of_file, parse_digest

HEX = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha256-{HEX}"])
def test_a_digest_is_read_and_has_a_file_name(text: str) -> None:
    digest = parse_digest(text)

    assert str(digest) == f"sha256:{HEX}"
    assert digest.file_name == f"sha256-{HEX}"
    assert digest.short == HEX[:12]
    assert digest == digest_of(b"x")


@pytest.mark.parametrize(
    "text",
    [
        "", HEX, f"sha512:{HEX}", f"sha256:{HEX.upper()}", f"sha256:{HEX}0", f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}\n", "sha256:../../../../etc/passwd", f"sha256:../{HEX[3:]}",
        f"../sha256:{HEX}", f"sha256:{HEX}/..", f"sha256:{HEX}\0", None, 7, ["sha256"],
    ],
)  # fmt: skip
def test_what_is_no_digest_is_refused(text: object) -> None:
    with pytest.raises(DigestInvalid) as refused:
        parse_digest(text)

    assert "is not sha256: and 64 hexadecimal digits" in str(refused.value)


def test_a_file_is_read_whole_for_its_digest(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    path = tmp_path / "file"
    path.write_bytes(content)
    pieces: list[int] = []

    assert digest_of_file(path, pieces.append) == digest_of(content)
    assert sum(pieces) == len(content)
