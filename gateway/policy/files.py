"""Reads the TOML files of a policy directory; knows nothing of what they mean.

A directory is an environment, a file is a noun. Whatever is wrong with the files
themselves (missing, unreadable, not text, not TOML, a name that nobody reads) is
found here.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from gateway.policy.problems import Place, PolicyInvalid, nearest, way_out

FILES = (
    "gateway.toml",
    "engines.toml",
    "models.toml",
    "teams.toml",
    "limits.toml",
    "prices.toml",
)
MAX_BYTES = 1024 * 1024

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_NAME_TUPLE = re.compile(r"\('(.*)',?\)")


class Files(Struct, frozen=True, kw_only=True):
    """What the files of one directory hold; a missing or broken file has an empty tree."""

    directory: Path
    digest: str
    trees: Mapping[str, Mapping[str, Any]]  # file name -> top-level table
    missing: frozenset[str]  # file names
    broken: frozenset[str]  # file names whose tree is not known
    problems: tuple[str, ...]


def read_files(directory: Path) -> Files:
    """Read every file of `directory`. Raises `PolicyInvalid` if there is no such directory."""
    names = _names_in(directory)
    problems = [
        Place(name).problem(f"nothing reads a file of this name{way_out(name, FILES)}")
        for name in sorted(names)
        if name.endswith(".toml") and name not in FILES
    ]
    if "gateway.toml" not in names:
        problems.append(
            f"gateway.toml: missing from {directory}; it lists the plugins, "
            'for example plugins = ["access_log", "api_keys", "allow_lists", "routing"]'
        )
    digest = hashlib.sha256()
    trees: dict[str, Mapping[str, Any]] = {}
    broken: set[str] = set()
    for name in sorted(FILES):
        trees[name] = {}
        if name not in names:
            continue
        try:
            content = _read(directory / name)
            digest.update(f"{name} {len(content)}\n".encode() + content)
            trees[name] = _parsed(content)
        except _Unusable as error:
            problems.append(Place(name).problem(str(error)))
            broken.add(name)
    return Files(
        directory=directory,
        digest=digest.hexdigest(),
        trees=trees,
        missing=frozenset(FILES) - names,
        broken=frozenset(broken),
        problems=tuple(problems),
    )


class _Unusable(Exception):
    """Why one file cannot be read."""


def _names_in(directory: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in directory.iterdir())
    except FileNotFoundError:
        hint = _similar_directory(directory)
        raise PolicyInvalid([f"there is no policy directory {directory}{hint}"]) from None
    except NotADirectoryError:
        raise PolicyInvalid(
            [f"{directory} is a file; a policy is a directory, here {directory.parent}"]
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PolicyInvalid([f"policy directory {directory} cannot be read: {reason}"]) from None


def _similar_directory(directory: Path) -> str:
    try:
        siblings = [path.name for path in directory.parent.iterdir() if path.is_dir()]
    except OSError:
        return ""
    meant = nearest(directory.name, siblings)
    return f" (did you mean {directory.parent / meant}?)" if meant else ""


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # opening a named pipe would wait for a writer
            raise _Unusable("is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _Unusable(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise _Unusable(f"is over {MAX_BYTES // 1024} KiB; that is no policy file")
    return content


def _parsed(content: bytes) -> Mapping[str, Any]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Unusable(
            f"line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _Unusable(_syntax_problem(str(error), text)) from None
    except RecursionError:
        raise _Unusable("is nested too deeply; a policy needs two levels") from None
    except ValueError:
        # The parser lets some through: thousands of digits, a date in the 14th month.
        raise _Unusable("holds a number or a date that cannot be read") from None


def _syntax_problem(message: str, text: str) -> str:
    """`line 3, column 8: expected "=" after a key`, from the parser's own words."""
    found = _POSITION.search(message)
    if found is None:
        return message[:1].lower() + message[1:]
    words = _NAME_TUPLE.sub(lambda name: f"[{name[1]}]".replace("', '", "."), message)
    words = _POSITION.sub("", words)
    words = words[:1].lower() + words[1:]
    if found[1] is None:
        return f"line {len(text.splitlines())}: {words}: the file ends too early"
    return f"line {found[1]}, column {found[2]}: {words}"
