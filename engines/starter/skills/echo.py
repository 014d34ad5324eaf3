"""Repeats what it is given, word for word, and does small things with it."""

import random

from engines.starter.skills.exchange import Exchange, ask
from engines.starter.skills.phrasing import order
from engines.starter.skills.words import made_up_word, phrase, thing

_EXACTLY = (
    "(Say exactly|Say|Repeat|Repeat after me|Repeat this|Repeat exactly|Repeat the following|Echo"
    "|Say this|Write exactly|Write|Print|Output|Reply with exactly|Reply with|Answer with|Respond "
    "with|Respond with exactly|Type|Copy this|Repeat this text|Repeat the following text|Say the "
    "following|Repeat this sentence|Say after me|Echo this back)"
)


def repetition(rng: random.Random) -> Exchange:
    text = phrase(rng)
    if rng.random() < 0.35:
        text = text[0].upper() + text[1:] + rng.choice((".", "!", "", "?"))
    elif rng.random() < 0.1:
        text = text.upper()
    chance = rng.random()
    if chance < 0.5:
        return ask(order(rng, _EXACTLY + ": {text}", text=text), text)
    if chance < 0.68:
        return ask(order(rng, _EXACTLY + '(:|) "{text}"(|.)', text=text), text)
    if chance < 0.76:
        return ask(order(rng, _EXACTLY + ":\n{text}", text=text), text)
    if chance < 0.9:
        return ask(
            order(rng, "(Say|Repeat|Echo|Just say|Only say|Simply say) {text}", text=text), text
        )
    return ask(
        order(
            rng,
            "(Say|Repeat|Write) (the words|the text|the phrase|the sentence)(|:) {text}",
            text=text,
        ),
        text,
    )


_TESTS = (
    ("(Say|Say that|Please say|Just say) this is a test(|.|!)", "This is a test."),
    ("(Say|Just say|Please say) (hello|hi)(|.|!)", "Hello!"),
    ("(Say|Just say|Please say) (goodbye|bye)(|.|!)", "Goodbye!"),
    (
        (
            "(Say|Answer|Reply|Just say|Reply with|Answer with)(| just| only) (|the word |a "
            "single word: )(yes)(|.)"
        ),
        "yes",
    ),
    (
        (
            "(Say|Answer|Reply|Just say|Reply with|Answer with)(| just| only) (|the word |a "
            "single word: )(no)(|.)"
        ),
        "no",
    ),
    (
        (
            "(Say|Answer|Reply|Just say|Reply with|Answer with)(| just| only) (|the word |a "
            "single word: )(ok)(|.)"
        ),
        "ok",
    ),
    ("(Say something short|Say one word|Answer in one word)(|.)", "Hello!"),
)


def test_phrase(rng: random.Random) -> Exchange:
    pattern, answer = _TESTS[0] if rng.random() < 0.4 else rng.choice(_TESTS)
    return ask(order(rng, pattern), answer)


def repeated(rng: random.Random) -> Exchange:
    """One word several times."""
    word = thing(rng) if rng.random() < 0.6 else made_up_word(rng)
    times = rng.randint(2, 6)
    number = rng.choice((str(times), "zero one two three four five six".split()[times]))
    prompt = order(
        rng,
        "(Say|Write|Repeat|Repeat the word|Say the word|Write the word) {word} {number} times.",
        word=word,
        number=number,
    )
    return ask(prompt, " ".join([word] * times))


def letter_case(rng: random.Random) -> Exchange:
    """Common words only: made-up ones would have to be spelled letter by letter."""
    word = thing(rng)
    return ask(
        order(rng, "(Capitalize|Write with a capital letter)(|:) {word}", word=word),
        word.capitalize(),
    )


def picked(rng: random.Random) -> Exchange:
    """The first or last word of a few."""
    words = [
        thing(rng) if rng.random() < 0.7 else made_up_word(rng) for _ in range(rng.randint(2, 5))
    ]
    first = rng.random() < 0.5
    prompt = order(
        rng,
        "(What is|Give me|Tell me|Say|Repeat) the {which} word(| of|: of|:|in:| in) {words}",
        which="first" if first else "last",
        words=" ".join(words),
    )
    return ask(prompt, words[0] if first else words[-1])
