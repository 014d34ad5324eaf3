"""Counts, and lists things one after another: the long answers that streaming needs."""

import random

from engines.starter.skills.exchange import Exchange, ask
from engines.starter.skills.phrasing import listed, order, say
from engines.starter.skills.words import (
    ANIMALS,
    CAPITALS,
    COLOURS,
    FIRST_NAMES,
    FRUITS,
    VEGETABLES,
    thing,
)

_NUMBERS = "zero one two three four five six seven eight nine ten".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_MONTHS = (
    "January February March April May June July August September October November December".split()
)
_SEASONS = "spring summer autumn winter".split()
_PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
_CONTINENTS = [
    "Africa",
    "Antarctica",
    "Asia",
    "Australia",
    "Europe",
    "North America",
    "South America",
]
_OCEANS = ["Pacific", "Atlantic", "Indian", "Southern", "Arctic"]
_ALPHABET = list("abcdefghijklmnopqrstuvwxyz")
_RAINBOW = "red orange yellow green blue indigo violet".split()

_WHOLE = (
    ("days of the week|days|weekdays|seven days of the week|days in a week", _DAYS),
    ("months|months of the year|twelve months|months in a year|months in order", _MONTHS),
    ("seasons|seasons of the year|four seasons", _SEASONS),
    ("planets|planets of the solar system|eight planets|planets in order", _PLANETS),
    ("continents|seven continents|continents of the world", _CONTINENTS),
    ("oceans|five oceans|oceans of the world", _OCEANS),
    ("colours of the rainbow|colors of the rainbow|rainbow colours", _RAINBOW),
    ("letters of the alphabet|letters|alphabet|letters from a to z", _ALPHABET),
)
# Answers name the first so many of these, so that there is one right answer.
_SOME = {
    "colours": COLOURS,
    "colors": COLOURS,
    "animals": ANIMALS,
    "fruits": FRUITS,
    "vegetables": VEGETABLES,
    "names": FIRST_NAMES,
    "countries": list(CAPITALS),
    "capitals": list(CAPITALS.values()),
    "cities": list(CAPITALS.values()),
    "planets": _PLANETS,
    "months": _MONTHS,
    "days": _DAYS,
    "letters": _ALPHABET,
    "numbers": _NUMBERS[1:],
}


def counting(rng: random.Random) -> Exchange:
    chance = rng.random()
    if chance < 0.35:
        first, last = 1, rng.choice((3, 5, 10, 10, 15, 20, 20, 30, 50, 100, rng.randint(2, 60)))
        prompt = order(rng, "(Count|Count up|Count for me|Can you count) to {last}(|.)", last=last)
    elif chance < 0.85:
        first = rng.choice((1, 1, 0, rng.randint(1, 80)))
        last = (
            rng.choice((10, 20, 50))
            if first < 2 and rng.random() < 0.4
            else first + rng.randint(2, 30)
        )
        prompt = order(
            rng,
            (
                "(Count|Count up|List the numbers|Write the numbers|Give me the numbers|Say the "
                "numbers|Numbers|List all numbers|Print the numbers) from {first} (to|up to"
                "|until) {last}(|.)"
            ),
            first=first,
            last=last,
        )
    else:
        first = rng.randint(3, 20)
        last = rng.choice((0, 1, max(0, first - rng.randint(2, 10))))
        prompt = order(
            rng,
            "(Count down|Count backwards|Count back) from {first} to {last}(|.)",
            first=first,
            last=last,
        )
    step = 1 if last >= first else -1
    return ask(prompt, ", ".join(str(n) for n in range(first, last + step, step)))


def whole_list(rng: random.Random) -> Exchange:
    names, members = rng.choice(_WHOLE)
    prompt = order(
        rng,
        "(List|Name|Tell me|Give me|What are|Write down|Say|List all|Name all|Can you list"
        "|Which are|Enumerate|I need|Write) "
        f"(the|all the|the) ({names})(|.|?)",
    )
    return ask(prompt, ", ".join(members))


def some_of(rng: random.Random) -> Exchange:
    kind = rng.choice(sorted(_SOME))
    count = rng.randint(2, min(8, len(_SOME[kind])))
    number = rng.choice((str(count), _NUMBERS[count]))
    prompt = order(
        rng,
        (
            "(List|Name|Tell me|Give me|Write|Say|Name me|I want|List any|Write down|Give me a "
            "list of) {number} {kind}(|.)"
        ),
        number=number,
        kind=kind,
    )
    return ask(prompt, ", ".join(_SOME[kind][:count]))


def bullets(rng: random.Random) -> Exchange:
    """The user's own things, one on a line."""
    words = [thing(rng) for _ in range(rng.randint(2, 6))]
    numbered = rng.random() < 0.4
    prompt = order(
        rng,
        (
            "(Make|Write) a numbered list(| of|:|of these:) {words}"
            if numbered
            else "(Make|Write) a (|bullet |bulleted )list(| of|:|of these:) {words}"
        )
        + "(|.)",
        words=listed(words) if rng.random() < 0.6 else ", ".join(words),
    )
    lines = [f"{n}. {word}" if numbered else f"- {word}" for n, word in enumerate(words, 1)]
    return ask(prompt, "\n".join(lines))


def next_one(rng: random.Random) -> Exchange:
    """Which day, month, planet or letter comes next."""
    members = rng.choice((_DAYS, _MONTHS, _PLANETS, _ALPHABET, _SEASONS))
    at = rng.randrange(len(members) - 1)
    kind = {7: "day", 12: "month", 8: "planet", 26: "letter", 4: "season"}[len(members)]
    if rng.random() < 0.6:
        prompt = say(
            rng, "(What|Which {kind}) comes (|next )after {one}?", kind=kind, one=members[at]
        )
        return ask(prompt, f"After {members[at]} comes {members[at + 1]}.")
    prompt = say(rng, "(What|Which {kind}) comes before {one}?", kind=kind, one=members[at + 1])
    return ask(prompt, f"Before {members[at + 1]} comes {members[at]}.")


def how_many(rng: random.Random) -> Exchange:
    answers = {
        "days are in a week": "There are 7 days in a week.",
        "months are in a year": "There are 12 months in a year.",
        "hours are in a day": "There are 24 hours in a day.",
        "minutes are in an hour": "There are 60 minutes in an hour.",
        "seconds are in a minute": "There are 60 seconds in a minute.",
        "days are in a year": "There are 365 days in a year, and 366 in a leap year.",
        "planets are there": "There are 8 planets.",
        "continents are there": "There are 7 continents.",
        "seasons are there": "There are 4 seasons.",
        "letters are in the alphabet": "There are 26 letters in the alphabet.",
        "legs does a dog have": "A dog has 4 legs.",
        "legs does a spider have": "A spider has 8 legs.",
        "legs does an insect have": "An insect has 6 legs.",
        "fingers are on a hand": "There are 5 fingers on a hand.",
        "sides does a triangle have": "A triangle has 3 sides.",
        "sides does a square have": "A square has 4 sides.",
    }
    question = rng.choice(sorted(answers))
    answer = answers[question]
    if " are in " in question and rng.random() < 0.4:
        what, _, where = question.partition(" are in ")
        question = rng.choice(
            (f"{what} does {where} have", f"{what} are there in {where}", f"{what} in {where}")
        )
    return ask(say(rng, f"(How many|Tell me how many|Do you know how many) {question}?"), answer)
