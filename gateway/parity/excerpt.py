"""Text of a model as it may be shown on a terminal: visible, on one line, not too long."""

NUM_CONTEXT_CHARS = 40


def visible(text: str) -> str:
    """Every character that would move, colour or break the line as its escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def beginning(text: str, num_chars: int = NUM_CONTEXT_CHARS) -> str:
    """The first characters, in quotes."""
    cut = "…" if len(text) > num_chars else ""
    return f"‘{visible(text[:num_chars])}{cut}’"


def ending(text: str, num_chars: int = NUM_CONTEXT_CHARS) -> str:
    """The last characters, in quotes."""
    cut = "…" if len(text) > num_chars else ""
    return f"‘{cut}{visible(text[-num_chars:])}’" if text else "the beginning"


def first_difference(one: str, other: str) -> int:
    """The place of the first character that is not the same; the shorter one's end if none is."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)
