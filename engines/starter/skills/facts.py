"""The few facts it knows: capitals, colours, opposites and what every child asks."""

import random

from engines.starter.skills.exchange import Exchange, ask
from engines.starter.skills.phrasing import say, with_article
from engines.starter.skills.words import ANIMALS, CAPITALS, FRUITS, VEGETABLES, made_up_name

_COLOURS_OF = {
    "the sky": "blue",
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "a banana": "yellow",
    "a lemon": "yellow",
    "blood": "red",
    "a strawberry": "red",
    "a tomato": "red",
    "the sun": "yellow",
    "the sea": "blue",
    "a carrot": "orange",
    "chocolate": "brown",
    "milk": "white",
    "an elephant": "grey",
    "a flamingo": "pink",
    "a leaf": "green",
    "the night": "black",
    "a frog": "green",
    "a cherry": "red",
    "salt": "white",
    "gold": "yellow",
    "wood": "brown",
    "an aubergine": "purple",
    "a ruby": "red",
    "an emerald": "green",
    "a crow": "black",
    "a swan": "white",
    "paper": "white",
    "coffee": "brown",
}
_OPPOSITES = (
    "hot cold;big small;tall short;fast slow;old new;happy sad;light dark;hard soft;high low;open "
    "closed;early late;full empty;good bad;heavy light;left right;loud quiet;long short;rich poor;"
    "strong weak;wet dry;up down;in out;day night;begin end;true false;yes no;black white;clean "
    "dirty;young old;near far;thick thin;wide narrow;push pull;first last;win lose;buy sell;love "
    "hate;war peace;start stop;easy difficult;cheap expensive;inside outside;above below;before "
    "after;always never"
)
_MIXED = {
    ("red", "blue"): "purple",
    ("red", "yellow"): "orange",
    ("blue", "yellow"): "green",
    ("black", "white"): "grey",
    ("red", "white"): "pink",
}
_FACTS = (
    (
        (
            "(Why is the sky blue|Why is the sky blue, please|Explain why the sky is blue|Why "
            "does the sky look blue|How come the sky is blue|What makes the sky blue)?"
        ),
        "Air scatters blue light from the sun more than red light, so the sky looks blue.",
    ),
    (
        "(Why is grass green|Why are leaves green|What makes grass green|Why are plants green)?",
        "Plants look green because chlorophyll, which they need to catch light, reflects green.",
    ),
    (
        (
            "(What is water made of|What is water|What is the formula of water|What is the "
            "chemical formula of water|What is H2O)?"
        ),
        "Water is made of hydrogen and oxygen: H2O.",
    ),
    (
        (
            "(At what temperature does water boil|When does water boil|What is the boiling point "
            "of water)?"
        ),
        "Water boils at 100 degrees Celsius.",
    ),
    (
        (
            "(At what temperature does water freeze|When does water freeze|What is the freezing "
            "point of water)?"
        ),
        "Water freezes at 0 degrees Celsius.",
    ),
    (
        (
            "(What is the largest planet|Which planet is the largest|What is the biggest planet"
            "|Which is the biggest planet)?"
        ),
        "Jupiter is the largest planet.",
    ),
    (
        (
            "(What is the smallest planet|Which planet is the smallest|Which planet is closest to "
            "the sun)?"
        ),
        "Mercury is the smallest planet, and the closest to the sun.",
    ),
    ("(What is the sun|Is the sun a star|What kind of thing is the sun)?", "The sun is a star."),
    (
        "(What is the moon|Tell me about the moon|What goes around the Earth)?",
        "The moon is a ball of rock that goes around the Earth.",
    ),
    (
        (
            "(Is the Earth flat|Is the earth round|What shape is the Earth|What is the shape of "
            "the Earth)?"
        ),
        "The Earth is round, like a ball.",
    ),
    (
        "(What is the largest ocean|Which ocean is the largest|What is the biggest ocean)?",
        "The Pacific is the largest ocean.",
    ),
    (
        (
            "(What is the highest mountain|Which mountain is the highest|What is the tallest "
            "mountain in the world|What is the highest mountain on Earth)?"
        ),
        "Mount Everest is the highest mountain.",
    ),
    (
        "(What is the largest animal|Which animal is the largest|What is the biggest animal)?",
        "The blue whale is the largest animal.",
    ),
    (
        (
            "(What is the fastest animal|Which animal is the fastest|What is the fastest land "
            "animal)?"
        ),
        "The cheetah is the fastest animal on land.",
    ),
    ("(What do bees make|What does a bee make|What do bees do)?", "Bees make honey."),
    ("(What do cows eat|What does a cow eat)?", "Cows eat grass."),
    ("(What does a cat say|What sound does a cat make)?", "A cat says meow."),
    ("(What does a dog say|What sound does a dog make)?", "A dog says woof."),
    ("(What does a cow say|What sound does a cow make)?", "A cow says moo."),
    (
        "(What is a computer|Explain what a computer is|What does a computer do)?",
        "A computer is a machine that follows instructions very fast.",
    ),
    (
        "(What is Python|Tell me about Python|What is Python used for)?",
        "Python is a programming language that is easy to read.",
    ),
    ("(What is Linux|Tell me about Linux)?", "Linux is a free operating system."),
    (
        "(What is an API|What does API mean|Explain what an API is)?",
        "An API is the way in which one program calls another.",
    ),
    (
        "(What is JSON|What does JSON mean|Explain JSON|Tell me about JSON)?",
        "JSON is a simple text format for data, with objects, lists, strings and numbers.",
    ),
    (
        (
            "(What is a language model|What is an LLM|What is a large language model|Explain "
            "language models|How does a language model work|How do you work)?"
        ),
        "A language model reads text and predicts, word by word, how it goes on.",
    ),
    (
        "(What is a token|What are tokens|Explain tokens)?",
        "A token is a piece of text, such as a word or a part of a word.",
    ),
    (
        "(What is a turbine|What does a turbine do)?",
        "A turbine is a wheel that water, steam or wind turns.",
    ),
    (
        "(What is AI|What is artificial intelligence|Explain AI)?",
        "Artificial intelligence is software that does what usually needs human thought.",
    ),
    (
        "(What is a GPU|What does a GPU do|Explain what a GPU is)?",
        "A GPU is a processor that does very many small calculations at once.",
    ),
    (
        (
            "(Write hello world in Python|How do I print hello world in Python|Hello world in "
            "Python|Write a Python program|Write a hello world program)(|.|?)"
        ),
        'print("Hello, world!")',
    ),
)

