"""The promise that people come for: another engine, the same answers, one line of policy."""

import shutil
from pathlib import Path

import pytest
from openai import OpenAI

from gateway.gateway import open_gateway
from tests.serving import serving, settings_in

DEV = Path(__file__).parents[2] / "policies" / "dev"
PROMPTS = [
    "Count from 1 to 20.",
    "What is the capital of France?",
    "Tell me a story about a cat.",
    "Write a poem about rain.",
    "What is 12 plus 30?",
    "List the days of the week.",
]


def answers_of(kind: str, directory: Path) -> list[tuple[str, str, int]]:
    """What the OpenAI client gets with `kind` in engines.toml: text, reason, prompt tokens."""
    policy = directory / kind
    shutil.copytree(DEV, policy)
    engines = policy / "engines.toml"
    engines.write_text(engines.read_text().replace('kind = "gguf"', f'kind = "{kind}"'))
    answers: list[tuple[str, str, int]] = []
    with serving(open_gateway(settings_in(directory, policy=policy))) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
        for prompt in PROMPTS:
            answer = client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": prompt}],
                temperature=0,
                max_tokens=64,
            )
            choice, usage = answer.choices[0], answer.usage
            assert usage is not None
            text = choice.message.content or ""
            answers.append((text, choice.finish_reason, usage.prompt_tokens))
    return answers


@pytest.mark.slow
def test_a_line_of_policy_swaps_the_engine_and_no_token_of_the_answers(tmp_path: Path) -> None:
    from_gguf = answers_of("gguf", tmp_path)
    from_paged = answers_of("paged", tmp_path)

    assert all(text for text, _, _ in from_gguf)
    assert from_paged == from_gguf
