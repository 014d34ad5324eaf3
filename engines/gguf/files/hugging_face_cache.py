"""GGUF files that other programs fetched into a Hugging Face cache, used where they are.

The cache keeps `models--ORG--REPO/refs/main`, the commit that a branch was at,
and `snapshots/COMMIT/FILE`, links into `blobs/`. A file is the model
`hf.co/ORG/REPO:QUANT`, its quantization read off its name; where two have the
same, the rest of the file's name is the tag. Penstock only reads here.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from engines.errors import RequestRefused
from engines.gguf.files.names import parse_name
from engines.gguf.files.plain import gguf_files

HOST = "hf.co"
MAX_REPOSITORIES = 4096
_COMMIT = re.compile("[0-9a-f]{40}")
_QUANTIZATION = re.compile(
    r"(?:^|[-_.])((?:UD-)?(?:IQ|Q|TQ|MXFP)[0-9][A-Z0-9_]*|BF16|F16|F32)(?=$|[-.])", re.IGNORECASE
)


class HuggingFaceCache:
    """One cache folder, `~/.cache/huggingface/hub` where nobody says otherwise."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def paths(self) -> Mapping[str, Path]:
        """Every GGUF file of every repository's main branch, by its model's name."""
        found: dict[str, Path] = {}
        try:
            entries = sorted(self._folder.glob("models--*--*"))[:MAX_REPOSITORIES]
        except OSError:
            return found
        for entry in entries:
            owner, _, repository = entry.name.removeprefix("models--").partition("--")
            for path in _snapshot(entry):
                name = _name(owner, repository, path, found)
                if name is not None:
                    found[name] = path
        return found

    def blob(self, hexadecimal: str) -> Path | None:
        """The file that the cache keeps under a SHA-256 digest, if it has it; not verified."""
        for path in self._folder.glob(f"models--*--*/blobs/{hexadecimal}"):
            if path.is_file():
                return path
        return None


def quantization_of(file_name: str) -> str | None:
    """`Q4_K_M` of `Qwen3-8B-Q4_K_M.gguf`; None where a name does not say it."""
    found = _QUANTIZATION.findall(file_name.rpartition("/")[2].removesuffix(".gguf"))
    return found[-1].upper() if found else None


def _snapshot(repository: Path) -> list[Path]:
    try:
        commit = (repository / "refs" / "main").read_text(errors="replace").strip()
    except OSError:
        return []
    if not _COMMIT.fullmatch(commit):
        return []
    return sorted(gguf_files(repository / "snapshots" / commit, {}))


def _name(owner: str, repository: str, path: Path, taken: Mapping[str, Path]) -> str | None:
    for tag in (quantization_of(path.name), path.stem):
        try:
            name = parse_name(f"{HOST}/{owner}/{repository}:{tag}").display
        except RequestRefused:
            continue
        if tag is not None and name not in taken:
            return name
    return None
