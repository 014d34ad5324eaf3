"""The request fields that chat and completions share, and what they become.

Ranges are those of the OpenAI API specification where it gives one. The fields
under "extensions" are not OpenAI's: clients of vLLM and llama.cpp send them.
"""

import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from engines.protocol import MAX_STOP_CHARS, Constraint, Sampling
from gateway.api.body_errors import shortened
from gateway.api.openai.constraints import StructuredOutputs, constraint_of
from gateway.errors import BadRequest

MAX_CHOICES = 16  # `n`
MAX_STOPS = 16  # OpenAI takes 4; more are cheap here
MAX_LOGIT_BIASES = 1024
MAX_INT32 = 2**31 - 1

RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "n": (1, MAX_CHOICES),
    "max_tokens": (1, MAX_INT32),
    "seed": (-(2**63), 2**63 - 1),
    "top_k": (-1, MAX_INT32),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
    "min_tokens": (0, MAX_INT32),
}


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """`stream_options`: only together with `stream: true`."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingFields(Struct, kw_only=True, forbid_unknown_fields=True):
    """What both endpoints take. None means: not said."""

    model: str
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    max_tokens: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    # extensions
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_choice: list[str] | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None

    @property
    def include_usage(self) -> bool:
        """Does the client want the usage chunk?"""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def obfuscate(self) -> bool:
        """Does the client want the sizes of chunks to say less?"""
        return bool(self.stream_options and self.stream_options.include_obfuscation)


def check_shared(body: SamplingFields) -> None:
    """Refuse what no engine could honour. Raises `BadRequest` that names the field."""
    if not body.model:
        raise BadRequest("model is empty; GET /v1/models lists the names", param="model")
    check_ranges(body, RANGES)
    if body.stream_options is not None and not body.stream:
        raise BadRequest(
            "stream_options is only for streams; leave it out or send stream: true",
            param="stream_options",
        )
    _check_logit_bias(body.logit_bias or {})


def check_ranges(body: Struct, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse the first number that is outside its range."""
    for name, (low, high) in ranges.items():
        value: float | None = getattr(body, name)
        # An int of a thousand digits cannot become a float; it can be compared.
        if value is not None and not low <= value <= high:
            raise BadRequest(
                f"{name} is {shortened(_number(value))}; it must be from {low} to {high}",
                param=name,
            )


def to_sampling(body: SamplingFields, *, nth: int) -> Sampling:
    """How the `nth` choice of this request is sampled; each choice has a seed of its own."""
    return Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=None if body.top_k is None else max(body.top_k, 0),
        min_p=body.min_p,
        repeat_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=body.logit_bias or {},
        min_tokens=body.min_tokens or 0,
        ignore_eos=bool(body.ignore_eos),
        seed=None if body.seed is None else body.seed + nth,
    )


def to_stops(stop: str | list[str] | None) -> list[str]:
    """The stop strings. Raises `BadRequest` for an empty one, one too long or too many."""
    stops = [stop] if isinstance(stop, str) else stop or []
    if len(stops) > MAX_STOPS:
        raise BadRequest(f"stop has {len(stops)} strings; at most {MAX_STOPS}", param="stop")
    for place, text in enumerate(stops):
        field = "stop" if isinstance(stop, str) else f"stop[{place}]"
        if not text:
            raise BadRequest(f"{field} is empty, which would stop at once", param=field)
        if len(text) > MAX_STOP_CHARS:
            raise BadRequest(
                f"{field} has {len(text)} characters; at most {MAX_STOP_CHARS}", param=field
            )
    return stops


def to_constraint(body: SamplingFields) -> Mapping[str, Constraint]:
    """What the extension fields demand of the answer, by the field that says so."""
    return constraint_of(
        guided_json=body.guided_json,
        guided_choice=body.guided_choice,
        guided_regex=body.guided_regex,
        guided_grammar=body.guided_grammar,
        structured_outputs=body.structured_outputs,
    )


def refuse(body: Struct, refused: Mapping[str, str]) -> None:
    """Refuse a field that is known and cannot be honoured, with the reason."""
    for name, reason in refused.items():
        value = getattr(body, name)
        if value is not None and value is not False:
            raise BadRequest(f"{name} cannot be honoured here: {reason}", param=name)


def _check_logit_bias(biases: Mapping[int, float]) -> None:
    if len(biases) > MAX_LOGIT_BIASES:
        raise BadRequest(
            f"logit_bias has {len(biases)} entries; at most {MAX_LOGIT_BIASES}",
            param="logit_bias",
        )
    for token, bias in biases.items():
        if not 0 <= token <= MAX_INT32:
            raise BadRequest(
                f"logit_bias has the key {shortened(_number(token))}; "
                "keys are token ids, from 0 upwards",
                param="logit_bias",
            )
        if not -100 <= bias <= 100:
            raise BadRequest(
                f"logit_bias of token {token} is {bias}; it must be from -100 to 100",
                param="logit_bias",
            )


def _number(value: float) -> str:
    # str() of an int of more than 4300 digits raises.
    if isinstance(value, int) and value.bit_length() > 128:
        return f"about 10^{int(value.bit_length() * math.log10(2))}"
    return str(value)
