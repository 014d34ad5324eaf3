"""How the next token is chosen, and what an answer as a whole must be.

A part of engines/protocol.py, which has all of these names too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

MAX_STOP_CHARS = 1000
"""Of one stop string, in any dialect and in a model's own parameters: each character is a state of
the matcher that looks for it."""


class Sampling(Struct, frozen=True, kw_only=True):
    """How the next token is chosen. None means: the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = {}
    min_tokens: int = 0
    ignore_eos: bool = False
    seed: int | None = None


class JsonObject(Struct, frozen=True, tag="json_object"):
    """Constraint: any JSON object."""


class JsonSchema(Struct, frozen=True, tag="json_schema", kw_only=True):
    """Constraint: JSON that is valid under `schema`."""

    schema: Mapping[str, Any] | bool
    name: str | None = None
    strict: bool = True


class Regex(Struct, frozen=True, tag="regex"):
    """Constraint: text that the regular expression matches whole."""

    pattern: str


class Choice(Struct, frozen=True, tag="choice"):
    """Constraint: one of these texts."""

    choices: Sequence[str]


class Grammar(Struct, frozen=True, tag="grammar"):
    """Constraint: a context-free grammar in Lark syntax."""

    grammar: str


Constraint = JsonObject | JsonSchema | Regex | Choice | Grammar
