"""What a sequence carries in the tests: a mailbox, and a grammar that is a list of tokens."""

from dataclasses import dataclass, field
from typing import Any

from engines.chat.answer import Ended, Generated, Item
from engines.errors import EngineError
from engines.outbox import Mailbox
from engines.paged.sequence import Sequence
from tests.engines.paged.steps import sequence


class Spelled:
    """A constraint that allows one text: these tokens, then the end.

    `fails` names the method that raises when two tokens were accepted.
    """

    def __init__(self, tokens: list[int], fails: str = "", error: Exception | None = None) -> None:
        self.tokens = tokens
        self.num_accepted = 0
        self.fails = fails
        self.error = error or RuntimeError("this grammar is broken")

    @property
    def is_finished(self) -> bool:
        return self.num_accepted == len(self.tokens)

    def accept(self, token_id: int, /) -> None:
        if self.fails == "accept" and self.num_accepted == 2:
            raise self.error
        assert token_id == self.tokens[self.num_accepted]
        self.num_accepted += 1

    def mask(self) -> set[int]:
        if self.fails == "mask" and self.num_accepted == 2:
            raise self.error
        return {self.tokens[self.num_accepted]}


@dataclass
class Recipient:
    """Obeys the protocol of the same name."""

    constraint: Spelled | None = None
    mailbox: Mailbox[Item] = field(default_factory=Mailbox)


def received(one: Sequence) -> list[Item | EngineError]:
    """All that has arrived for a sequence and was not looked at yet."""
    items: list[Item | EngineError] = []
    while True:
        try:
            item = one.payload.mailbox.get_nowait()
        except EngineError as error:
            item = error
        if item is None:
            return items
        items.append(item)


async def to_the_end(one: Sequence) -> list[int]:
    """The tokens of an answer that ends well, its stop token last; else raises why not."""
    tokens: list[int] = []
    while not isinstance(item := await one.payload.mailbox.get(), Ended):
        if isinstance(item, Generated):
            tokens.append(item.token)
    return tokens if item.stop_token is None else [*tokens, item.stop_token]


def request(prompt: Any, *, constraint: Spelled | None = None, **fields: Any) -> Sequence:
    """A sequence that somebody waits for."""
    return sequence(prompt, payload=Recipient(constraint), **fields)
