"""The words that conversations are made from, and words made up on the spot."""

import random

FIRST_NAMES = (
    "Ada Alan Alice Amir Anna Ben Bob Boris Carla Carlos Chen Clara Dana David Diego Eva Emma "
    "Erik Fatima Felix Frank Grace George Hana Hugo Ida Igor Ines Ivan Jack Jane Jonas Julia Kai "
    "Karen Kofi Lara Leo Lena Liam Linus Lucy Maria Mark Marta Max Mia Mohamed Nadia Nina Noah "
    "Nora Oliver Olga Omar Oscar Paul Petra Priya Quinn Rita Robert Rosa Ruth Sam Sara Sofia "
    "Simon Tara Theo Tim Tom Uma Vera Victor Wendy Will Xenia Yara Yusuf Zoe Mary John Peter "
    "Emily James Sarah Michael"
).split()
LAST_NAMES = (
    "Adams Baker Brown Carter Chen Clark Costa Davis Diaz Evans Fischer Garcia Green Hall Hansen "
    "Hill Jones Khan Kim King Kowalski Lee Lopez Martin Meyer Miller Moore Mori Nguyen Novak "
    "Okafor Patel Perez Rossi Santos Schmidt Silva Singh Smith Stone Suzuki Taylor Turner Walker "
    "Wang White Wood Young Lovelace Turing Hopper"
).split()
_CAPITALS = (
    "France=Paris;Germany=Berlin;Italy=Rome;Spain=Madrid;Portugal=Lisbon;England=London;the "
    "United Kingdom=London;Ireland=Dublin;Scotland=Edinburgh;Wales=Cardiff;Norway=Oslo;"
    "Sweden=Stockholm;Denmark=Copenhagen;Finland=Helsinki;Iceland=Reykjavik;Poland=Warsaw;the "
    "Czech Republic=Prague;Slovakia=Bratislava;Austria=Vienna;Switzerland=Bern;Hungary=Budapest;"
    "Romania=Bucharest;Bulgaria=Sofia;Greece=Athens;Turkey=Ankara;Russia=Moscow;Ukraine=Kyiv;"
    "Belgium=Brussels;the Netherlands=Amsterdam;Estonia=Tallinn;Latvia=Riga;Lithuania=Vilnius;"
    "Croatia=Zagreb;Serbia=Belgrade;Slovenia=Ljubljana;Egypt=Cairo;Morocco=Rabat;Tunisia=Tunis;"
    "Kenya=Nairobi;Ethiopia=Addis Ababa;Nigeria=Abuja;Ghana=Accra;Senegal=Dakar;Uganda=Kampala;"
    "Rwanda=Kigali;Japan=Tokyo;China=Beijing;South Korea=Seoul;India=New Delhi;Pakistan=Islamabad;"
    "Nepal=Kathmandu;Thailand=Bangkok;Vietnam=Hanoi;Indonesia=Jakarta;the Philippines=Manila;"
    "Malaysia=Kuala Lumpur;Australia=Canberra;New Zealand=Wellington;Canada=Ottawa;the United "
    "States=Washington, D.C.;the USA=Washington, D.C.;Mexico=Mexico City;Brazil=Brasilia;"
    "Argentina=Buenos Aires;Chile=Santiago;Peru=Lima;Colombia=Bogota;Cuba=Havana;"
    "Uruguay=Montevideo;Ecuador=Quito;Iran=Tehran;Iraq=Baghdad;Israel=Jerusalem;Jordan=Amman;"
    "Saudi Arabia=Riyadh;Qatar=Doha"
)
CAPITALS: dict[str, str] = {
    country: city for country, _, city in (pair.partition("=") for pair in _CAPITALS.split(";"))
}
CITIES = sorted(
    set(CAPITALS.values()) - {"Washington, D.C."}
    | set(
        "Munich Hamburg Milan Naples Barcelona Porto Lyon Marseille Zurich Geneva Boston Chicago "
        "Dallas Denver Houston Miami Seattle Toronto Montreal Vancouver Mumbai Osaka Kyoto "
        "Shanghai Sydney Melbourne Perth Oxford Cambridge Bristol Leeds Glasgow Lagos Dubai "
        "Istanbul".split()
    )
    | {"New York", "Los Angeles", "San Francisco", "Hong Kong", "Cape Town", "Rio de Janeiro"}
)
COLOURS = "red orange yellow green blue purple pink brown black white grey".split()
ANIMALS = (
    "cat dog fox owl bear wolf lion tiger mouse rabbit horse cow sheep goat duck frog otter whale "
    "dolphin eagle crow robin bee ant snail turtle hedgehog squirrel penguin elephant monkey"
).split()
FRUITS = "apple banana orange pear plum cherry grape lemon mango peach kiwi melon".split()
VEGETABLES = "carrot potato onion tomato cabbage spinach pea bean leek pumpkin".split()
THINGS = (
    "book chair table lamp cup bottle key door window car bike boat train clock phone pen pencil "
    "paper box bag shoe hat coat ring coin ball kite drum guitar piano bridge tower garden river "
    "mountain lake forest island house castle stone bread soup cake coffee tea milk water cheese "
    "laptop screen keyboard cable server valve pump turbine"
).split()
ADJECTIVES = (
    "big small old new red blue green quick slow happy sad brave quiet loud bright dark warm cold "
    "soft hard tall short heavy light clean tired hungry clever kind lazy purple golden silver"
).split()
VERBS = (
    "runs jumps sleeps sings walks swims reads writes eats drinks waits smiles dances climbs "
    "flies falls looks listens works plays"
).split()
JOBS = (
    "teacher doctor nurse engineer farmer baker painter writer lawyer pilot driver chef gardener "
    "student designer plumber scientist musician dentist librarian"
).split()

