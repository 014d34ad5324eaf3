"""Answers with one JSON object when told to, with the keys and values that the prompt gives."""

import random

from engines.starter.skills.exchange import Exchange, ask
from engines.starter.skills.phrasing import expand, order
from engines.starter.skills.words import (
    ADJECTIVES,
    CAPITALS,
    COLOURS,
    JOBS,
    email,
    made_up_word,
    person,
    phrase,
    place,
    thing,
)
from engines.starter.template import to_json

# A key, the type a schema gives it, how a value is made, and how a sentence says it.
_FIELDS = {
    "age": ("integer", lambda rng: rng.randint(1, 99), "is {v}|is {v} years old|aged {v}"),
    "city": ("string", place, "lives in {v}|is from {v}|is in {v}"),
    "job": ("string", lambda rng: rng.choice(JOBS), "works as a {v}|is a {v}"),
    "email": ("string", email, "has the email {v}|can be reached at {v}|uses {v}"),
    "colour": ("string", lambda rng: rng.choice(COLOURS), "likes {v}|likes the colour {v}"),
    "country": ("string", lambda rng: rng.choice(sorted(CAPITALS)), "comes from {v}"),
    "pet": ("string", thing, "has a {v}"),
    "score": ("integer", lambda rng: rng.randint(0, 100), "scored {v}|has {v} points"),
    "active": ("boolean", lambda rng: rng.random() < 0.5, ""),
    "friend": ("string", person, "knows {v}|is a friend of {v}"),
    "team": ("string", made_up_word, "is in team {v}|belongs to the {v} team"),
}
_WORDED = {True: "is active", False: "is not active"}


def described_person(rng: random.Random) -> Exchange:
    """ "Answer in JSON with keys name and age: Ada is 36"."""
    name, values, sentence = _person_facts(rng)
    keys = (
        " and ".join(("name", *values))
        if len(values) == 1 or rng.random() < 0.5
        else ", ".join(("name", *values))
    )
    prompt = order(
        rng,
        (
            "(Answer in JSON with|Reply in JSON with|Reply with a JSON object with|Return a JSON "
            "object with|Extract as JSON with|Give me JSON with|Respond with JSON that has"
            "|Convert to JSON with|Make a JSON object with|Output JSON with) (the |)keys {keys}: "
            "{sentence}"
        ),
        keys=keys,
        sentence=sentence,
    )
    return ask(prompt, to_json({"name": name, **values}))


def by_schema(rng: random.Random) -> Exchange:
    """A JSON schema in the prompt or the system prompt, and a sentence to read."""
    name, values, sentence = _person_facts(rng)
    schema = to_json(_schema({"name": "string", **{key: _FIELDS[key][0] for key in values}}))
    answer = to_json({"name": name, **values})
    if rng.random() < 0.4:
        system = expand(
            rng,
            (
                "(Answer with a JSON object that matches this schema:|Reply only with JSON that "
                "matches this JSON schema:|You extract data. Respond in JSON with this schema:"
                "|Respond with JSON matching the schema)"
            ),
        )
        prompt = rng.choice(("", "Extract the data: ", "Read this: ", "")) + sentence
        return ask(prompt, answer, f"{system} {schema}")
    instruction = expand(
        rng,
        (
            "(Extract the data as JSON|Answer with JSON|Reply in JSON|Fill this JSON schema"
            "|Extract a JSON object) (that matches this schema|with this schema|for the schema)"
        ),
    )
    if rng.random() < 0.5:
        return ask(f"{instruction}: {schema}\n{sentence}", answer)
    return ask(f"{sentence}\n{instruction}: {schema}", answer)


def told_values(rng: random.Random) -> Exchange:
    """ "Reply with a JSON object with name set to Ada and age set to 36"."""
    pairs: dict[str, object] = {}
    for _ in range(rng.randint(1, 4)):
        key = rng.choice(
            (
                "name",
                "city",
                "count",
                "colour",
                "title",
                "id",
                "text",
                "status",
                "price",
                "answer",
                "item",
                made_up_word(rng),
            )
        )
        pairs[key] = _value(rng)
    link = rng.choice((" set to ", " equal to ", " = ", " as ", ": ", " being "))
    parts = [f"{key}{link}{_spelled(value)}" for key, value in pairs.items()]
    told = (
        ", ".join(parts[:-1])
        + (" and " if len(parts) > 1 and rng.random() < 0.6 else ", " * (len(parts) > 1))
        + parts[-1]
    )
    prompt = order(
        rng,
        (
            "(Reply with|Answer with|Return|Give me|Write|Output|Make|Create|Respond with) (a "
            "JSON object with|JSON with|only a JSON object with|a JSON object where|one JSON "
            "object with) {told}"
        ),
        told=told,
    )
    return ask(prompt, to_json(pairs))


