"""Reads the JSON object that a tool call is written as, from its first characters on.

Nearly every model writes the name first and the arguments second; then the call
is known at its header, long before its end.
"""

import json
import re
from collections.abc import Collection
from typing import Any

from engines.chat.json_scan import JsonScan

MAX_HEADER = 512
"""Past this an object is waited for as a whole; its beginning is not looked at again."""

_KEYS = ("name", "arguments", "parameters", "type", "function", "id")
_FIRST_KEY = re.compile(r'\{\s*(?:"(\w*)("?)|$)')
_FIRST_IS_NAME = re.compile(r'\s*\{\s*"name"')
_NAME = re.compile(r'\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"')
_HEADER = re.compile(rf'{_NAME.pattern}\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{{)')


def read_header(text: str, start: int) -> tuple[str, int] | None:
    """Return the call's name and where its arguments begin, if they have begun."""
    found = _HEADER.match(text, start, start + MAX_HEADER + 1)
    return None if found is None else (_decoded(found[1]), found.end())


def may_be_call(text: str, start: int, names: Collection[str]) -> bool:
    """Judge the beginning of an object by its first key, and by the name if that is first."""
    end = start + MAX_HEADER + 1
    key = _FIRST_KEY.match(text, start, end)
    if key is None:
        return False
    name = _NAME.match(text, start, end)
    if name is not None:
        return _decoded(name[1]) in names
    if key[1] is None:
        return True
    if key[2]:
        return key[1] in _KEYS
    return any(allowed.startswith(key[1]) for allowed in _KEYS)


def begins_with_name(text: str) -> bool:
    """The object's first key is the name, as it is in nearly every call."""
    return _FIRST_IS_NAME.match(text) is not None


def is_decided(text: str, start: int) -> bool:
    """The object is complete, or cannot become one."""
    scan = JsonScan()
    scan.feed(text, start)
    return scan.is_done or scan.is_broken


def read_call(text: str) -> tuple[str, str] | None:
    """Read a complete object as a call's name and arguments, if it is one."""
    try:
        call: dict[str, Any] = json.loads(text)
        if call.get("type") == "function" and isinstance(call.get("function"), dict):
            call = call["function"]
        arguments = call.get("arguments", call.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return None
    name = call.get("name")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return name, json.dumps(arguments, ensure_ascii=False)


def _decoded(quoted: str) -> str:
    try:
        return str(json.loads(f'"{quoted}"'))
    except ValueError:
        return ""
