"""A conversation: what was said, and what each next question says besides."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field


class Conversation(Struct, kw_only=True):
    """One conversation with one model. `options` have Ollama's names."""

    model: str
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    format: str | Mapping[str, Any] | None = None  # "json", or a JSON schema
    think: bool | str | None = None  # None: as the model likes
    keep_alive: str | float | None = None
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    # What the model itself begins with. The gateway puts it before every question.
    begun: Sequence[Mapping[str, Any]] = ()

    def body(self, question: str, images: Sequence[str] = ()) -> dict[str, Any]:
        """What `/api/chat` is asked; `images` are base64."""
        messages = [*self._told(), *self.messages, _turn("user", question, images)]
        return {**self._asked(), "messages": messages, "stream": True}

    def load_body(self) -> dict[str, Any]:
        """What `/api/chat` is asked to load the model and say nothing."""
        return {**self._asked(), "messages": [], "stream": False}

    def add(self, question: str, answer: str, images: Sequence[str] = ()) -> None:
        """Remember a question and its answer."""
        self.messages += [_turn("user", question, images), _turn("assistant", answer)]

    def save_body(self, name: str) -> dict[str, Any]:
        """What `/api/create` is asked to make a model that begins where this conversation is."""
        body: dict[str, Any] = {"model": name, "from": self.model}
        if self.system is not None:
            body["system"] = self.system
        if self.options:
            body["parameters"] = self.options
        if self.messages:
            body["messages"] = [
                {"role": one["role"], "content": one["content"]}
                for one in (*self.begun, *self.messages)
            ]
        return body

    def _told(self) -> list[dict[str, Any]]:
        return [_turn("system", self.system)] if self.system else []

    def _asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "model": self.model,
            "options": self.options or None,
            "format": self.format,
            "think": self.think,
            "keep_alive": self.keep_alive,
        }
        return {name: value for name, value in asked.items() if value is not None}


def _turn(role: str, content: str, images: Sequence[str] = ()) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": role, "content": content}
    return {**turn, "images": list(images)} if images else turn
