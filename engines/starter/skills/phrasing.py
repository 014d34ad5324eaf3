"""Says one thing in many ways: alternatives, politeness, and careless typing.

A pattern is text with `one|another` alternatives, in parentheses or not, which nest, and
`{slots}`. Only the
pattern's own words are typed carelessly; what a slot holds is kept as it is, because
answers repeat it.
"""

import random
import re
from collections.abc import Callable

_INNERMOST = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")

_BEFORE = ("please ", "can you ", "could you ", "hey, ", "ok, ", "now ", "hi, ", "so, ", "and ")
_AFTER = (" please", ", please", " thanks", " for me")


def say(rng: random.Random, pattern: str, **slots: object) -> str:
    """One way to type `pattern`, with its slots filled."""
    text = carelessly(rng, expand(rng, pattern))
    return _SLOT.sub(lambda match: str(slots[match[1]]), text)


def order(rng: random.Random, pattern: str, **slots: object) -> str:
    """Like `say`, for an imperative: sometimes with "please" or "can you" before it."""
    text = expand(rng, pattern)
    chance = rng.random()
    if chance < 0.22 and not text.startswith("{"):
        text = rng.choice(_BEFORE) + text[0].lower() + text[1:]
        text = text[0].upper() + text[1:]
        if text.startswith(("Can", "Could")):
            text = text.rstrip(".") + "?"
    elif chance < 0.3 and "{" not in text[-12:]:
        text = text.rstrip(".?!") + rng.choice(_AFTER)
    text = carelessly(rng, text)
    return _SLOT.sub(lambda match: str(slots[match[1]]), text)


def expand(rng: random.Random, pattern: str) -> str:
    pattern = f"({pattern})"
    while match := _INNERMOST.search(pattern):
        choice = rng.choice(match[1].split("|"))
        pattern = pattern[: match.start()] + choice + pattern[match.end() :]
    return pattern


def carelessly(rng: random.Random, text: str) -> str:
    """Lower case, no full stop, a capital too many: how people type, but never inside a slot."""
    chance = rng.random()
    if chance < 0.45:
        return text
    if chance < 0.62:
        return _outside_slots(text.rstrip(".?!"), str.lower)
    if chance < 0.74:
        return _outside_slots(text, str.lower)
    if chance < 0.9:
        return text.rstrip(".?!") if not text.endswith("}") else text
    if chance < 0.93:
        return _outside_slots(text, str.upper)
    if chance < 0.97:
        return text.rstrip(".?!") + rng.choice((" ?", "!", "...", "??", "!!", " .", "\n", " "))
    return _with_a_typing_error(rng, text)


def listed(words: list[str]) -> str:
    """The words in a sentence: "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def with_article(noun: str) -> str:
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def _outside_slots(text: str, change: Callable[[str], str]) -> str:
    parts = re.split(r"(\{\w+\})", text)
    return "".join(part if part.startswith("{") else change(part) for part in parts)


def _with_a_typing_error(rng: random.Random, text: str) -> str:
    """Two neighbouring letters swapped or one left out, in a word of the pattern's own."""
    places = [m.start() for m in re.finditer(r"(?<=[a-z])[a-z](?=[a-z])", _SLOT.sub(_hidden, text))]
    if not places:
        return text
    at = rng.choice(places)
    if rng.random() < 0.5:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _hidden(match: re.Match[str]) -> str:
    return "#" * len(match[0])
