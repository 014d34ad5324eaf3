"""Texts of a given number of everyday words, most of which are one token each."""

from random import Random

_WORDS = (
    "river", "gate", "turbine", "water", "stone", "field", "garden", "window", "letter", "winter",
    "summer", "morning", "evening", "music", "bridge", "harbour", "island", "forest", "meadow",
    "kitchen", "market", "village", "castle", "engine", "lantern",
)  # fmt: skip


def words(random: Random, count: int) -> str:
    """`count` words, the first of them a number, so that no two texts begin alike."""
    return " ".join([str(random.randrange(10**6)), *random.choices(_WORDS, k=max(0, count - 1))])


def token_ids(random: Random, count: int, *, vocab_size: int) -> list[int]:
    """`count` random token ids below `vocab_size`."""
    return [random.randrange(vocab_size) for _ in range(count)]
