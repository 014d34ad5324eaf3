"""The chat template of the starter model: ChatML, with tools the way Hermes and Qwen2.5 do it.

The same text is in `starter.gguf` and in `tokenizer_config.json`. Training renders its
conversations with it too, so what the model saw is what an engine will send.
"""

import json
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
TEXT_END = "<|endoftext|>"
SPECIAL_TOKENS = (TEXT_END, TURN_START, TURN_END)

CHAT_TEMPLATE = r"""
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] + '\n\n' }}
    {%- endif %}
    {{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n' }}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:' }}
    {{- '\n<tools>' }}
    {%- for tool in tools %}
        {{- '\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\n</tools>\n\nFor each function call, return a json object with function name and ' }}
    {{- 'arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\n' }}
    {{- '</tool_call><|im_end|>\n' }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message['role'] == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1]['role'] != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' + message['content'] + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1]['role'] != 'tool' %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- '<|im_start|>assistant' }}
        {%- if message['content'] %}
            {{- '\n' + message['content'] }}
        {%- elif not message['tool_calls'] %}
            {{- '\n' }}
        {%- endif %}
        {%- for tool_call in message['tool_calls'] or [] %}
            {%- set function = tool_call['function'] if tool_call['function'] else tool_call %}
            {{- '\n<tool_call>\n{"name": ' }}
            {{- function['name'] | tojson }}
            {{- ', "arguments": ' }}
            {%- if function['arguments'] is string %}
                {{- function['arguments'] }}
            {%- else %}
                {{- function['arguments'] | tojson }}
            {%- endif %}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message['role'] == 'user' or message['role'] == 'system' %}
        {%- if message['role'] == 'user' or not loop.first %}
            {{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
        {%- endif %}
    {%- else %}
        {{- raise_exception('the starter model knows no role "' + message['role'] + '"') }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
""".strip()


class TemplateRefused(ValueError):
    """The template called `raise_exception`."""


def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> str:
    """The messages as the text the model reads, ending where the assistant begins to speak."""
    return _TEMPLATE.render(messages=messages, tools=tools, add_generation_prompt=True)


def to_json(value: object) -> str:
    """JSON as the model sees and writes it: one line, a space after each comma and colon."""
    return json.dumps(value, ensure_ascii=False)


def _refuse(message: str) -> None:
    raise TemplateRefused(message)


def _template() -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **options: to_json(value)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(CHAT_TEMPLATE)


_TEMPLATE = _template()
