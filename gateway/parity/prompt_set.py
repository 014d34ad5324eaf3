"""The prompts that are sent: those that ship, or a file of the user's own.

A file has one JSON object on each line: the body of a chat completion
(`messages`), a completion (`prompt`) or an embedding (`input`) as any client
would send it, and beside it a `name` and what to `expect` of every answer.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct, field

from gateway.parity.problems import CannotCompare

CHAT, COMPLETIONS, EMBEDDINGS = "openai.chat", "openai.completions", "openai.embeddings"
_ENDPOINTS = {"messages": CHAT, "prompt": COMPLETIONS, "input": EMBEDDINGS}
# Said by the command, or against what it is for.
_RESERVED: Mapping[str, str] = {
    "model": "the command names the model",
    "stream": "every answer is streamed",
    "stream_options": "every answer is streamed",
    "n": "one answer is compared with one",
    "best_of": "one answer is compared with one",
}
MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens")
NUM_ALTERNATIVES = 5  # log-probabilities at each token's place; what both chat and completions take


class Expectation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an answer must be wherever it comes from; what is left out may be anything."""

    equals: str | None = None
    contains: str | Sequence[str] = ()
    matches: str | None = None  # a regular expression, found anywhere in the text
    json_schema: Mapping[str, Any] | bool | None = None
    finish_reason: str | None = None
    tool: str | None = None  # a tool that is called
    arguments: Mapping[str, Any] | None = None  # of that tool, or of any
    refused: bool | None = None


class Prompt(Struct, frozen=True, kw_only=True):
    """One call to make: `body` has neither model nor anything else that the command says."""

    name: str
    endpoint: str
    body: Mapping[str, Any] = field(default_factory=dict[str, Any])
    expect: Expectation | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Does it ask for log-probabilities itself?"""
        return self.body.get("logprobs") not in (None, False)

    def asked(self, model: str, *, max_tokens: int, logprobs: bool) -> dict[str, Any]:
        """The body to send: greedy, bounded, and with log-probabilities if wanted."""
        body = {**self.body, "model": model}
        if self.endpoint == EMBEDDINGS:
            return body
        body["temperature"] = 0
        if not any(name in body for name in MAX_TOKENS_FIELDS):
            body["max_tokens"] = max_tokens
        if logprobs and not self.wants_logprobs:
            if self.endpoint == CHAT:
                body |= {"logprobs": True, "top_logprobs": NUM_ALTERNATIVES}
            else:
                body["logprobs"] = NUM_ALTERNATIVES
        return body


def shipped_prompts() -> list[Prompt]:
    """The set that ships: every part of a request that an engine may take another way."""
    data = (files("gateway.parity") / "prompts.jsonl").read_bytes()
    return _read(data, "the shipped prompts")


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file. Raises `CannotCompare` that names the line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CannotCompare(f"prompts {path}: {error.strerror or error}") from None
    return _read(data, str(path))


def _read(data: bytes, where: str) -> list[Prompt]:
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{where} line {number}"
        prompt = _prompt(line, place, number)
        if prompt.name in prompts:
            raise CannotCompare(f"{place}: there is a prompt {prompt.name!r} already")
        prompts[prompt.name] = prompt
    if not prompts:
        raise CannotCompare(f"{where}: there is no prompt in it")
    return list(prompts.values())


def _prompt(line: bytes, place: str, number: int) -> Prompt:
    try:
        body = msgspec.json.decode(line, type=dict[str, Any])
        name = msgspec.convert(body.pop("name", f"line {number}"), type=str)
        expect = msgspec.convert(body.pop("expect", None), type=Expectation | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CannotCompare(f"{place}: {str(error)[:300]}") from None
    endpoints = [_ENDPOINTS[key] for key in _ENDPOINTS if key in body]
    if len(endpoints) != 1:
        raise CannotCompare(
            f"{place}: it has {len(endpoints)} of messages, prompt and input; exactly one says "
            "which endpoint it is for"
        )
    for key in body:
        if key in _RESERVED:
            raise CannotCompare(f'{place}: take "{key}" out: {_RESERVED[key]}')
    if body.get("temperature") not in (None, 0):
        raise CannotCompare(
            f"{place}: temperature is {body['temperature']}; only greedy answers, which are those "
            "at 0, can be compared"
        )
    if isinstance(prompt := body.get("prompt"), list) and not _is_tokens(cast(object, prompt)):
        raise CannotCompare(f"{place}: prompt is a list of several; put each on a line of its own")
    return Prompt(name=name, endpoint=endpoints[0], body=body, expect=expect)


def _is_tokens(prompt: object) -> bool:
    return isinstance(prompt, list) and all(
        isinstance(token, int) for token in cast(list[object], prompt)
    )
