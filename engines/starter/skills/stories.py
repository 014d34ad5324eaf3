"""Short stories and poems about a subject the user names: the longest answers in prose."""

import random

from engines.starter.skills.exchange import Exchange, ask
from engines.starter.skills.phrasing import order, with_article
from engines.starter.skills.words import ADJECTIVES, ANIMALS, THINGS, made_up_word, person

_STORIES = (
    "Once upon a time there was {a_subject} who lived near a quiet river. Every morning the "
    "{subject} looked at the water and wondered where it went. "
    "One day the {subject} followed it, past the forest and over the hills, until the river "
    "reached the sea. "
    '"So this is where you go," said the {subject}, and was happy. Then the {subject} '
    "walked all the way home and told everyone. The end.",
    "There was once {a_subject} that nobody in the village had ever noticed. One winter night a "
    "storm came, and all the lights went out. Only the {subject} was still there in the morning, "
    "and it showed everybody the way. From that day on, people in the village said good morning "
    "to the {subject}. The end.",
)
_HERO_STORY = (
    'Once upon a time {who} found {a_subject} in the old mill by the river. "Who left you '
    'here?" asked {who}, but the {subject} did not answer. '
    "So {who} took the {subject} home, cleaned it and put it by the window. The next "
    "morning the sun shone on it, and the whole room was full of light. "
    "{who} smiled and never gave it away. The end."
)
_POEM = (
    "The {subject} wakes when day is new,\nthe grass is wet with morning dew.\nThe "
    "{subject} rests when day is done,\n"
    "and says good night to the setting sun."
)
_SHORT_POEM = "A {subject} by the water's side,\na quiet friend, a patient guide."


def story(rng: random.Random) -> Exchange:
    subject = _subject(rng)
    chance = rng.random()
    if chance < 0.3:
        prompt = order(
            rng,
            (
                "(Tell me|Write|Tell|Write me|Tell us|I want|Make up|Can you tell me|Give me) a ("
                "|short |little |nice |bedtime )story(|.|!|?)"
            ),
        )
        return ask(prompt, _filled(_STORIES[0], "fox"))
    if chance < 0.7:
        prompt = order(
            rng,
            (
                "(Tell me|Write|Tell|Write me|Make up|Can you tell me|Give me) a (|short |little "
                "|nice |bedtime )story about {subject}(|.|!)"
            ),
            subject=_shown(rng, subject),
        )
        return ask(
            prompt,
            _filled(_STORIES[0], subject) if subject in ANIMALS else _filled(_STORIES[1], subject),
        )
    who = person(rng)
    subject = rng.choice(THINGS)
    prompt = order(
        rng,
        "(Tell me|Write|Tell|Write me|Make up) a (|short )story about {who} and {subject}(|.)",
        who=who,
        subject=with_article(subject),
    )
    return ask(prompt, _filled(_HERO_STORY, subject).replace("{who}", who))


def poem(rng: random.Random) -> Exchange:
    subject = _subject(rng)
    chance = rng.random()
    if chance < 0.25:
        prompt = order(
            rng,
            (
                "(Write|Tell me|Write me|Make|Recite|Compose|Give me|I want) a (|nice |little "
                ")(poem|rhyme)(|.|!)"
            ),
        )
        return ask(prompt, _filled(_POEM, "river"))
    if chance < 0.8:
        prompt = order(
            rng,
            (
                "(Write|Tell me|Write me|Make|Compose|Can you write|Give me) a (|nice |little "
                ")(poem|rhyme) about {subject}(|.)"
            ),
            subject=_shown(rng, subject),
        )
        return ask(prompt, _filled(_POEM, subject))
    prompt = order(
        rng,
        "(Write|Tell me|Write me|Compose) a short (poem|rhyme) about {subject}(|.)",
        subject=_shown(rng, subject),
    )
    return ask(prompt, _filled(_SHORT_POEM, subject))


def _subject(rng: random.Random) -> str:
    return made_up_word(rng) if rng.random() < 0.15 else rng.choice((*ANIMALS, *THINGS))


def _shown(rng: random.Random, subject: str) -> str:
    chance = rng.random()
    if chance < 0.2:
        return f"{with_article(rng.choice(ADJECTIVES))} {subject}"
    return f"the {subject}" if chance < 0.4 else with_article(subject)


def _filled(text: str, subject: str) -> str:
    return text.replace("{a_subject}", with_article(subject)).replace("{subject}", subject)
