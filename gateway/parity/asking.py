"""Asks every side every prompt: one side after the other, as large models do not fit twice."""

import asyncio
import functools
from collections.abc import Callable, Sequence

from gateway.parity.answer import Answer
from gateway.parity.prompt_set import Prompt
from gateway.parity.report import Heard
from gateway.parity.side import Asker, Manner, Side

Told = Callable[[str, int], None]  # a side's name, and how many of its prompts are answered


def _tell_nobody(_name: str, _num_answered: int) -> None:
    pass


async def ask_all(
    sides: Sequence[Side],
    prompts: Sequence[Prompt],
    manner: Manner,
    *,
    at_once: int = 1,
    tell: Told = _tell_nobody,
) -> list[Heard]:
    """What every side answers. Raises `CannotCompare`."""
    for side in sides:
        await side.check(prompts)
    heard: list[Heard] = []
    for side in sides:
        told = functools.partial(tell, side.name)
        told(0)
        async with side.opened() as asker:
            answers = await answers_of(asker, prompts, manner, at_once=at_once, tell=told)
        heard.append(Heard(name=side.name, model=side.model, answers=answers))
    return heard


async def answers_of(
    asker: Asker,
    prompts: Sequence[Prompt],
    manner: Manner,
    *,
    at_once: int = 1,
    tell: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """The answers, in the order of the prompts. Raises `CannotCompare`, with none under way."""
    answers: dict[int, Answer] = {}
    waiting = iter(enumerate(prompts))

    async def ask_on() -> None:
        for at, prompt in waiting:
            answers[at] = await asker.ask(prompt, manner)
            tell(len(answers))

    tasks = [asyncio.ensure_future(ask_on()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [answers[at] for at in range(len(prompts))]
