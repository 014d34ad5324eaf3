"""Places to compare: policies with scripted engines, and answers put down by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.errors import EngineError
from engines.protocol import GenerateRequest, TokenLogprob, TopLogprob
from engines.rendering import PromptToken, RenderedPrompt
from gateway.gateway import Gateway
from gateway.parity.answer import Answer
from gateway.parity.asking import ask_all
from gateway.parity.compare import Tolerance
from gateway.parity.policy_side import PolicySide
from gateway.parity.prompt_set import CHAT, Prompt
from gateway.parity.report import Report, report_of
from gateway.parity.requirements import requirements_of
from gateway.parity.side import Manner, Side
from gateway.settings import Settings
from tests.fakes import Script, ScriptedEngine
from tests.serving import scripted_gateway, write_policy

# Nobody may call anything: what is asked all the same is asked by nobody.
LOCKED = {"teams.toml": '[me]\nmodels = []\nendpoints = []\nlimits = "none"'}


class TemplatedEngine(ScriptedEngine):
    """Shows its prompts: `template` with the messages in it, every word a token."""

    def __init__(self, script: Script = ("hello", " there"), *, template: str = "<u> {}") -> None:
        super().__init__(script)
        self.template = template

    async def count_tokens(self, request: GenerateRequest) -> int:
        return len((await self.render(request)).tokens)

    async def render(self, request: GenerateRequest) -> RenderedPrompt:
        return rendered(self.template.format(" ".join(each.text for each in request.messages)))


class UnrenderingEngine(TemplatedEngine):
    """Its prompts cannot be shown."""

    async def count_tokens(self, request: GenerateRequest) -> int:
        return 3

    async def render(self, request: GenerateRequest) -> RenderedPrompt:
        raise EngineError("no template")


def rendered(text: str) -> RenderedPrompt:
    """A prompt in which every word is a token, whose id is made of its letters."""
    words = text.split(" ")
    tokens = [
        PromptToken(sum(map(ord, word)), (" " * (at > 0) + word).encode())
        for at, word in enumerate(words)
    ]
    return RenderedPrompt(text=text, tokens=tokens)


def policy_side(
    directory: Path,
    engine: ScriptedEngine,
    model: str = "chat-small",
    files: Mapping[str, str] | None = None,
) -> PolicySide:
    """A policy in a directory of its own, whose one engine is this; `files` replaces some."""
    write_policy(directory, {**LOCKED, **(files or {})})

    def opening(settings: Settings) -> Gateway:
        return scripted_gateway(settings.policy, {"scripted": engine}, settings=settings)

    scratch = directory.parent / f"{directory.name}-scratch"
    scratch.mkdir()
    return PolicySide(directory, model, name=directory.name, scratch=scratch, opening=opening)


def prompt(text: str = "hi", **body: object) -> Prompt:
    """A chat prompt of the name of its text."""
    message = {"role": "user", "content": text}
    return Prompt(name=text, endpoint=CHAT, body={"messages": [message], **body})


async def compared(
    sides: Sequence[Side],
    prompts: Sequence[Prompt] = (prompt(),),
    *require: str,
    tolerance: Tolerance | None = None,
) -> Report:
    """Everything that was found of these sides."""
    heard = await ask_all(sides, prompts, Manner())
    return report_of(prompts, heard, requirements_of(require), tolerance or Tolerance())


def scored(*tokens: tuple[str, float] | tuple[str, float, str, float]) -> list[TokenLogprob]:
    """Tokens with their log-probabilities, each with its best rival if one is named."""
    entries: list[TokenLogprob] = []
    for word, logprob, *rival in tokens:
        top = [TopLogprob(word.encode(), logprob)]
        if rival:
            top.append(TopLogprob(str(rival[0]).encode(), float(rival[1])))
        entries.append(TokenLogprob(word.encode(), logprob, top))
    return entries


def answer(text: str = "", **fields: object) -> Answer:
    """An answer that said this."""
    return Answer(text=text, **{"finish_reason": "stop", **fields})  # type: ignore[arg-type]
