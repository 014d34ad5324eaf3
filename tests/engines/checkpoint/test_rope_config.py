"""Each kind of rope is read, in every spelling; an unknown one is refused by name."""

from typing import Any

import pytest

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported
from engines.checkpoint.json_fields import JsonFields
from engines.checkpoint.model_shape import RopeShape
from engines.checkpoint.rope_config import KINDS, RopeSource, read_rope, rope_parameters

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


def read(config: dict[str, Any], **source: Any) -> RopeShape:
    whole = JsonFields("config.json", {"max_position_embeddings": 256, **config})
    parameters = rope_parameters(whole)
    return read_rope(RopeSource(config=whole, parameters=parameters, head_dim=8, **source))


@pytest.mark.parametrize("kind", ["mrope", "proportional", "ntk", ""])
def test_an_unknown_kind_is_refused_with_those_there_are(kind: str):
    with pytest.raises(CheckpointUnsupported) as refused:
        read({"rope_scaling": {"rope_type": kind}})

    assert repr(kind) in refused.value.message
    assert ", ".join(KINDS) in refused.value.message


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}},
        {"rope_theta": 1.5, "rope_parameters": {"type": "linear", "rope_theta": 5e5, "factor": 2}},
    ],
)
def test_the_old_and_the_new_form_say_the_same(config: dict[str, Any]):
    assert read(config) == RopeShape(kind="linear", theta=5e5, rotary_dim=8, factor=2.0)


@pytest.mark.parametrize("config", [{}, {"rope_scaling": None}, {"rope_parameters": {}}])
def test_a_model_that_does_not_scale_has_the_default(config: dict[str, Any]):
    assert read(config) == RopeShape(kind="default", theta=10_000.0, rotary_dim=8)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "linear"}, "rope_scaling.factor is missing; expected a number"),
        ({"rope_type": "linear", "factor": 0}, "rope_scaling.factor is 0; expected a finite"),
        ({"rope_type": "linear", "factor": "2"}, "rope_scaling.factor is '2'; expected a number"),
        ({**LLAMA3, "high_freq_factor": 1.0}, "high_freq_factor is 1.0; expected a number above"),
        ({**LONGROPE, "short_factor": [1.0]}, "short_factor is .1.0.; expected a list of 4"),
        ({**LONGROPE, "long_factor": [1, 2, 3, "4"]}, "expected a list of 4 numbers above 0"),
        ({**LONGROPE, "long_factor": [1, 2, 3, -4]}, "expected a list of 4 numbers above 0"),
        ({"rope_type": 3}, "rope_scaling.rope_type is 3; expected a string"),
    ],
)
def test_a_broken_scaling_is_refused_with_its_key_and_value(scaling: Any, message: str):
    with pytest.raises(CheckpointUnavailable, match=message):
        read({"rope_scaling": scaling})


def test_the_first_context_comes_from_the_rope_or_else_from_the_file():
    inside = {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32}}

    assert read(inside).original_context_tokens == 32
    outside = {"rope_scaling": LLAMA3, "original_max_position_embeddings": 64}
    assert read(outside).original_context_tokens == 64
    assert read({"rope_scaling": LLAMA3}).original_context_tokens == 256


@pytest.mark.parametrize("fraction", [0.3, 1.5, 0.1])
def test_a_fraction_of_a_head_that_cannot_turn_is_refused(fraction: float):
    # Of 10 numbers: 3, 15 and 1.
    whole = JsonFields("config.json", {"partial_rotary_factor": fraction})
    source = RopeSource(
        config=whole, parameters=JsonFields("config.json", {}), head_dim=10, allows_partial=True
    )

    with pytest.raises(CheckpointUnavailable, match="partial_rotary_factor"):
        read_rope(source)
