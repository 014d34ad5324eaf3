"""The aspects in which answers are compared, and what was found of one."""

from enum import StrEnum

from msgspec import Struct


class Aspect(StrEnum):
    """What answers may agree in; the words of `--require` and of reports."""

    ANSWERED = "answered"  # both answered, or both refused
    PROMPT = "prompt"  # rendered to the same tokens
    PROMPT_TOKENS = "prompt_tokens"
    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALLS = "tool_calls"  # names and canonical arguments, in order
    JSON = "json"  # both valid, or both not
    FINISH_REASON = "finish_reason"
    COMPLETION_TOKENS = "completion_tokens"  # where the same was said
    LOGPROBS = "logprobs"
    EMBEDDINGS = "embeddings"
    EXPECT = "expect"  # what the prompt expects, of both


class Finding(Struct, frozen=True, kw_only=True):
    """Whether two answers agree in an aspect; None where there is nothing to compare."""

    agrees: bool | None = None
    detail: str = ""  # for people: what differs, or what is worth to know
    is_near_tie: bool = False  # of a text: both first differ where either token nearly won


NOTHING = Finding()
AGREES = Finding(agrees=True)


def differs(detail: str) -> Finding:
    """They do not agree, and how."""
    return Finding(agrees=False, detail=detail)
