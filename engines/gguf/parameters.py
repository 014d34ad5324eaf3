"""The PARAMETERs of a Modelfile: their names, what they must be, and what they mean here.

They are kept in a model's `params` layer, as JSON, under Ollama's names. Every
name that Ollama knows is taken, so that its models can be read; `HAS_EFFECT`
says which of them change anything here.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from engines.errors import RequestRefused
from engines.protocol import MAX_STOP_CHARS, Sampling

Value = int | float | bool | str | list[str]

_INTEGERS = """
    num_ctx num_batch num_gpu main_gpu num_thread num_keep seed num_predict draft_num_predict top_k
    repeat_last_n mirostat num_gqa
"""
_NUMBERS = """
    temperature top_p min_p typical_p repeat_penalty presence_penalty frequency_penalty mirostat_tau
    mirostat_eta tfs_z
"""
_BOOLEANS = "use_mmap use_mlock numa low_vram f16_kv vocab_only penalize_newline logits_all"
_KINDS: Mapping[str, type] = {
    **dict.fromkeys(_INTEGERS.split(), int),
    **dict.fromkeys(_NUMBERS.split(), float),
    **dict.fromkeys(_BOOLEANS.split(), bool),
    "stop": str,
}
_SAMPLING = """
    temperature top_p top_k min_p repeat_penalty presence_penalty frequency_penalty seed
"""
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "top_k": (0, 2**31 - 1),
    "repeat_penalty": (0.0, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "frequency_penalty": (-100.0, 100.0),
    "num_ctx": (1, 2**30),
    "num_thread": (0, 4096),
    "num_batch": (1, 2**20),
}
HAS_EFFECT = frozenset(_SAMPLING.split()) | {
    "stop", "num_ctx", "num_predict", "num_thread", "num_batch", "num_gpu",
}  # fmt: skip
_MAX_STOPS = 64


def read_parameter(name: str, text: str) -> Value:
    """The value of one PARAMETER line. Raises `RequestRefused`."""
    kind = _KINDS.get(name)
    if kind is None:
        there_are = ", ".join(sorted(HAS_EFFECT))
        raise RequestRefused(f"there is no parameter {name!r:.100} (of use here: {there_are})")
    if kind is str:
        return _stops(text)[0]
    try:
        value = _BOOLEAN[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise _wrong(name, text, kind) from None
    _check_bounds(name, value)
    return value


def read_parameters(content: bytes, whose: str) -> dict[str, Value]:
    """The values of a `params` layer; names that nobody knows are left out.

    Raises `RequestRefused` for a value of the wrong kind."""
    try:
        said = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RequestRefused(f"the parameters of {whose} are no JSON object: {error}") from None
    return {
        name: _checked(name, value)
        for name, value in said.items()
        if name in _KINDS and value is not None
    }


def sampling_of(parameters: Mapping[str, Value], asked: Sampling) -> Sampling:
    """`asked`, with the model's parameters where it says nothing."""
    missing = {
        name: parameters[name]
        for name in _SAMPLING.split()
        if getattr(asked, name) is None and name in parameters
    }
    if cast("int", missing.get("seed", 0)) < 0:
        del missing["seed"]  # Ollama's way to say: another one each time
    return msgspec.structs.replace(asked, **missing) if missing else asked


def stops_of(parameters: Mapping[str, Value]) -> tuple[str, ...]:
    """The stop strings."""
    stops = parameters.get("stop", [])
    return tuple(stops) if isinstance(stops, list) else ()


def number_of(parameters: Mapping[str, Value], name: str) -> int | None:
    """A parameter that is a count; None if it is not given, or says "as you like"."""
    value = parameters.get(name)
    return value if isinstance(value, int) and value > 0 else None


def _checked(name: str, value: object) -> Value:
    kind = _KINDS[name]
    if kind is str:
        return _stops(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        number: Value = float(value)
    elif kind is int and isinstance(value, float) and value.is_integer():
        number = int(value)
    elif type(value) is kind:
        number = cast("Value", value)
    else:
        raise _wrong(name, value, kind)
    _check_bounds(name, number)
    return number


def _stops(value: object) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(cast("list[Any]", stops)) > _MAX_STOPS:
        raise RequestRefused(f"parameter stop is not a list of at most {_MAX_STOPS} texts")
    for stop in cast("list[Any]", stops):
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_CHARS:
            raise RequestRefused(
                f"parameter stop has {stop!r:.100}; each is a text of 1 to {MAX_STOP_CHARS} "
                "characters"
            )
    return cast("list[str]", stops)


def _check_bounds(name: str, value: Value) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(name, value, float)
    least, most = _BOUNDS.get(name, (-(2**63), 2**63))
    if isinstance(value, int | float) and not least <= value <= most:
        raise RequestRefused(f"parameter {name} is {value}; it can be {least:g} to {most:g}")


def _wrong(name: str, value: object, kind: type) -> RequestRefused:
    expected = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
    return RequestRefused(f"parameter {name} is {value!r:.100}; it must be {expected}")


_BOOLEAN = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
