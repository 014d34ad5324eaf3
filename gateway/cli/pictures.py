"""Finds paths of pictures in a prompt, and reads them."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

MAX_BYTES = 100 * 1000 * 1000
# A path as a terminal gives it when a file is dropped on it: with its spaces
# escaped, or in quotes; or, with nothing around it, without spaces.
_PATH = re.compile(
    r"""(?P<quote>["'])(?P<quoted>[^"'\n]+?\.(?:jpe?g|png|webp))(?P=quote)
      | (?P<bare>(?:file://)?(?:\\.|[^\s"'\\])+?\.(?:jpe?g|png|webp))(?![\w.])""",
    re.IGNORECASE | re.VERBOSE,
)


def sees_pictures(shown: Mapping[str, Any]) -> bool:
    """Can the model see pictures, as far as `/api/show` knows? Where that does not say, it may."""
    return bool(shown) and "vision" in shown.get("capabilities", ["vision"])


def pictures_in(prompt: str) -> tuple[str, list[str], list[Path]]:
    """The prompt without the paths of pictures that exist, the pictures in base64, and the paths.

    A name of a picture that is not there stays what it is: text. Raises
    `ClickException` for one that cannot be read.
    """
    images: list[str] = []
    paths: list[Path] = []

    def taken(found: re.Match[str]) -> str:
        path = _path_of(found)
        if not _is_file(path):
            return found[0]
        images.append(base64.b64encode(_read(path)).decode("ascii"))
        paths.append(path)
        return ""

    text = _PATH.sub(taken, prompt)
    return (text.strip() if images else prompt), images, paths


def _path_of(found: re.Match[str]) -> Path:
    text = found["quoted"] or re.sub(r"\\(.)", r"\1", found["bare"])
    if text.lower().startswith("file://"):
        text = unquote(urlsplit(text).path)
    return Path(text).expanduser() if text.startswith("~/") else Path(text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a path may be
        return False


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise click.ClickException(f"{path} is over {MAX_BYTES // 1_000_000} MB")
        return path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
