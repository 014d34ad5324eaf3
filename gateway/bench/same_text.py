"""Are greedy answers the same in company as alone?

An engine that batches may add up in another order and flip a near-tie. Whether
it does is a property of the engine; this only finds out.
"""

from collections.abc import Sequence

from msgspec import Struct

from gateway.bench.drive import Run

_SHOWN = 60  # characters of each text, from shortly before they part


class Difference(Struct, frozen=True, kw_only=True):
    """A question whose two answers part at character `at`."""

    conversation: int
    turn: int
    at: int
    alone: str
    together: str


class Comparison(Struct, frozen=True):
    """How many questions were answered in at least one of two runs, and which differ."""

    compared: int
    differences: Sequence[Difference]


def compared(alone: Run, together: Run) -> Comparison:
    """Hold the answers of two runs against each other; one that is missing differs."""
    one, other = _texts(alone), _texts(together)
    found: list[Difference] = []
    keys = sorted(one.keys() | other.keys())
    for key in keys:
        first, second = one.get(key), other.get(key)
        if first == second:
            continue
        at = _parting(first or "", second or "")
        begin = max(0, at - _SHOWN // 3)
        found.append(
            Difference(
                conversation=key[0],
                turn=key[1],
                at=at,
                alone="(failed)" if first is None else first[begin : begin + _SHOWN],
                together="(failed)" if second is None else second[begin : begin + _SHOWN],
            )
        )
    return Comparison(len(keys), found)


def _texts(run: Run) -> dict[tuple[int, int], str]:
    return {(sample.conversation, sample.turn): answer.text for sample, answer in run.answered}


def _parting(first: str, second: str) -> int:
    for at, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return at
    return min(len(first), len(second))