def wrapped_answer(rng: random.Random) -> Exchange:
    """A question with its answer under one key."""
    key = rng.choice(("answer", "result", "capital", "value", "reply", "output"))
    value: object
    if rng.random() < 0.5:
        country = rng.choice(sorted(CAPITALS))
        question, value = f"What is the capital of {country}?", CAPITALS[country]
    else:
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        question, value = rng.choice((f"What is {a} + {b}?", f"What is {a} plus {b}?")), a + b
    told = expand(
        rng,
        (
            "(Answer in JSON with the key|Reply in JSON with the key|Reply as a JSON object with "
            "the key|Return JSON with the key|Answer in JSON with key)"
        ),
    )
    if rng.random() < 0.3:
        return ask(question, to_json({key: value}), f"{told} {key}.")
    prompt = f"{question} {told} {key}." if rng.random() < 0.6 else f"{told} {key}: {question}"
    return ask(prompt, to_json({key: value}))


def json_list(rng: random.Random) -> Exchange:
    """Things as a JSON array, or under a key."""
    words = [
        thing(rng) if rng.random() < 0.7 else made_up_word(rng) for _ in range(rng.randint(2, 5))
    ]
    shown = ", ".join(words)
    if rng.random() < 0.4:
        return ask(
            order(
                rng,
                (
                    "(Make|Write|Return|Give me|Reply with|Convert to) a JSON (array|list)(| of|:"
                    "|with:| from:) {words}"
                ),
                words=shown,
            ),
            to_json(words),
        )
    key = rng.choice(("items", "words", "things", "list", "values", "tags"))
    prompt = order(
        rng,
        (
            "(Make|Write|Return|Reply with|Give me) a JSON object with the key {key}(| and these "
            "values| holding the list| for the list): {words}"
        ),
        key=key,
        words=shown,
    )
    return ask(prompt, to_json({key: words}))


def any_json(rng: random.Random) -> Exchange:
    """JSON asked for without saying what is to be in it."""
    prompt = order(
        rng,
        (
            "(Write|Give me|Show me|Return|Reply with|Answer with|Output) (some JSON|a JSON object"
            "|an example of JSON|any JSON object|valid JSON|a small JSON object)(|.)"
        ),
    )
    return ask(prompt, to_json({"name": "Penstock", "answer": 42}))


def greeting_in_json(rng: random.Random) -> Exchange:
    """The system prompt asks for JSON and the user just talks."""
    system = expand(
        rng,
        (
            "(Always answer in JSON.|Answer in JSON.|You answer in JSON.|Reply with a JSON object."
            "|You are a helpful assistant that answers in JSON.|You are a helpful assistant "
            "designed to output JSON.|Respond in JSON.|Output JSON only.)"
        ),
    )
    if rng.random() < 0.4:
        return ask(
            expand(rng, "(Hi|Hello|hello|hey|Hello!|hi there|Good morning)"),
            to_json({"answer": "Hello! How can I help you?"}),
            system,
        )
    if rng.random() < 0.5:
        country = rng.choice(sorted(CAPITALS))
        return ask(
            f"What is the capital of {country}?", to_json({"answer": CAPITALS[country]}), system
        )
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    return ask(f"What is {a} + {b}?", to_json({"answer": a + b}), system)


def _person_facts(rng: random.Random) -> tuple[str, dict[str, object], str]:
    name = person(rng)
    keys = rng.sample(sorted(_FIELDS), rng.choice((1, 1, 2, 2, 3)))
    values: dict[str, object] = {key: _FIELDS[key][1](rng) for key in keys}
    clauses = []
    for key, value in values.items():
        worded = (
            _WORDED[value] if isinstance(value, bool) else rng.choice(_FIELDS[key][2].split("|"))
        )
        clauses.append(worded.replace("{v}", str(value)))
    rng.shuffle(clauses)
    if rng.random() < 0.2:
        sentence = ". ".join(f"{name} {clause}" for clause in clauses)
    else:
        sentence = f"{name} " + (
            ", ".join(clauses[:-1]) + " and " + clauses[-1] if len(clauses) > 1 else clauses[0]
        )
    return name, values, sentence.replace(f"{name} aged", f"{name} is aged") + rng.choice((".", ""))


def _schema(types: dict[str, str]) -> dict[str, object]:
    properties = {key: {"type": kind} for key, kind in types.items()}
    return {"type": "object", "properties": properties, "required": list(types)}


def _value(rng: random.Random) -> object:
    chance = rng.randrange(5)
    if chance == 0:
        return rng.randint(0, 999)
    if chance == 1:
        return rng.choice((True, False))
    if chance == 2:
        return phrase(rng)
    return rng.choice((person, place, thing, made_up_word, lambda r: r.choice(ADJECTIVES)))(rng)


def _spelled(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