_CONSONANTS = (
    "b c d f g h j k l m n p r s t v w x z br ch cl dr fl gr kr pl qu sh sk st th tr".split()
)
_VOWELS = "a e i o u a e i o ai ea ee io oa ou".split()
_ENDS = ["", "", "", "n", "r", "s", "t", "l", "m", "x", "ck", "nd", "rk", "th"]


def made_up_word(rng: random.Random) -> str:
    """A word that nobody knows, so that it can only be copied."""
    syllables = rng.choice((1, 2, 2, 2, 3))
    word = "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(syllables))
    return word + rng.choice(_ENDS)


def made_up_name(rng: random.Random) -> str:
    return made_up_word(rng).capitalize()


def person(rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.6:
        return rng.choice(FIRST_NAMES)
    if chance < 0.85:
        return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
    return made_up_name(rng)


def place(rng: random.Random) -> str:
    return rng.choice(CITIES) if rng.random() < 0.75 else made_up_name(rng)


def email(rng: random.Random) -> str:
    name = rng.choice(FIRST_NAMES).lower() if rng.random() < 0.7 else made_up_word(rng)
    if rng.random() < 0.3:
        name += "." + rng.choice(LAST_NAMES).lower()
    host = rng.choice(("example.com", "example.org", "mail.test", f"{made_up_word(rng)}.com"))
    return f"{name}@{host}"


def thing(rng: random.Random) -> str:
    return rng.choice(rng.choice((THINGS, ANIMALS, FRUITS, VEGETABLES)))


_BEYOND_ASCII = (
    "café naïve Zürich São Paulo Ørsted Łódź Dvořák Müller señor crème brûlée jalapeño "
    "œuvre Ελλάδα привет мир こんにちは 你好 世界 안녕 שלום مرحبا नमस्ते สวัสดี ☕ 🚀 🎉 "
    "🙂 👍🏽 ❤️ → ± 100 € £5 «да» “yes” … 5°C"
).split()


def phrase(rng: random.Random) -> str:
    """A few words that make some sense, or none, for copying."""
    kind = rng.randrange(7)
    if rng.random() < 0.05:
        words = (*_BEYOND_ASCII, *_BEYOND_ASCII, *THINGS)
        return " ".join(rng.choice(words) for _ in range(rng.randint(1, 5)))
    if kind == 0:
        return f"the {rng.choice(ADJECTIVES)} {thing(rng)} {rng.choice(VERBS)}"
    if kind == 1:
        return " ".join(thing(rng) for _ in range(rng.randint(1, 6)))
    if kind == 2:
        return " ".join(made_up_word(rng) for _ in range(rng.randint(1, 4)))
    if kind == 3:
        return f"{person(rng)} {rng.choice(VERBS)} near the {rng.choice(ADJECTIVES)} {thing(rng)}"
    if kind == 4:
        return f"{rng.choice(ADJECTIVES)} {thing(rng)}"
    if kind == 5:
        return f"I have {rng.randint(2, 99)} {rng.choice(ADJECTIVES)} {thing(rng)}s"
    words = FIRST_NAMES + THINGS + ADJECTIVES + VERBS + CITIES
    return " ".join(rng.choice(words) for _ in range(rng.randint(2, 8)))
