"""`options`: how to sample and how far, under the names of a Modelfile's parameters.

Options that decide how a model is loaded have no effect on one that everybody shares,
and those of samplers that are not here have none either: IGNORED. Any other name is let
pass too, as Ollama lets it; both are told in a header of the answer.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from engines.protocol import MAX_STOP_CHARS, Sampling
from gateway.api.body_errors import named
from gateway.api.ollama.opening import tell_ignored
from gateway.call import Call
from gateway.errors import BadRequest

MAX_STOPS = 64
_IGNORED = """
    num_batch num_gpu main_gpu num_thread num_keep use_mmap use_mlock numa low_vram f16_kv
    vocab_only logits_all embedding_only draft_num_predict typical_p repeat_last_n tfs_z mirostat
    mirostat_tau mirostat_eta penalize_newline
"""
IGNORED = frozenset(_IGNORED.split())
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "top_k": (-1, 2**31 - 1),
    "repeat_penalty": (0.01, 100),
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
    "seed": (-(2**63), 2**63 - 1),
    "num_predict": (-(2**31), 2**31 - 1),
    "num_ctx": (0, 2**31 - 1),
}


class Options(Struct, frozen=True, kw_only=True):
    """Those that do something. None means: not said."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    num_ctx: int | None = None
    stop: str | list[str] | None = None

    @property
    def max_tokens(self) -> int | None:
        """None, where a client says -1 or -2: until the model's context is full."""
        return self.num_predict if self.num_predict and self.num_predict > 0 else None

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]

    @property
    def sampling(self) -> Sampling:
        """How to sample; what is not said is the model's."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=None if self.top_k is None else max(self.top_k, 0),
            min_p=self.min_p,
            repeat_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            # Less than nothing is Ollama's way to say: another one each time.
            seed=None if self.seed is None or self.seed < 0 else self.seed,
        )


HONOURED = frozenset(Options.__struct_fields__)


def read_options(call: Call, given: Mapping[str, Any] | None) -> Options:
    """The options that do something. Raises `BadRequest` that names the option."""
    said = {name: value for name, value in (given or {}).items() if value is not None}
    tell_ignored(call, (f"options.{name}" for name in said if name not in HONOURED))
    known = {name: _whole(value) for name, value in said.items() if name in HONOURED}
    try:
        options = msgspec.convert(known, Options)
    except msgspec.ValidationError as error:
        refused = named(error, Options)
        raise BadRequest(f"option {refused.message}", param=f"options.{refused.param}") from None
    _check(options)
    return options


def _whole(value: Any) -> Any:
    """42.0 as the integer that it is: to some clients' languages all numbers are alike."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check(options: Options) -> None:
    for name, (low, high) in _RANGES.items():
        value: float | None = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise BadRequest(
                f"option {name} is {str(value)[:40]}; it must be from {low} to {high}",
                param=f"options.{name}",
            )
    if len(options.stops) > MAX_STOPS or any(len(text) > MAX_STOP_CHARS for text in options.stops):
        raise BadRequest(
            f"option stop can be {MAX_STOPS} texts of up to {MAX_STOP_CHARS} characters",
            param="options.stop",
        )
