"""Calls the right one of the tools it was given, and answers from what the tool responds."""

import random

from engines.starter.skills import facts, itself, penstock, small_talk, sums, unknown
from engines.starter.skills.exchange import Exchange, Message
from engines.starter.skills.phrasing import expand, say
from engines.starter.skills.toolbox import SPELLINGS, TOOLS, Tool, made_up_tool
from engines.starter.skills.words import made_up_word, thing
from engines.starter.template import to_json


def tool_call(rng: random.Random) -> Exchange:
    """Calls of one to five tools, one after another; mostly each with response and answer."""
    first = _Offer(rng, _any_tool(rng))
    return _calls(rng, first, _offers(rng, first))


def renamed_tool_call(rng: random.Random) -> Exchange:
    """The usual tools under names that nobody expects, to be found by their descriptions."""
    first = _Offer(rng, rng.choice(TOOLS))
    offers = _offers(rng, first)
    for offer in offers:
        if offer is first or rng.random() < 0.5:
            offer.rename(rng)
    return _calls(rng, first, offers)


def _calls(rng: random.Random, first: "_Offer", offers: "list[_Offer]") -> Exchange:
    messages: list[Message] = []
    for at in range(rng.choice((1, 1, 2, 3))):
        offer = first if at == 0 else rng.choice(offers)
        tool = offer.tool
        values = {key: maker(rng) for key, (_, maker) in tool.parameters.items()}
        request = say(rng, tool.requests, **values)
        arguments = {offer.spelled(key): value for key, value in values.items()}
        messages += [{"role": "user", "content": request}, _call(offer.name, arguments)]
        response, answer = tool.response(rng, values)
        content = response if isinstance(response, str) else to_json(response)
        messages += [{"role": "tool", "content": content}, {"role": "assistant", "content": answer}]
    if rng.random() < 0.3:
        messages = messages[:-2]
    return Exchange(tuple(messages), tuple(offer.described(rng) for offer in offers))


def no_call(rng: random.Random) -> Exchange:
    """Tools are there, but the user wants none of them."""
    offers = _offers(rng, _Offer(rng, _any_tool(rng)))
    talk = rng.choice(
        (small_talk.talk, small_talk.talk, facts.capital, facts.fact, small_talk.introduction,
         unknown.explanation, itself.about_itself, penstock.about_penstock)
    )  # fmt: skip
    return Exchange(talk(rng).messages, tuple(offer.described(rng) for offer in offers))


def own_sum(rng: random.Random) -> Exchange:
    """A small sum with a tool that has nothing to do with sums."""
    tool = rng.choice([tool for tool in TOOLS if "a" not in tool.parameters])
    return Exchange(sums.arithmetic(rng).messages, (_Offer(rng, tool).described(rng),))


class _Offer:
    """A tool under one of its names, with its parameters under one of theirs."""

    def __init__(self, rng: random.Random, tool: Tool) -> None:
        self.tool = tool
        self.name = rng.choice(tool.names.split("|"))
        self._is_renamed = False
        which = rng.randrange(12)
        self._spellings = {
            key: spellings[which % len(spellings)] for key, spellings in SPELLINGS.items()
        }

    def spelled(self, key: str) -> str:
        known = key in self._spellings and self.tool in TOOLS
        return self._spellings[key] if known else key

    def rename(self, rng: random.Random) -> None:
        self.name = rng.choice((made_up_word(rng), f"{made_up_word(rng)}_{thing(rng)}"))
        self._is_renamed = True

    def described(self, rng: random.Random) -> Message:
        properties: dict[str, Message] = {}
        for key, (kind, _) in self.tool.parameters.items():
            properties[self.spelled(key)] = {"type": kind}
            if rng.random() < 0.25:
                properties[self.spelled(key)]["description"] = f"The {key}"
        required = list(properties)
        if "city" in self.tool.parameters and rng.random() < 0.2:
            properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
        parameters: Message = {"type": "object", "properties": properties}
        if rng.random() < 0.8:
            parameters["required"] = required
        function: Message = {"name": self.name}
        if rng.random() < 0.85 or self._is_renamed:
            description = expand(rng, self.tool.description) + rng.choice(("", "."))
            function["description"] = description
        function["parameters"] = parameters
        return {"type": "function", "function": function}


def _any_tool(rng: random.Random) -> Tool:
    return made_up_tool(rng) if rng.random() < 0.4 else rng.choice(TOOLS)


def _offers(rng: random.Random, first: _Offer) -> list[_Offer]:
    """`first` among others, in any order. No two of them are for one purpose."""
    others = [tool for tool in TOOLS if tool.description != first.tool.description]
    offers = [_Offer(rng, tool) for tool in rng.sample(others, rng.choice((0, 0, 1, 1, 2, 3)))]
    if rng.random() < 0.3:
        offers.append(_Offer(rng, made_up_tool(rng)))
    offers.append(first)
    rng.shuffle(offers)
    return offers


def _call(name: str, arguments: dict[str, object]) -> Message:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}
