"""Makes conversations out of exchanges, and keeps the held-out prompts out of training.

A conversation is what a client would send with the answers filled in: perhaps a system
prompt, perhaps tools, one to five exchanges. The same seed gives the same conversations.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engines.starter.skills import SKILLS, Exchange
from engines.starter.skills.phrasing import expand
from engines.starter.template import TURN_END, render

HELD_OUT_SHARE = 0.03

# The first things people type: too few to test with, and too important to leave out.
NEVER_HELD_OUT = frozenset(
    (
        "hi",
        "hello",
        "hey",
        "hello there",
        "hi there",
        "who are you",
        "what can you do",
        "hello! what can you do",
        "what is penstock",
        "tell me a joke",
        "what is 2+2",
        "what is 2 + 2",
        "what is the capital of france",
        "say this is a test",
        "write a haiku",
        "why is the sky blue",
        "how do i create an api key",
        "say hello",
        "thanks",
        "thank you",
        "how are you",
        "test",
        "tell me a story",
        "write a poem",
        "count to 10",
        "list the months",
        "help",
        "bye",
        "good morning",
        "what is your name",
        "list the days of the week",
        "list the planets",
        "how do i start the server",
        "how do i start penstock",
        "how are you?",
    )
)

_SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are (a|an) (friendly|polite|careful|honest|useful|small|kind|patient) assistant.",
    (
        "You are (Penstock's assistant|a chat bot|an AI assistant|an assistant|a language model|a "
        "customer support bot)."
    ),
    (
        "(Answer|Reply|Respond) (briefly|shortly|concisely|in one sentence|politely|clearly|in "
        "English|truthfully)."
    ),
    "Be (brief|concise|polite|helpful|kind|friendly|honest)(|.)",
    (
        "You are a helpful assistant. (Answer|Reply|Respond) (briefly|concisely|politely|in one "
        "sentence|in English)."
    ),
    "You help the users of (Penstock|our gateway|this service|our company).",
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible.",
    (
        "(Today is|The date is|Current date:) (Monday|Tuesday|Friday|Sunday)(|, 21 November 2026"
        "|, 3 May 2025|.)"
    ),
    (
        "Keep answers (short|simple|under fifty words). (Do not make things up.|Say so when you "
        "do not know.|)"
    ),
    "Use plain text(|.| only.| and no lists.)",
    "You are a bot (on a web site|in a chat room|for tests|in a shop|on a phone).",
)


@dataclass(frozen=True)
class Conversation:
    """What a client sends, answers included. `skills` names each exchange's skill."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]
    skills: tuple[str, ...]

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The rendered text in pieces, each with whether the model has to learn to write it."""
        shown = ""
        for at, message in enumerate(self.messages):
            if message["role"] != "assistant":
                continue
            before = self.prompt(at)
            yield before[len(shown) :], False
            answer = assistant_text(message) + TURN_END
            yield answer, True
            shown = before + answer

    def prompt(self, at: int) -> str:
        """The text that the model is given to write message number `at`."""
        return render(list(self.messages[:at]), list(self.tools))


def assistant_text(message: dict[str, Any]) -> str:
    """An assistant's message as the model writes it, tool calls included."""
    asked = [{"role": "user", "content": ""}]
    return render([*asked, message])[
        len(render(asked)) : -len("<|im_end|>\n<|im_start|>assistant\n")
    ]


def conversations(seed: int, part: int = 1) -> Iterator[Conversation]:
    """An endless stream to learn from, mixed as that part of the training wants it.

    No prompt that is held out is ever in it."""
    rng = random.Random(seed)
    while True:
        conversation = _conversation(rng, part)
        if conversation is not None:
            yield conversation


def held_out(seed: int, skill: str) -> Iterator[Conversation]:
    """An endless stream of single exchanges of one skill that training never sees."""
    rng = random.Random(f"{seed} {skill}")
    while True:
        exchange = exchange_of(rng, skill)
        if is_held_out(exchange):
            yield Conversation(
                (*_system(rng, exchange), *exchange.messages), exchange.tools, (skill,)
            )


def exchange_of(rng: random.Random, skill: str, part: int = 2) -> Exchange:
    """One exchange of the skill. Only the second part of the training has all generators."""
    generators = SKILLS[skill]
    weights = [weights[part - 1] for _, *weights in generators]
    return rng.choices([generator for generator, *_ in generators], weights)[0](rng)


def is_held_out(exchange: Exchange) -> bool:
    """By a hash of what was asked, to the letter.

    A later change to the generators keeps the split, and a way to ask is held out in some of
    the ways to type it only: the model gets to know all of them."""
    prompts = [m["content"] for m in exchange.messages if m["role"] == "user"]
    if prompts[-1].strip().lower().rstrip(".?! ") in NEVER_HELD_OUT:
        return False
    asked = "\n".join([exchange.system or "", *prompts])
    digest = hashlib.blake2b(asked.encode(), digest_size=4).digest()
    return int.from_bytes(digest) < HELD_OUT_SHARE * 2**32


def _conversation(rng: random.Random, part: int) -> Conversation | None:
    skills = [_a_skill(rng, part)]
    exchanges = [exchange_of(rng, skills[0], part)]
    first = exchanges[0]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3, 4))):
        skill = _a_skill(rng, part)
        exchange = exchange_of(rng, skill, part)
        # Later turns share the first one's system prompt and tools, and must not need others.
        if exchange.tools or exchange.system or first.system or skill == "names":
            continue
        if first.tools and skill in ("sums", "unknown"):
            continue
        skills.append(skill)
        exchanges.append(exchange)
    if any(is_held_out(exchange) for exchange in exchanges):
        return None
    messages = tuple(message for exchange in exchanges for message in exchange.messages)
    return Conversation((*_system(rng, first), *messages), first.tools, tuple(skills))


def _a_skill(rng: random.Random, part: int) -> str:
    return rng.choices(list(SKILLS), _SKILL_WEIGHTS[part - 1])[0]


_SKILL_WEIGHTS = [
    [sum(weights[at] for _, *weights in generators) for generators in SKILLS.values()]
    for at in (0, 1)
]


def _system(rng: random.Random, exchange: Exchange) -> tuple[dict[str, Any], ...]:
    if exchange.system is not None:
        return ({"role": "system", "content": exchange.system},)
    if rng.random() < 0.6:
        return ()
    return ({"role": "system", "content": expand(rng, rng.choice(_SYSTEM_PROMPTS))},)
