import msgspec
import pytest

from engines.protocol import FinishReason, Usage
from engines.remote.tokens import WireUsage, guessed, guessed_prompt, to_reason
from tests.engines.remote.conftest import asking


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
         Usage(prompt_tokens=3, completion_tokens=2)),
        ({"input_tokens": 3, "output_tokens": 2}, Usage(prompt_tokens=3, completion_tokens=2)),
        ({"total_tokens": 5}, Usage(prompt_tokens=5)),
        ({"prompt_tokens": 3, "completion_tokens": 4,
          "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": None},
          "completion_tokens_details": {"reasoning_tokens": 2}},
         Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=4, reasoning_tokens=2)),
        ({"prompt_tokens": 3, "completion_tokens": None, "prompt_tokens_details": None},
         Usage(prompt_tokens=3)),
        ({"prompt_tokens": -3, "completion_tokens": -1}, Usage()),
        ({"prompt_tokens": 3, "completion_tokens": 2**63}, Usage(prompt_tokens=3)),
        ({"prompt_tokens": 10**30, "completion_tokens": 2}, Usage(completion_tokens=2)),
        ({"total_tokens": 2**64}, Usage()),
        ({"total_tokens": 9, "completion_tokens": -(2**64)}, Usage(prompt_tokens=9)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 100_000}},
         Usage(prompt_tokens=10, cached_tokens=10)),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2**63},
          "completion_tokens_details": {"reasoning_tokens": 2**63}}, Usage(prompt_tokens=10)),
        ({}, Usage()),
    ],
)  # fmt: skip
def test_counts_are_read_in_any_endpoints_words(told: dict[str, object], usage: Usage) -> None:
    assert msgspec.convert(told, WireUsage).to_usage() == usage


def test_an_unknown_reason_is_a_stop() -> None:
    assert to_reason("length") is FinishReason.LENGTH
    assert to_reason("function_call") is FinishReason.TOOL_CALLS
    assert to_reason("eos_token") is FinishReason.STOP
    assert to_reason(None) is FinishReason.STOP


def test_a_guess_is_four_characters_a_token() -> None:
    assert guessed(0) == 0
    assert guessed(1) == 1
    assert guessed(9) == 3
    assert guessed_prompt(asking("x" * 8)) == 2
    assert guessed_prompt(asking(prompt="x" * 8)) == 2
    assert guessed_prompt(asking(prompt=[1, 2, 3])) == 3
