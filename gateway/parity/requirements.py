"""How much must agree: for each aspect, the least share of prompts."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from gateway.parity.aspects import Aspect
from gateway.parity.problems import CannotCompare
from gateway.policy.problems import way_out

# Log-probabilities of two engines are never quite the same, so they are told and not required.
DEFAULTS: Mapping[Aspect, float] = MappingProxyType(
    {aspect: 0.0 if aspect is Aspect.LOGPROBS else 1.0 for aspect in Aspect}
)
ALL = "all"
_ROUNDING = 1e-9  # 0.9 of ten prompts is nine


class Share(Struct, frozen=True, kw_only=True):
    """How many of the prompts that could be compared in an aspect agree, and how many must."""

    aspect: Aspect
    agreeing: int
    compared: int
    required: float
    was_asked_for: bool = False

    @property
    def holds(self) -> bool:
        """What was asked for and could not be compared at all does not hold."""
        if not self.compared:
            return self.required == 0 or not self.was_asked_for
        return self.agreeing / self.compared >= self.required - _ROUNDING


class Requirements(Struct, frozen=True, kw_only=True):
    """The least share for each aspect, and which of them the user named."""

    least: Mapping[Aspect, float] = DEFAULTS
    asked_for: frozenset[Aspect] = frozenset()

    def share(self, aspect: Aspect, findings: Iterable[bool | None]) -> Share:
        """Hold an aspect's findings, one for each prompt, against what is required."""
        compared = [agrees for agrees in findings if agrees is not None]
        return Share(
            aspect=aspect,
            agreeing=sum(compared),
            compared=len(compared),
            required=self.least[aspect],
            was_asked_for=aspect in self.asked_for,
        )


def requirements_of(texts: Iterable[str]) -> Requirements:
    """What `text=0.9,json=1` and `all=0.8` ask for, later ones winning. Raises `CannotCompare`."""
    least = dict(DEFAULTS)
    asked_for: set[Aspect] = set()
    for entry in (entry.strip() for text in texts for entry in text.split(",")):
        name, equals, number = entry.partition("=")
        share = _share(number)
        if not equals or share is None:
            raise CannotCompare(
                f"{entry!r} is not an aspect and a share from 0 to 1, as in text=0.9"
            )
        if name == ALL:
            least = dict.fromkeys(Aspect, share)
        elif name in set(Aspect):
            least[Aspect(name)] = share
            asked_for.add(Aspect(name))
        else:
            raise CannotCompare(f"there is no aspect {name!r}{way_out(name, [*Aspect, ALL])}")
    return Requirements(least=least, asked_for=frozenset(asked_for))


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None
