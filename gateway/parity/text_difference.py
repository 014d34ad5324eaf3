"""Where two greedy texts part, and whether that was nearly a tie.

Two engines that compute the same model in different precision or order differ
a little in every logit. Where two tokens are almost as likely, that decides.
Texts that part at such a place say little; texts that part where one token
was clearly ahead were made of another prompt or by another model.
"""

from collections.abc import Sequence

from msgspec import Struct

from engines.protocol import TokenLogprob
from gateway.parity.answer import Answer
from gateway.parity.excerpt import beginning, ending, first_difference


class Margin(Struct, frozen=True):
    """How far the chosen token was ahead of the other side's choice, in nats.

    Below zero where a constraint or a penalty kept the likelier one from being chosen.
    """

    nats: float
    is_least: bool = False  # the other one was not even among the alternatives: at least so far

    def __str__(self) -> str:
        return f"{'over ' if self.is_least else ''}{self.nats:.3f}"


class TextDifference(Struct, frozen=True, kw_only=True):
    """The first place where two texts differ."""

    at: int  # characters
    before: str
    reference: str  # what follows there
    other: str
    margins: tuple[Margin | None, Margin | None] = (None, None)  # the reference's, the other's

    def is_near_tie(self, near_tie_nats: float) -> bool:
        """Did each side nearly say what the other said, as far as it told?"""
        known = [margin for margin in self.margins if margin is not None]
        return bool(known) and all(
            not margin.is_least and 0 <= margin.nats <= near_tie_nats for margin in known
        )

    def __str__(self) -> str:
        where = f"character {self.at}, after {ending(self.before)}"
        texts = f"{_or_end(self.reference)} | {_or_end(self.other)}"
        known = [str(margin) if margin is not None else "?" for margin in self.margins]
        margins = f"; ahead by {known[0]} | {known[1]} nats" if known != ["?", "?"] else ""
        return f"{where}: {texts}{margins}"


def text_difference(reference: Answer, other: Answer) -> TextDifference | None:
    """Where the texts part, or None if they are the same."""
    if reference.text == other.text:
        return None
    at = first_difference(reference.text, other.text)
    margins: tuple[Margin | None, Margin | None] = (None, None)
    place = _first_other_token(reference.logprobs, other.logprobs)
    if place is not None:
        one, two = reference.logprobs[place], other.logprobs[place]
        margins = (_margin(one, two.token), _margin(two, one.token))
    return TextDifference(
        at=at,
        before=reference.text[:at],
        reference=reference.text[at:],
        other=other.text[at:],
        margins=margins,
    )


def _first_other_token(one: Sequence[TokenLogprob], other: Sequence[TokenLogprob]) -> int | None:
    for place, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine.token != yours.token:
            return place
    return None


def _margin(chosen: TokenLogprob, rival: bytes) -> Margin | None:
    if not chosen.top:
        return None
    for entry in chosen.top:
        if entry.token == rival:
            return Margin(chosen.logprob - entry.logprob)
    lead = chosen.logprob - min(entry.logprob for entry in chosen.top)
    return Margin(lead, is_least=True) if lead > 0 else None


def _or_end(text: str) -> str:
    return beginning(text) if text else "the end"
