"""How a gap in a text is shown to a model that was trained to fill it (Bavarian et al., 2022)."""

from typing import NamedTuple


class GapMarks(NamedTuple):
    """The three marks, as token ids: before, what is there, after, what is there, gap, answer."""

    before: int
    after: int
    gap: int
