"""Keys on a fake ledger, with the clock that they go by."""

from datetime import UTC, datetime

from gateway.keys import Invalidations, Keys, NewKey, Pepper
from gateway.keys.text import Claimed, parsed, written
from tests.fakes import FakeClock, FakeLedger

PEPPER = Pepper([b"p" * 32])


class Desk:
    """One process; `another()` is a second one on the same ledger."""

    def __init__(self, invalidations: Invalidations | None = None) -> None:
        self.ledger = FakeLedger()
        self.clock = FakeClock()
        self.invalidations = invalidations
        self.keys = self.another()

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now, UTC)

    def another(self, pepper: Pepper = PEPPER) -> Keys:
        return Keys(
            self.ledger,
            pepper=pepper,
            invalidations=self.invalidations,
            clock=self.clock,
            monotonic=self.clock,
        )


def with_other_secret(new: NewKey) -> str:
    """A well-formed key with the same id that differs in its last secret character."""
    claim = parsed(new.secret)
    assert claim is not None
    last = "x" if claim.secret[-1] != "x" else "y"
    return written(Claimed(claim.id, claim.secret[:-1] + last))
