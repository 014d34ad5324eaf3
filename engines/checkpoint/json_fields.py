"""Reads one JSON object of a checkpoint, checking each value where it is taken.

A key that is missing and one that is null are different things in these files: a
Mistral without `sliding_window` has the default one, with null it has none. So
defaults apply to missing keys only, and null is refused unless the caller takes it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable

MAX_JSON_BYTES = 64 * 2**20  # an index of a model in a thousand files has 10 MB
MISSING: Any = object()


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises `CheckpointUnavailable`."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointUnavailable(
                f"{path.name} has {path.stat().st_size} bytes; expected at most {MAX_JSON_BYTES}"
            )
        return decode_json(path.read_bytes(), path.name)
    except FileNotFoundError:
        raise CheckpointUnavailable(
            f"{path.name} is missing; the folder must be a HuggingFace checkpoint"
        ) from None
    except OSError as error:
        raise CheckpointUnavailable(f"{path.name} cannot be read: {error.strerror}") from error


def decode_json(content: bytes, what: str) -> Any:
    """Decode JSON that is found in `what`. Raises `CheckpointUnavailable`."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointUnavailable(
            f"{what} is not valid JSON ({error}); download it again"
        ) from error


def shown(value: object) -> str:
    """A file's own value for a message: short, and unable to break the line."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


class JsonFields:
    """One JSON object and the file that it is in, for error messages."""

    def __init__(self, file: str, values: Mapping[str, Any], inside: str = "") -> None:
        self.file = file
        self.values = values
        self._inside = inside  # "rope_parameters.", where the object is not the file's outermost

    @classmethod
    def read(cls, path: Path) -> "JsonFields":
        """The object that a file holds."""
        content = read_json(path)
        if not isinstance(content, dict):
            raise CheckpointUnavailable(f"{path.name} is {shown(content)}; expected an object")
        return cls(path.name, content)

    def fail(self, key: str, expected: str) -> NoReturn:
        """Refuse the value of a key."""
        found = shown(self.values[key]) if key in self.values else "missing"
        raise CheckpointUnavailable(
            f"{self.file}: {self._inside}{key} is {found}; expected {expected}"
        )

    def has(self, key: str) -> bool:
        """Is the key there, and not null?"""
        return self.values.get(key) is not None

    def first(self, *keys: str) -> str:
        """The first of these keys that is there and not null, or else the last."""
        return next((key for key in keys if self.has(key)), keys[-1])

    def integer(self, key: str, default: int = MISSING, *, low: int = 1, high: int = 2**20) -> int:
        """A whole number from `low` to `high`."""
        value = self.values.get(key, default)
        if value is MISSING or isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, "a whole number")
        if not low <= value <= high:
            self.fail(key, f"a whole number from {low} to {high}")
        return value

    def optional_integer(
        self, key: str, default: int | None, *, low: int = 1, high: int = 2**30
    ) -> int | None:
        """A whole number, or None where the file says null."""
        if self.values.get(key, default) is None:
            return None
        return self.integer(key, MISSING if default is None else default, low=low, high=high)

    def number(self, key: str, default: float = MISSING, *, above: float = 0.0) -> float:
        """A finite number greater than `above`."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(key, "a number")
        if not (math.isfinite(value) and value > above):
            self.fail(key, f"a finite number above {above:g}")
        return float(value)

    def optional_number(self, key: str, default: float | None = None) -> float | None:
        """A number above 0, or None where the file says null."""
        if self.values.get(key, default) is None:
            return None
        return self.number(key, MISSING if default is None else default)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

    def text(self, key: str, default: str = MISSING) -> str:
        """A string."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            self.fail(key, "a string")
        return value

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        """A list of `length` finite numbers above 0."""
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) != length:
            self.fail(key, f"a list of {length} numbers")
        for item in value:
            is_number = isinstance(item, int | float) and not isinstance(item, bool)
            if not (is_number and math.isfinite(item) and item > 0):
                self.fail(key, f"a list of {length} numbers above 0")
        return tuple(float(item) for item in value)

    def texts(self, key: str) -> Sequence[str]:
        """A list of strings."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(key, "a list of strings")
        return value

    def fields(self, key: str) -> "JsonFields":
        """The object under a key; an empty one where there is none."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.fail(key, "an object")
        return JsonFields(self.file, value, f"{self._inside}{key}.")
