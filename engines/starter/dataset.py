"""Turns conversations into rows of tokens, with a mask of what the model has to learn.

A row holds several conversations one after another, parted by the end-of-text token and
not hidden from each other: the model learns that what came before that token, however
far back, does not matter, and positions far into the context are trained as well.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from tokenizers import Tokenizer

from engines.starter.conversations import Conversation
from engines.starter.template import TEXT_END

_WAITING = 64
"""How many conversations to choose from when filling what is left of a row."""

Encoded = tuple[list[int], list[bool]]


def rows(
    tokenizer: Tokenizer, source: Iterator[Conversation], length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless rows of `length` + 1 tokens, and the mask of the tokens to predict."""
    end = tokenizer.token_to_id(TEXT_END)
    encoded = _encoded(tokenizer, source, length)
    waiting = list(islice(encoded, _WAITING))
    while True:
        tokens: list[int] = []
        learn: list[bool] = []
        while (at := _first_that_fits(waiting, length + 1 - len(tokens))) is not None:
            more_tokens, more_learn = waiting.pop(at)
            waiting.append(next(encoded))
            tokens += [*more_tokens, end]
            learn += [*more_learn, False]
        missing = length + 1 - len(tokens)
        yield (
            np.array(tokens + [end] * missing, dtype=np.int64),
            np.array(learn + [False] * missing, dtype=bool),
        )


def _encoded(
    tokenizer: Tokenizer, source: Iterator[Conversation], max_tokens: int
) -> Iterator[Encoded]:
    for conversation in source:
        tokens: list[int] = []
        learn: list[bool] = []
        for text, is_answer in conversation.pieces():
            piece = tokenizer.encode(text, add_special_tokens=False).ids
            tokens += piece
            learn += [is_answer] * len(piece)
        if len(tokens) < max_tokens:
            yield tokens, learn


def _first_that_fits(waiting: list[Encoded], room: int) -> int | None:
    for at, (tokens, _) in enumerate(waiting):
        if len(tokens) < room:
            return at
    return None