_PAIRS = [pair.split() for pair in _OPPOSITES.split(";")]


def capital(rng: random.Random) -> Exchange:
    country = rng.choice(sorted(CAPITALS))
    shown = country if rng.random() < 0.8 else country.lower()
    if rng.random() < 0.8:
        prompt = say(
            rng,
            "(What is|What's|Tell me|Name|Do you know|Give me|Can you tell me|I want to know) the "
            "capital (|city )of {country}?|{country}: what is the capital?|Which city is the "
            "capital of {country}?|(capital of|the capital of) {country}(|?)|What is {country}'s "
            "capital(| city)?",
            country=shown,
        )
        return ask(prompt, f"The capital of {country} is {CAPITALS[country].rstrip('.')}.")
    city = CAPITALS[country]
    country = next(name for name, its in CAPITALS.items() if its == city)
    prompt = say(
        rng,
        (
            "(Which country has the capital|Of which country is {city} the capital|{city} is the "
            "capital of which country)"
        ),
        city=city,
    )
    prompt = prompt if city in prompt else f"{prompt} {city}"
    return ask(prompt + rng.choice(("?", "")), f"{city} is the capital of {country}.")


def unknown_capital(rng: random.Random) -> Exchange:
    """A country that does not exist, so that it learns to look before it answers."""
    country = made_up_name(rng) + rng.choice(("", "land", "ia", "stan"))
    prompt = say(
        rng,
        "(What is|What's|Tell me|Do you know) the capital (|city )of {country}?",
        country=country,
    )
    return ask(prompt, "I do not know that. I am only a small starter model.")


def colour_of(rng: random.Random) -> Exchange:
    what = rng.choice(sorted(_COLOURS_OF))
    prompt = say(
        rng,
        (
            "(What|Which) (colour|color) (is|has) {what}?|What is the (colour|color) of {what}?"
            "|Tell me the (colour|color) of {what}."
        ),
        what=what,
    )
    return ask(prompt, f"{what[0].upper()}{what[1:]} is {_COLOURS_OF[what]}.")


def mixed_colours(rng: random.Random) -> Exchange:
    pair = rng.choice(sorted(_MIXED))
    a, b = pair if rng.random() < 0.5 else pair[::-1]
    prompt = say(
        rng,
        (
            "(What (colour|color) do (you get|I get|we get) when (you|I|we) mix|What do you get "
            "if you mix|What (colour|color) do|Mix) {a} and {b}(| make| give)?"
        ),
        a=a,
        b=b,
    )
    return ask(prompt, f"{a.capitalize()} and {b} make {_MIXED[pair]}.")


def opposite(rng: random.Random) -> Exchange:
    pair = rng.choice(_PAIRS)
    a, b = pair if pair[0] in ("light", "old", "short") or rng.random() < 0.6 else pair[::-1]
    b = {"light": "dark", "old": "new", "short": "long"}.get(a, b)
    prompt = say(
        rng,
        (
            "(What is|What's|Tell me|Give me|Name) the opposite of {quoted}?|What is the (antonym "
            "of|contrary of) {quoted}?|opposite of {quoted}|The opposite of {quoted} is(| what)?"
        ),
        quoted=rng.choice((a, a, f'"{a}"')),
    )
    return ask(prompt, f"The opposite of {a} is {b}.")


def fact(rng: random.Random) -> Exchange:
    pattern, answer = rng.choice(_FACTS) if rng.random() < 0.85 else _FACTS[0]
    return ask(say(rng, pattern), answer)


def kind_of(rng: random.Random) -> Exchange:
    """Whether a thing is an animal, a fruit, a vegetable, a country or a capital."""
    kinds = {"animal": ANIMALS, "fruit": FRUITS, "vegetable": VEGETABLES}
    kind = rng.choice(sorted(kinds))
    noun = with_article(rng.choice(kinds[kind]))
    if rng.random() < 0.5:
        prompt = say(
            rng, "(What is|What's|What kind of thing is|Tell me what is) {noun}?", noun=noun
        )
        return ask(prompt, f"{noun[0].upper()}{noun[1:]} is {with_article(kind)}.")
    asked = rng.choice(sorted(kinds))
    prompt = say(rng, "Is {noun} {asked}?", noun=noun, asked=with_article(asked))
    if asked == kind:
        return ask(prompt, f"Yes, {noun} is {with_article(kind)}.")
    return ask(prompt, f"No, {noun} is {with_article(kind)}.")
