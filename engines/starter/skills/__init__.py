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

# How often in the first part of the training, and how often in the second, which practises
# what the first left weak: sums, copying, and finding a tool in the list.
SKILLS: dict[str, tuple[tuple[Skill, float, float], ...]] = {
    "small talk": (
        (small_talk.talk, 6, 4),
        (small_talk.introduction, 1, 1),
        (small_talk.polite_order, 0.7, 0.7),
    ),
    "names": ((small_talk.remembered_name, 2, 2), (small_talk.given_name, 1.5, 1)),
    "itself": ((itself.about_itself, 4, 2.5),),
    "penstock": ((penstock.about_penstock, 8, 6), (penstock.key_for, 1.5, 1.5)),
    "sums": (
        (sums.arithmetic, 12, 20),
        (sums.difference, 1.5, 3),
        (sums.product, 1.5, 3),
        (sums.story_sum, 1.5, 3),
    ),
    "numbers": ((sums.comparison, 1, 3), (sums.neighbour, 1, 2)),
    "repeating": (
        (echo.repetition, 7, 8),
        (echo.test_phrase, 1, 0.6),
        (echo.repeated, 1.2, 2),
        (echo.letter_case, 0.4, 0.4),
        (echo.picked, 1, 2),
    ),
    "counting": ((lists.counting, 5, 5),),
    "listing": (
        (lists.whole_list, 2.5, 1.5),
        (lists.some_of, 2, 2),
        (lists.bullets, 1.5, 2.5),
        (lists.next_one, 1, 1),
        (lists.how_many, 1, 0.7),
    ),
    "capitals": ((facts.capital, 4, 3), (facts.unknown_capital, 1, 1)),
    "colours": ((facts.colour_of, 2, 1), (facts.mixed_colours, 0.5, 0.5)),
    "facts": ((facts.fact, 2.5, 2), (facts.opposite, 2, 1.5), (facts.kind_of, 1.5, 1.5)),
    "unknown": ((unknown.unknown, 7, 6), (unknown.large_sum, 0.7, 0.7)),
    "json": (
        (json_answers.described_person, 4, 6),
        (json_answers.by_schema, 3.5, 6),
        (json_answers.told_values, 3, 5),
        (json_answers.wrapped_answer, 1.5, 2),
        (json_answers.json_list, 1, 1),
        (json_answers.any_json, 0.3, 0.2),
        (json_answers.greeting_in_json, 0.7, 0.7),
    ),
    "tools": (
        (tool_calls.tool_call, 9, 9),
        (tool_calls.no_call, 1.5, 2),
        (tool_calls.own_sum, 0.7, 1),
        (tool_calls.renamed_tool_call, 0, 10),
    ),
    "stories": ((stories.story, 1, 0.7), (stories.poem, 1, 0.7)),
}

__all__ = ["SKILLS", "Exchange", "Skill", "ask"]
