"""Chooses the chat template of a model that may bring two: Ollama's in Go, its file's in jinja.

If both say the same of plain conversations, the file's own is used: it is what
the model was trained on, and knows of tools and thinking. If they differ,
somebody wanted it so, and the Go template is used, said in jinja. One that cannot
be said in jinja gives way to the file's own; without that, there is no chat, and
a reason that names what could not be said.
"""

from functools import lru_cache

from msgspec import Struct

from engines.chat.template import ChatTemplate
from engines.errors import EngineError, RequestRefused
from engines.gguf.go_template.syntax import CannotTranslate, MalformedTemplate
from engines.gguf.go_template.writing import to_jinja
from engines.protocol import Message, Text

_CONVERSATIONS = (
    (("user", "Hello"),),
    (("system", "Be kind"), ("user", "Hello")),
    (("user", "Hello"), ("assistant", "Hi there"), ("user", "1 + 1?")),
)


class TemplateChoice(Struct, frozen=True, kw_only=True):
    """The template to use, in jinja; None if there is none, and then perhaps why."""

    source: str | None
    note: str = ""  # what became of the Go template, where that is worth telling
    problem: str = ""  # why there is no template although the model brings one


@lru_cache(maxsize=256)
def chosen_template(go_source: str, own_source: str | None) -> TemplateChoice:
    """Choose between a model's Go template (empty: none) and its file's own."""
    if not go_source.strip():
        return TemplateChoice(source=own_source)
    own = _compiled(own_source)
    try:
        said = to_jinja(go_source)
        translated = ChatTemplate(said)
    except (CannotTranslate, EngineError) as error:
        if own is not None:
            note = f"the TEMPLATE cannot be used ({error}): the model's own chat template is"
            return TemplateChoice(source=own_source, note=note)
        return TemplateChoice(
            source=None,
            problem=f"its TEMPLATE cannot be used ({error}), and its file has no chat template of "
            "its own: give it another TEMPLATE, or use it for completions",
        )
    if own is not None and all(
        _rendered(own, conversation) == _rendered(translated, conversation)
        for conversation in _CONVERSATIONS
    ):
        return TemplateChoice(source=own_source)
    return TemplateChoice(source=said)


def check_syntax(go_source: str) -> None:
    """Raise `RequestRefused` for a TEMPLATE with a mistake, whatever else could be used instead."""
    try:
        to_jinja(go_source)
    except MalformedTemplate as error:
        raise RequestRefused(f"the TEMPLATE has a mistake: {error}", param="modelfile") from None
    except CannotTranslate:
        return


def check_template(go_source: str, own_source: str | None) -> str:
    """Check a TEMPLATE for a model to be made. Raises `RequestRefused`; returns what to tell."""
    choice = chosen_template(go_source, own_source)
    if choice.problem:
        raise RequestRefused(f"this model cannot chat: {choice.problem}", param="modelfile")
    return choice.note


def _compiled(source: str | None) -> ChatTemplate | None:
    if source is None:
        return None
    try:
        return ChatTemplate(source)
    except EngineError:
        return None


def _rendered(template: ChatTemplate, conversation: tuple[tuple[str, str], ...]) -> str | None:
    messages = [Message(role=role, parts=(Text(text),)) for role, text in conversation]
    try:
        return template.render(messages).text
    except EngineError:
        return None
