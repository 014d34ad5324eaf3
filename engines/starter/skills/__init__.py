"""What the starter model can do: one generator of exchanges per skill, and how often each.

A generator takes a `random.Random` and makes one `Exchange`. They know nothing of system
prompts that do not matter, of earlier turns, or of tokens: see `conversations.py`.
"""

from engines.starter.skills import (
    echo,
    facts,
    itself,
    json_answers,
    lists,
    penstock,
    small_talk,
    stories,
    sums,
    tool_calls,
    unknown,
)
from engines.starter.skills.exchange import Exchange, Skill, ask

SKILLS: dict[str, tuple[tuple[Skill, float], ...]] = {
    "small talk": (
        (small_talk.talk, 6),
        (small_talk.introduction, 1),
        (small_talk.polite_order, 0.7),
    ),
    "names": ((small_talk.remembered_name, 2), (small_talk.given_name, 1.5)),
    "itself": ((itself.about_itself, 4),),
    "penstock": ((penstock.about_penstock, 8), (penstock.key_for, 1.5)),
    "sums": (
        (sums.arithmetic, 9),
        (sums.difference, 1.5),
        (sums.product, 1.5),
        (sums.story_sum, 1.5),
    ),
    "numbers": ((sums.comparison, 1), (sums.neighbour, 1)),
    "repeating": (
        (echo.repetition, 7),
        (echo.test_phrase, 1),
        (echo.repeated, 1.2),
        (echo.letter_case, 0.4),
        (echo.picked, 1),
    ),
    "counting": ((lists.counting, 4),),
    "listing": (
        (lists.whole_list, 2.5),
        (lists.some_of, 2),
        (lists.bullets, 1.5),
        (lists.next_one, 1),
        (lists.how_many, 1),
    ),
    "capitals": ((facts.capital, 4), (facts.unknown_capital, 1)),
    "colours": ((facts.colour_of, 2), (facts.mixed_colours, 0.5)),
    "facts": ((facts.fact, 2.5), (facts.opposite, 2), (facts.kind_of, 1.5)),
    "unknown": ((unknown.unknown, 7), (unknown.large_sum, 0.7)),
    "json": (
        (json_answers.described_person, 4),
        (json_answers.by_schema, 3.5),
        (json_answers.told_values, 3),
        (json_answers.wrapped_answer, 1.5),
        (json_answers.json_list, 1),
        (json_answers.any_json, 0.3),
        (json_answers.greeting_in_json, 0.7),
    ),
    "tools": ((tool_calls.tool_call, 9), (tool_calls.no_call, 1.5), (tool_calls.own_sum, 0.7)),
    "stories": ((stories.story, 1), (stories.poem, 1)),
}

__all__ = ["SKILLS", "Exchange", "Skill", "ask"]
