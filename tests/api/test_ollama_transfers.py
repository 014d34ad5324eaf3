"""What administrators are told of pulls and pushes that cannot be, or had no effect."""

from typing import Any

import pytest

from engines.errors import ModelNotFound
from engines.protocol import Progress
from tests.api.ollama_stage import OllamaStage

REASON = "hf.co/o/r has no GGUF file for the tag 'Q3_K_M' (there are: Q4_K_M, Q8_0)"


@pytest.mark.parametrize("before", [[], [Progress(status="pulling manifest")]])
@pytest.mark.parametrize("stream", [True, False])
def test_the_reason_of_a_failed_pull_is_told(
    ollama: OllamaStage, before: list[Any], stream: bool
) -> None:
    ollama.library.pull_steps = [*before, ModelNotFound("r:Q3_K_M", REASON)]

    answer = ollama.ask("pull", model="hf.co/o/r:Q3_K_M", stream=stream)

    assert answer.status_code == (200 if stream and before else 404)
    assert answer.text.splitlines()[-1] == '{"error":"%s"}' % REASON  # noqa: UP031


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("registry.example.com/a/b", {"insecure": True}, "insecure"),
        ("registry.example.com/a/b", {"insecure": False}, None),
        ("registry.example.com/a/b", {}, None),
        ("http://registry.example.com/a/b", {"insecure": True}, None),
    ],
)
def test_insecure_is_told_to_have_no_effect(
    ollama: OllamaStage, name: str, given: dict[str, bool], told: str | None
) -> None:
    answer = ollama.ask("pull", model=name, **given)

    assert answer.status_code == 200
    assert answer.headers.get("x-penstock-ignored") == told
