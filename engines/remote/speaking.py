"""Says one of our requests in OpenAI's words, for a caller who spoke another dialect.

A caller of the same dialect never comes here: its own body is passed on
(relay.py). What OpenAI's specification has no field for is said as vLLM, llama.cpp
and Penstock understand it.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from engines.protocol import (
    Choice,
    Constraint,
    GenerateRequest,
    Grammar,
    Image,
    JsonObject,
    JsonSchema,
    Message,
    NamedTool,
    Part,
    Regex,
    Text,
    Tool,
)
from engines.remote.edits import SAMPLING, Edits

Fields = dict[str, Any]


def path_of(request: GenerateRequest) -> str:
    """Where a request is sent."""
    return "chat/completions" if request.prompt is None else "completions"


def spoken(request: GenerateRequest, edits: Edits) -> bytes:
    """The body that says the same as `request`; its answer is always a stream."""
    fields: Fields = {"model": request.model, "stream": True}
    if edits.ask_for_usage:
        fields["stream_options"] = {"include_usage": True}
    if request.prompt is None:
        fields["messages"] = [_message(message) for message in request.messages]
        fields.update(_chat_fields(request))
    else:
        fields["prompt"] = request.prompt
        if request.suffix is not None:
            fields["suffix"] = request.suffix
        if request.logprobs is not None:
            fields["logprobs"] = request.logprobs
    if request.max_tokens is not None:
        chat = request.prompt is None
        fields[edits.cap_field if chat else "max_tokens"] = request.max_tokens
    if request.stop:
        fields["stop"] = list(request.stop)
    fields.update(_sampling(request))
    if request.constraint is not None:
        fields.update(_constraint(request.constraint))
    fields.update(request.extra)
    return msgspec.json.encode(fields)


def _chat_fields(request: GenerateRequest) -> Fields:
    fields: Fields = {}
    if request.tools:
        fields["tools"] = [_tool(tool) for tool in request.tools]
        fields["tool_choice"] = _tool_choice(request)
        if not request.parallel_tool_calls:
            fields["parallel_tool_calls"] = False
    if request.logprobs is not None:
        fields["logprobs"] = True
        fields["top_logprobs"] = request.logprobs
    if request.reasoning_effort is not None:
        fields["reasoning_effort"] = request.reasoning_effort
    return fields


def _sampling(request: GenerateRequest) -> Fields:
    sampling = request.sampling
    fields: Fields = {
        theirs: value
        for ours, theirs in SAMPLING.items()
        if (value := getattr(sampling, ours)) is not None
    }
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.min_tokens:
        fields["min_tokens"] = sampling.min_tokens
    if sampling.ignore_eos:
        fields["ignore_eos"] = True
    return fields


def _message(message: Message) -> Fields:
    fields: Fields = {"role": message.role}
    if message.answers_tool_call is not None:
        fields["tool_call_id"] = message.answers_tool_call
    if message.name is not None:
        fields["name"] = message.name
    fields["content"] = _content(message.parts)
    if message.tool_calls:
        fields["content"] = fields["content"] or None
        fields["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return fields


def _content(parts: Sequence[Part]) -> str | list[Fields]:
    if all(isinstance(part, Text) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, Text))
    return [_part(part) for part in parts]


def _part(part: Part) -> Fields:
    if isinstance(part, Image):
        data = base64.b64encode(part.data).decode()
        return {"type": "image_url", "image_url": {"url": f"data:{part.media_type};base64,{data}"}}
    return {"type": "text", "text": part.text}


def _tool(tool: Tool) -> Fields:
    function: Fields = {"name": tool.name, "parameters": tool.parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _tool_choice(request: GenerateRequest) -> str | Fields:
    choice = request.tool_choice
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _constraint(constraint: Constraint) -> Mapping[str, Any]:
    match constraint:
        case JsonObject():
            return {"response_format": {"type": "json_object"}}
        case JsonSchema():
            schema = {
                "name": constraint.name or "answer",
                "schema": constraint.schema,
                "strict": constraint.strict,
            }
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case Regex():
            return {"structured_outputs": {"regex": constraint.pattern}}
        case Choice():
            return {"structured_outputs": {"choice": list(constraint.choices)}}
        case Grammar():
            return {"structured_outputs": {"grammar": constraint.grammar}}
