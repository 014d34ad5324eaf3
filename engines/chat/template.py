"""Renders a conversation into the prompt that a model was trained on.

The model's own template decides how that looks, so every local engine gives a
model the same prompt. A template is code out of a file that nobody vouches for:
sandbox.py runs it. What goes wrong in a template is `Unavailable` if only the
template can be to blame, and `RequestRefused` if other messages might help.
"""

import hashlib
import json
import re
from collections.abc import Generator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, cast

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError
from msgspec import Struct

from engines.chat.meter import MAX_STEPS, Meter, TemplateTooExpensive
from engines.chat.reasoning import OPEN
from engines.chat.sandbox import ConversationRefused, Sandbox
from engines.chat.tool_format import ToolFormat
from engines.errors import EngineError, RequestRefused, Unavailable, Unsupported
from engines.protocol import Image, Message, NamedTool, Tool, ToolCall, ToolChoice

MAX_SOURCE_CHARS = 100_000
_BRIEF_CHARS = 200_000
_BRIEF_STEPS = 2_000
_BRIEF_SECONDS = 0.005

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
"""For models that bring no template."""


class Rendered(Struct, frozen=True):
    """A prompt, and whether it ends inside `<think>`: then the answer begins with thinking."""

    text: str
    starts_in_reasoning: bool


class NotBrief(Exception):
    """A render that was to be brief takes longer; it can be done again in a thread."""


class ChatTemplate:
    """One model's chat template, compiled once; may be used from several threads.

    `supports_tools`: it puts tools into the prompt. `supports_system`: and system
    messages. `can_think`: the model may write `<think>`. `tool_format`: how the
    model writes its tool calls, as far as the template gives it away.
    """

    def __init__(
        self, source: str, bos_token: str = "", eos_token: str = "", *, tool_source: str = ""
    ) -> None:
        """Compile `source`, and `tool_source` to be used instead when there are tools."""
        self._special = {"bos_token": bos_token, "eos_token": eos_token}
        self._sandbox = Sandbox()
        sources = source + tool_source
        with _blame(None):
            self._template, self._names = self._compiled(source)
            self._tool_template, tool_names = self._template, self._names
            if tool_source:
                self._tool_template, tool_names = self._compiled(tool_source)
        self.supports_tools = "tools" in tool_names
        self.can_think = OPEN in sources or "enable_thinking" in self._names
        self.tool_format = _tool_format(sources)
        self._mentions_tool_calls = "tool_calls" in sources
        self._mentions_developer = "developer" in sources
        self.supports_system = self._shows_system()

    @classmethod
    def from_tokenizer_config(cls, config: Mapping[str, Any]) -> "ChatTemplate":
        """Build it from the content of a `tokenizer_config.json`, or ChatML if that has none."""
        found = config.get("chat_template")
        named: dict[str, str] = {"default": found} if isinstance(found, str) else {}
        if isinstance(found, list):
            for entry in cast("list[Any]", found):
                if isinstance(entry, dict) and {"name", "template"} <= entry.keys():
                    named[str(entry["name"])] = str(entry["template"])  # pyright: ignore[reportUnknownArgumentType]
        first = next(iter(named.values()), CHATML)
        return cls(
            named.get("default", first),
            _special_token(config, "bos_token"),
            _special_token(config, "eos_token"),
            tool_source=named.get("tool_use", ""),
        )

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        reasoning_effort: str | None = None,
        add_generation_prompt: bool = True,
        brief: bool = False,
    ) -> Rendered:
        """Return the prompt. Raises `RequestRefused`, or `Unavailable` for a broken template.

        With `brief`, it takes some milliseconds at most, or raises `NotBrief`.
        """
        tools = _chosen(tools, tool_choice)
        if tools and not self.supports_tools:
            raise Unsupported("this model's chat template has no place for tools", param="tools")
        variables: dict[str, Any] = {
            **self._special,
            "add_generation_prompt": add_generation_prompt,
            "tools": [_tool(tool) for tool in tools] or None,
        }
        if reasoning_effort is not None:
            variables["reasoning_effort"] = reasoning_effort
            variables["enable_thinking"] = reasoning_effort != "none"
        template = self._tool_template if tools else self._template
        with _blame("messages"):
            run = self._run_briefly if brief else self._run
            try:
                text = run(template, self._messages(messages, parses=True), variables)
            except TypeError:
                # Some templates put the arguments of past calls into the text as they are.
                text = run(template, self._messages(messages, parses=False), variables)
        return Rendered(text, add_generation_prompt and text.rstrip().endswith(OPEN))

    def _compiled(self, source: str) -> tuple[Template, Set[str]]:
        """Return the template and the variables that it asks for."""
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateTooExpensive(f"it has over {MAX_SOURCE_CHARS} characters")
        names = meta.find_undeclared_variables(self._sandbox.parse(source))
        return self._sandbox.compiled(source), names

    def _run(
        self,
        template: Template,
        messages: list[dict[str, Any]],
        variables: Mapping[str, Any],
        *,
        max_steps: int = MAX_STEPS,
    ) -> str:
        # Generous for any template that has an end, and proportional, so that a long
        # conversation is never the reason why a template is called too expensive.
        size = len(json.dumps([messages, variables["tools"]], ensure_ascii=False))
        return self._sandbox.run(
            template,
            {**variables, "messages": messages},
            meter=Meter(max_chars=4 * 1024 * 1024 + 64 * size, max_steps=max_steps),
            max_chars=1024 * 1024 + 16 * size,
        )

    def _run_briefly(
        self, template: Template, messages: list[dict[str, Any]], variables: Mapping[str, Any]
    ) -> str:
        meter = Meter(max_chars=_BRIEF_CHARS, max_steps=_BRIEF_STEPS, max_seconds=_BRIEF_SECONDS)
        try:
            meter.make(meter.measure([messages, variables["tools"]]))
            return self._sandbox.run(
                template,
                {**variables, "messages": messages},
                meter=meter,
                max_chars=_BRIEF_CHARS,
            )
        except TemplateTooExpensive:
            raise NotBrief from None

    def _messages(self, messages: Sequence[Message], *, parses: bool) -> list[dict[str, Any]]:
        """Say the messages as templates expect them; `parses` the arguments of past calls."""
        names = {call.id: call.name for message in messages for call in message.tool_calls}
        return [self._message(message, names, parses=parses) for message in messages]

    def _message(
        self, message: Message, names: Mapping[str, str], *, parses: bool
    ) -> dict[str, Any]:
        role = message.role
        if role == "developer" and not self._mentions_developer:
            role = "system"
        said: dict[str, Any] = {"role": role, "content": _content(message)}
        if message.name is not None:
            said["name"] = message.name
        if message.tool_calls:
            if not self._mentions_tool_calls:
                raise Unsupported(
                    "this model's chat template has no place for tool calls", param="messages"
                )
            said["tool_calls"] = [
                {
                    "id": self._call_id(call.id),
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": _parsed(call) if parses else call.arguments,
                    },
                }
                for call in message.tool_calls
            ]
        if message.answers_tool_call is not None:
            said["tool_call_id"] = self._call_id(message.answers_tool_call)
            said.setdefault("name", names.get(message.answers_tool_call, ""))
        return said

    def _call_id(self, call_id: str) -> str:
        # Mistral's templates refuse any id that is not nine letters or digits.
        if self.tool_format is not ToolFormat.MISTRAL or _MISTRAL_ID.fullmatch(call_id):
            return call_id
        return hashlib.sha256(call_id.encode(errors="replace")).hexdigest()[:9]

    def _shows_system(self) -> bool:
        mark = "penstock-7f3a"
        asked = [
            {"role": "system", "content": mark},
            {"role": "user", "content": "hello"},
        ]
        variables = {**self._special, "add_generation_prompt": True, "tools": None}
        try:
            with _blame("messages"):
                return mark in self._run(self._template, asked, variables, max_steps=10_000)
        except EngineError:
            return False


