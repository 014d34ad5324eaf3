"""The tools that conversations offer: usual ones with requests in words, and made-up ones.

A tool is a `Tool`: its parameters, the ways to ask for it, and what it may respond. The
made-up ones have names that nobody has seen, so that the name of a call can only come from
the list in the system prompt.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from engines.starter.skills.words import (
    COLOURS,
    email,
    made_up_word,
    person,
    phrase,
    place,
    thing,
)

Maker = Callable[[random.Random], object]


@dataclass(frozen=True)
class Tool:
    """One function: `parameters` maps a name to its JSON type and a maker of values."""

    names: str
    description: str
    parameters: dict[str, tuple[str, Maker]]
    requests: str
    response: Callable[[random.Random, dict[str, object]], tuple[object, str]]
    """What the tool says to these arguments, and the answer to the user that follows."""


def _number(low: int, high: int) -> Maker:
    return lambda rng: rng.randint(low, high)


def _weather(rng: random.Random, given: dict[str, object]) -> tuple[object, str]:
    sky = rng.choice(("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear"))
    degrees = rng.randint(-10, 38)
    if rng.random() < 0.5:
        return {
            "temperature": degrees,
            "condition": sky,
        }, f"It is {sky} in {given['city']}, with {degrees} degrees."
    return f"{sky}, {degrees} degrees", f"It is {sky} in {given['city']}, with {degrees} degrees."


def _time(rng: random.Random, given: dict[str, object]) -> tuple[object, str]:
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    return rng.choice(({"time": clock}, clock)), f"It is {clock} in {given['city']}."


def _total(rng: random.Random, given: dict[str, object]) -> tuple[object, str]:
    total = int(str(given["a"])) + int(str(given["b"]))
    return rng.choice(({"result": total}, total)), f"The result is {total}."


def _product(rng: random.Random, given: dict[str, object]) -> tuple[object, str]:
    result = int(str(given["a"])) * int(str(given["b"]))
    return rng.choice(({"result": result}, result)), f"The result is {result}."


def _found(rng: random.Random, given: dict[str, object]) -> tuple[object, str]:
    title = phrase(rng)
    return {"results": [{"title": title}]}, f"I found this: {title}."


def _done(rng: random.Random, given: dict[str, object]) -> tuple[object, str]:
    return rng.choice(({"status": "ok"}, {"ok": True}, "done", {"status": "done"})), "Done."


def _price(rng: random.Random, given: dict[str, object]) -> tuple[object, str]:
    price = rng.randint(1, 999)
    return {"price": price}, f"The price is {price}."


def _value(rng: random.Random, given: dict[str, object]) -> tuple[object, str]:
    value = rng.choice((rng.randint(0, 999), made_up_word(rng), thing(rng)))
    return rng.choice(({"result": value}, value)), f"The result is {value}."


_CITY = ("string", place)
TOOLS = (
    Tool(
        "get_weather|get_current_weather|weather|fetch_weather|lookup_weather|weather_in",
        "Get the (current |)weather (in|for) a city",
        {"city": _CITY},
        (
            "(What is|What's|How is|Tell me) the weather (like |)in {city}(| today| now| right "
            "now)?|weather in {city}(|?)|(Is it raining|Is it cold|Is it warm|Will it rain|Is it "
            "sunny|Do I need an umbrella) in {city}?|How (warm|cold|hot) is it in {city}?|Check "
            "the weather in {city}.|Get the weather for {city}."
        ),
        _weather,
    ),
    Tool(
        "get_time|current_time|get_current_time|time_in|clock",
        "Get the (current |local |)time in a city",
        {"city": _CITY},
        (
            "What time is it in {city}(| now)?|What is the (|local |current )time in {city}?|Tell "
            "me the time in {city}.|time in {city}(|?)|How late is it in {city}?"
        ),
        _time,
    ),
    Tool(
        "add|add_numbers|sum|plus|calculate_sum",
        "Add two numbers",
        {"a": ("integer", _number(0, 9999)), "b": ("integer", _number(0, 9999))},
        (
            "What is {a} plus {b}?|Add {a} and {b}.|What is {a} + {b}?|Calculate {a} + {b}.|How "
            "much is {a} and {b}?|Use the tool to add {a} and {b}.|{a} + {b}"
        ),
        _total,
    ),
    Tool(
        "multiply|multiply_numbers|times|product",
        "Multiply two numbers",
        {"a": ("integer", _number(0, 99)), "b": ("integer", _number(0, 99))},
        (
            "What is {a} times {b}?|Multiply {a} (and|by) {b}.|What is {a} * {b}?|Calculate {a} "
            "times {b}."
        ),
        _product,
    ),
    Tool(
        "search|web_search|search_web|find_documents|lookup",
        "Search the (web|documents|internet)",
        {"query": ("string", phrase)},
        (
            "(Search|Search the web|Look|Look on the web|Search the internet) for {query}(|.)"
            "|Find {query}(|.)|Look up {query}(|.)|Search: {query}|Find something about {query}("
            "|.)"
        ),
        _found,
    ),
    Tool(
        "send_email|email|send_mail",
        "Send an email",
        {"to": ("string", email), "subject": ("string", phrase)},
        (
            "Send an email to {to} (with the subject|about|with subject) {subject}(|.)|Email {to} "
            "about {subject}(|.)|Write a mail to {to} with the subject {subject}(|.)|Mail {to}: "
            "{subject}"
        ),
        _done,
    ),
    Tool(
        "send_message|message|text_person|notify",
        "Send a (text |)message to (a person|someone)",
        {"to": ("string", person), "text": ("string", phrase)},
        (
            "Send {to} (the message|a message saying|this message:) {text}(|.)|Tell {to}: {text}"
            "|Write to {to}: {text}|Message {to} saying {text}(|.)"
        ),
        _done,
    ),
    Tool(
        "set_timer|start_timer|timer",
        "(Set|Start) a timer",
        {"minutes": ("integer", _number(1, 120))},
        (
            "(Set|Start) a timer (for|of) {minutes} minutes(|.)|Wake me in {minutes} minutes(|.)"
            "|Timer {minutes} minutes|Remind me in {minutes} minutes(|.)"
        ),
        _done,
    ),
    Tool(
        "set_light|set_colour|light_colour|set_lamp",
        "Set the colour of (a|the) lamp",
        {"colour": ("string", lambda rng: rng.choice(COLOURS))},
        (
            "(Make|Turn) the (light|lamp) {colour}(|.)|Set the (light|lamp|colour) to {colour}(|.)"
            "|I want {colour} light(|.)"
        ),
        _done,
    ),
    Tool(
        "get_price|price_of|lookup_price|get_stock_price",
        "Get the price of (an item|something)",
        {"item": ("string", thing)},
        (
            "What is the price of (a |the |){item}?|How much (is|does) (a |the |){item}( cost|)?"
            "|(Look up|Check|Get) the price of {item}(|.)|price of {item}(|?)"
        ),
        _price,
    ),
    Tool(
        "book_flight|find_flight|search_flights",
        "(Book|Find) a flight",
        {"origin": _CITY, "destination": _CITY},
        (
            "(Book|Find|I need|Search) a flight from {origin} to {destination}(|.)|I want to fly "
            "from {origin} to {destination}(|.)|Fly me from {origin} to {destination}(|.)"
        ),
        _done,
    ),
    Tool(
        "play_song|play_music|play",
        "Play (a song|music)",
        {"title": ("string", phrase)},
        (
            "Play {title}(|.)|Play the song {title}(|.)|I want to hear {title}(|.)|Put on {title}("
            "|.)"
        ),
        _done,
    ),
    Tool(
        "create_task|add_todo|add_task|remember",
        "(Add a task|Create a task|Add something to the list)",
        {"title": ("string", phrase)},
        (
            "(Add|Create|Make) a task(|:| called| named) {title}(|.)|Add {title} to my (list"
            "|tasks)(|.)|Put {title} on my list(|.)|Remember: {title}"
        ),
        _done,
    ),
    Tool(
        "get_user|find_user|lookup_person|find_person|get_contact",
        "Find a person by name",
        {"name": ("string", person)},
        (
            "(Find|Look up|Get|Show me) the (user|person|contact) {name}(|.)|Who is {name}?|Find "
            "{name}(|.)|Look up {name}(|.)"
        ),
        _value,
    ),
)

# Other names that a parameter may have in a tool's description.
SPELLINGS = {
    "city": ("city", "city", "location", "location", "place", "town"),
    "query": ("query", "query", "q", "text", "question"),
    "to": ("to", "to", "recipient", "address"),
    "text": ("text", "message", "body", "content"),
    "title": ("title", "title", "name", "task"),
    "item": ("item", "product", "symbol", "name"),
    "minutes": ("minutes", "minutes", "duration"),
    "colour": ("colour", "color"),
    "a": ("a", "a", "x", "first"),
    "b": ("b", "b", "y", "second"),
    "origin": ("origin", "from", "start"),
    "destination": ("destination", "to", "end"),
    "name": ("name", "name", "person", "user"),
}

_ARGUMENTS = (
    "name",
    "value",
    "x",
    "text",
    "id",
    "key",
    "item",
    "place",
    "count",
    "level",
    "target",
)


def made_up_tool(rng: random.Random) -> Tool:
    """A tool with a made-up name, asked for by that name."""
    name = rng.choice(
        (
            made_up_word(rng),
            f"{made_up_word(rng)}_{made_up_word(rng)}",
            f"get_{made_up_word(rng)}",
            f"{rng.choice(('set', 'run', 'make', 'find', 'send', 'do'))}_{thing(rng)}",
        )
    )
    keys = [
        made_up_word(rng) if rng.random() < 0.3 else key
        for key in rng.sample(_ARGUMENTS, rng.choice((1, 1, 2)))
    ]
    parameters: dict[str, tuple[str, Maker]] = {}
    for key in keys:
        numeric = key in ("count", "level", "x") or rng.random() < 0.15
        maker = rng.choice((made_up_word, thing, person, place))
        parameters[key] = ("integer", _number(0, 999)) if numeric else ("string", maker)
    worded = " and ".join(f"{key} {{{key}}}" for key in parameters)
    requests = (
        f"(Call|Use|Run|Please call|Invoke) {name} with {worded}(|.)|(Use the tool|Call the "
        f"function|Use the function|Call the tool) {name} with {worded}(|.)"
    )
    if len(parameters) == 1:
        requests += f"|{name} {{{keys[0]}}}|(Call|Use|Run) {name} (for|on) {{{keys[0]}}}(|.)"
    return Tool(
        name,
        f"(Does|Runs|Gets) {made_up_word(rng)} (for|with|of) {made_up_word(rng)}",
        parameters,
        requests,
        _value,
    )
