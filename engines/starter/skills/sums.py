"""Small sums, asked for in many ways."""

import random

from engines.starter.skills.exchange import Exchange, ask
from engines.starter.skills.phrasing import say
from engines.starter.skills.words import FRUITS, THINGS, person

_SIGNS = {
    "+": ("+", "plus", "and"),
    "-": ("-", "minus"),
    "*": ("*", "x", "times", "multiplied by"),
}


def arithmetic(rng: random.Random) -> Exchange:
    sign = rng.choice("++++--**")
    a, b = _numbers(rng, sign)
    spelled = rng.choice(_SIGNS[sign])
    gap = "" if spelled in "+-*x" and rng.random() < 0.35 else " "
    if spelled == "and":
        prompt = say(
            rng,
            "(What is the sum of {a} and {b}?|Add {a} and {b}.|What do {a} and {b} make?"
            "|Calculate the sum of {a} and {b}.|Add {a} to {b}.|How much is {a} and {b}?)",
            a=a,
            b=b,
        )
    else:
        prompt = say(
            rng,
            "(What is |What's |Calculate |Compute |How much is |What does |Tell me what is |Solve "
            "|Work out |What is the result of |Please calculate |can you calculate |Do you know "
            "what is |){sum}(|?|.| =|=|= ?| = ?)",
            sum=f"{a}{gap}{spelled}{gap}{b}",
        )
        if prompt.lower().startswith("what does"):
            prompt = prompt.rstrip(" =?.") + " make?"
    return ask(prompt, f"{a} {sign} {b} = {_result(a, sign, b)}")


def difference(rng: random.Random) -> Exchange:
    a, b = _numbers(rng, "-")
    pattern = (
        "(What is the difference between {a} and {b}?|Subtract {b} from {a}.|Take {b} away from "
        "{a}.|What is {b} less than {a}?|Take {b} from {a}.|How much is {a} less {b}?)"
    )
    return ask(say(rng, pattern, a=a, b=b), f"{a} - {b} = {a - b}")


def product(rng: random.Random) -> Exchange:
    a, b = _numbers(rng, "*")
    pattern = (
        "(What is the product of {a} and {b}?|Multiply {a} by {b}.|Multiply {a} and {b}.|What is "
        "{a} multiplied by {b}?|Multiply {a} with {b}.)"
    )
    return ask(say(rng, pattern, a=a, b=b), f"{a} * {b} = {a * b}")


def story_sum(rng: random.Random) -> Exchange:
    who, what = person(rng), rng.choice((*FRUITS[:6], *THINGS[:8]))
    a, b = rng.randint(2, 20), rng.randint(1, 20)
    if rng.random() < 0.5:
        pattern = (
            "{who} has {a} {what}s and (gets|buys|finds) {b} more. How many {what}s does {who} "
            "have(| now)?"
        )
        sum_, result = f"{a} + {b}", a + b
    else:
        a, b = max(a, b) + 1, min(a, b)
        pattern = (
            "{who} has {a} {what}s and (gives away|loses|sells) {b}. How many {what}s does {who} "
            "have(| left| now)?"
        )
        sum_, result = f"{a} - {b}", a - b
    prompt = say(rng, pattern, who=who, a=a, b=b, what=what)
    return ask(prompt, f"{who} has {result} {what}s, because {sum_} = {result}.")


def comparison(rng: random.Random) -> Exchange:
    a, b = rng.sample(range(100), 2)
    if rng.random() < 0.5:
        prompt = say(
            rng,
            "(Which is|Which number is|What is) (bigger|larger|greater|more), {a} or {b}?",
            a=a,
            b=b,
        )
        return ask(prompt, f"{max(a, b)} is greater than {min(a, b)}.")
    prompt = say(rng, "(Which is|Which number is|What is) (smaller|less), {a} or {b}?", a=a, b=b)
    return ask(prompt, f"{min(a, b)} is less than {max(a, b)}.")


def neighbour(rng: random.Random) -> Exchange:
    a = rng.randint(1, 99)
    if rng.random() < 0.6:
        return ask(
            say(rng, "(What|Which number) comes (after|next after) {a}?", a=a),
            f"After {a} comes {a + 1}.",
        )
    return ask(say(rng, "(What|Which number) comes before {a}?", a=a), f"Before {a} comes {a - 1}.")


def _numbers(rng: random.Random, sign: str) -> tuple[int, int]:
    if sign == "*":
        top = rng.choice((10, 10, 12))
        return rng.randint(0, top), rng.randint(0, top)
    top = rng.choice((9, 9, 12, 20, 20, 50, 100))
    a, b = rng.randint(0, top), rng.randint(0, top)
    return (max(a, b), min(a, b)) if sign == "-" else (a, b)


def _result(a: int, sign: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[sign]