_MISTRAL_ID = re.compile("[a-zA-Z0-9]{9}")


@contextmanager
def _blame(param: str | None) -> Generator[None]:
    """Turn what goes wrong in a template into an error for the caller.

    With `param`, messages are being rendered, and other messages might do better.
    """
    try:
        yield
    except ConversationRefused as error:
        message = f"the model's chat template refuses these messages: {error}"
        raise RequestRefused(message, param=param) from None
    except (SecurityError, TemplateTooExpensive) as error:
        message = f"the model's chat template is not safe to run: {error}"
        raise Unavailable(message) from None
    except (
        TemplateError,
        RuntimeError,
        SyntaxError,
        MemoryError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        AssertionError,
    ) as error:
        reason = "it nests too deeply" if isinstance(error, RecursionError) else _first_line(error)
        if param is None:
            raise Unavailable(f"the model's chat template does not compile: {reason}") from None
        message = f"the model's chat template cannot render these messages: {reason}"
        raise RequestRefused(message, param=param) from None


def _first_line(error: Exception) -> str:
    line = f", line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
    return (str(error).split("\n", 1)[0][:200] or type(error).__name__) + line


def _chosen(tools: Sequence[Tool], choice: ToolChoice) -> Sequence[Tool]:
    """Return the tools that the model shall be told of."""
    if choice == "none":
        return ()
    if not isinstance(choice, NamedTool):
        return tools
    chosen = [tool for tool in tools if tool.name == choice.name]
    if not chosen:
        there_are = ", ".join(tool.name for tool in tools) or "none"
        message = (
            f"tool_choice names {choice.name!r}, which is not in tools (there are: {there_are})"
        )
        raise RequestRefused(message, param="tool_choice")
    return chosen


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def _content(message: Message) -> str:
    for part in message.parts:
        if isinstance(part, Image):
            raise Unsupported("this model cannot read images", param="messages")
    return message.text


def _parsed(call: ToolCall) -> Any:
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments
    return cast("Any", arguments) if isinstance(arguments, dict) else call.arguments


def _special_token(config: Mapping[str, Any], name: str) -> str:
    token = config.get(name)
    if isinstance(token, dict):
        token = cast("dict[str, Any]", token).get("content")
    return token if isinstance(token, str) else ""


def _tool_format(source: str) -> ToolFormat:
    if "[TOOL_CALLS]" in source or "[AVAILABLE_TOOLS]" in source:
        return ToolFormat.MISTRAL
    if "<tool_call>" in source:
        return ToolFormat.HERMES
    if "<|python_tag|>" in source or "ipython" in source:
        return ToolFormat.LLAMA3_JSON
    return ToolFormat.HERMES
