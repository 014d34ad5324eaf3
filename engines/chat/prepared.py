"""What a request makes of its answer: how it is read, and what it must be.

The same for every local engine, so that a model answers alike whichever runs it.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from engines.chat.after_thinking import AfterThinking
from engines.chat.constraints import ConstraintCompiler, ConstraintState
from engines.chat.output import ChatOutput
from engines.chat.template import ChatTemplate, Rendered
from engines.chat.tool_grammar import tool_constraint
from engines.protocol import GenerateRequest, Sampling

FALLBACK = Sampling(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05, repeat_penalty=1.0)
"""How to sample where neither the request nor the model says it: llama.cpp's own defaults."""

_MAX_INLINE_STOP_CHARS = 500  # a fifth of a millisecond to compile; more goes to a thread


class Answering(Protocol):
    """What a local engine knows of how a loaded model answers."""

    @property
    def template(self) -> ChatTemplate | None:
        """The model's chat template; None if it has none."""
        ...

    @property
    def constraints(self) -> ConstraintCompiler:
        """Compiles for this vocabulary; slow to make, so asked for off the event loop."""
        ...

    @property
    def end_of_thinking(self) -> int | None:
        """The one token that spells `</think>`, if there is one."""
        ...

    @property
    def end_ids(self) -> Sequence[int]:
        """The tokens that end an answer."""
        ...


async def output_of(
    model: Answering, request: GenerateRequest, rendered: Rendered | None
) -> ChatOutput:
    """What reads the answer's text: stop strings, and for a chat thinking and tool calls."""
    if sum(map(len, request.stop)) <= _MAX_INLINE_STOP_CHARS:
        return _output_of(model, request, rendered)
    return await asyncio.to_thread(_output_of, model, request, rendered)


def _output_of(model: Answering, request: GenerateRequest, rendered: Rendered | None) -> ChatOutput:
    if rendered is None or model.template is None:
        return ChatOutput(stops=request.stop)
    return ChatOutput(
        stops=request.stop,
        tools=request.tools,
        tool_choice=request.tool_choice,
        tool_format=model.template.tool_format,
        starts_in_reasoning=rendered.starts_in_reasoning,
        splits_reasoning=model.template.can_think,
        parallel_tool_calls=request.parallel_tool_calls,
    )


async def constraint_of(
    model: Answering, request: GenerateRequest, rendered: Rendered | None
) -> ConstraintState | AfterThinking | None:
    """What the answer must be, compiled off the event loop. Raises `RequestRefused`."""
    wanted = request.constraint
    param = "response_format"
    if request.tools and model.template is not None:
        forced = tool_constraint(
            request.tools,
            request.tool_choice,
            model.template.tool_format,
            parallel=request.parallel_tool_calls,
        )
        if forced is not None:
            wanted, param = forced, "tools"
    if wanted is None:
        return None
    compile_it = lambda: model.constraints.compile(wanted, param=param)  # noqa: E731
    state = await asyncio.to_thread(compile_it)
    starts_in_reasoning = rendered is not None and rendered.starts_in_reasoning
    if starts_in_reasoning and model.end_of_thinking is not None:
        return AfterThinking(state, model.end_of_thinking, model.end_ids)
    return state


def completed(sampling: Sampling, defaults: Sampling) -> Sampling:
    """`sampling` with the model's own values where the request has none."""
    missing = {
        name: getattr(defaults, name)
        for name in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty")
        if getattr(sampling, name) is None
    }
    return msgspec.structs.replace(sampling, **missing)
