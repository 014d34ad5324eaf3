"""The conversations that the starter model learns from are well made."""

import itertools
import json
import random

import pytest

from engines.starter.conversations import (
    assistant_text,
    conversations,
    exchange_of,
    held_out,
    is_held_out,
)
from engines.starter.skills import SKILLS
from engines.starter.skills.phrasing import expand, say
from engines.starter.template import CHAT_TEMPLATE, TemplateRefused, render


def test_the_same_seed_makes_the_same_conversations():
    first, second = (list(itertools.islice(conversations(5), 50)) for _ in range(2))

    assert first == second
    assert first != list(itertools.islice(conversations(6), 50))


def test_the_pieces_of_a_conversation_are_what_the_template_renders():
    for conversation in itertools.islice(conversations(1), 200):
        text = "".join(piece for piece, _ in conversation.pieces())

        assert render(list(conversation.messages), list(conversation.tools)).startswith(text)


def test_only_what_the_assistant_says_is_learned():
    for conversation in itertools.islice(conversations(2), 100):
        learned = [piece for piece, is_answer in conversation.pieces() if is_answer]
        said = [m for m in conversation.messages if m["role"] == "assistant"]

        assert learned == [assistant_text(message) + "<|im_end|>" for message in said]


@pytest.mark.parametrize("skill", SKILLS)
def test_a_skill_leaves_no_slot_or_alternative_unfilled(skill):
    rng = random.Random(3)
    for _ in range(150):
        exchange = exchange_of(rng, skill)
        user = next(m["content"] for m in exchange.messages if m["role"] == "user")
        answer = exchange.messages[-1]["content"]

        assert "|" not in user + answer
        assert "{who}" not in user + answer
        assert answer == answer.strip()


@pytest.mark.parametrize("skill", SKILLS)
def test_a_skill_has_prompts_that_training_never_sees(skill):
    conversation = next(held_out(1, skill))

    assert conversation.skills == (skill,)


def test_no_held_out_prompt_is_in_the_conversations_to_learn_from():
    unseen = {
        _asked(conversation)
        for skill in SKILLS
        for conversation in itertools.islice(held_out(4, skill), 20)
    }

    learned = [c for c in itertools.islice(conversations(4), 1000) if len(c.skills) == 1]

    assert not unseen & {_asked(conversation) for conversation in learned}


def test_the_first_things_people_type_are_never_held_out():
    rng = random.Random(0)
    exchanges = [exchange_of(rng, "small talk") for _ in range(300)]
    greetings = [
        e for e in exchanges if e.messages[0]["content"] in ("Hi", "hello", "Hello there!")
    ]

    assert greetings
    assert not any(is_held_out(exchange) for exchange in greetings)


def test_every_tool_call_names_a_tool_of_the_list_and_its_parameters():
    rng = random.Random(1)
    for _ in range(200):
        exchange = exchange_of(rng, "tools")
        offered = {tool["function"]["name"]: tool["function"] for tool in exchange.tools}
        for call in exchange.messages[1].get("tool_calls", ()):
            function = call["function"]
            known = offered[function["name"]]["parameters"]["properties"]

            assert set(function["arguments"]) <= set(known)


def test_answers_in_json_are_json():
    rng = random.Random(2)
    for _ in range(200):
        exchange = exchange_of(rng, "json")

        json.loads(exchange.messages[1]["content"])


def test_nested_alternatives_are_chosen_from():
    seen = {expand(random.Random(seed), "a (b|c (d|e)) f|g") for seed in range(50)}

    assert seen == {"a b f", "a c d f", "a c e f", "g"}


def test_what_a_slot_holds_is_never_typed_carelessly():
    for seed in range(200):
        assert "Ada (X|y)?" in say(random.Random(seed), "Who is {name}?", name="Ada (X|y)?")


def test_the_template_lists_tools_and_wraps_calls_and_responses():
    tool = {"type": "function", "function": {"name": "add"}}
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "tool", "content": "3"},
    ]

    text = render(messages, [tool])

    assert text.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n\n")
    assert '<tools>\n{"type": "function", "function": {"name": "add"}}\n</tools>' in text
    assert text.endswith(
        "<|im_start|>assistant\n<tool_call>\n"
        '{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n2\n</tool_response>\n"
        "<tool_response>\n3\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_template_adds_no_system_prompt_of_its_own():
    text = render([{"role": "user", "content": "Hi"}])

    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_template_refuses_a_role_it_does_not_know():
    with pytest.raises(TemplateRefused, match="narrator"):
        render([{"role": "user", "content": "Hi"}, {"role": "narrator", "content": "…"}])
    assert "raise_exception" in CHAT_TEMPLATE


def _asked(conversation) -> tuple[str, ...]:
    """Every prompt, and the system prompt of the skill whose answers depend on it."""
    roles = ("user", "system") if conversation.skills[0] in ("names", "json") else ("user",)
    return tuple(m["content"] for m in conversation.messages if m["role"] in roles)
