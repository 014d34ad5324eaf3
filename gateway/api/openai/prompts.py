"""Texts or token ids, one or several: the four forms of `prompt` and `input`."""

from collections.abc import Sequence

from gateway.api.body_errors import shortened
from gateway.errors import BadRequest

Prompt = str | Sequence[int]

MAX_TOKEN_ID = 2**31 - 1


def to_prompts(
    given: str | Sequence[str | int | Sequence[int]], field: str, *, at_most: int
) -> list[Prompt]:
    """The prompts, each text or token ids. Raises `BadRequest` for an empty or a mixed list."""
    if isinstance(given, str):
        return [_filled(given, field)]
    if not given:
        raise BadRequest(f"{field} is an empty list", param=field)
    kinds = {type(item) for item in given}
    if len(kinds) > 1:
        raise BadRequest(
            f"{field} mixes texts, token ids and lists of token ids; send one kind", param=field
        )
    if kinds == {int}:
        return [_tokens([item for item in given if isinstance(item, int)], field)]
    if len(given) > at_most:
        raise BadRequest(f"{field} has {len(given)} entries; at most {at_most}", param=field)
    prompts: list[Prompt] = []
    for place, item in enumerate(given):
        entry = f"{field}[{place}]"
        if isinstance(item, str):
            prompts.append(_filled(item, entry))
        elif not isinstance(item, int):
            prompts.append(_tokens(item, entry))
    return prompts


def _filled(text: str, field: str) -> str:
    if not text:
        raise BadRequest(f"{field} is empty", param=field)
    return text


def _tokens(tokens: Sequence[int], field: str) -> Sequence[int]:
    if not tokens:
        raise BadRequest(f"{field} is an empty list", param=field)
    for token in tokens:
        if not 0 <= token <= MAX_TOKEN_ID:
            shown = shortened(str(token)) if token.bit_length() < 128 else "a huge number"
            raise BadRequest(
                f"{field} has {shown}; token ids are from 0 to {MAX_TOKEN_ID}", param=field
            )
    return tokens
