"""Where two rendered prompts part, token by token."""

from collections.abc import Sequence

from engines.rendering import PromptToken, RenderedPrompt
from gateway.parity.excerpt import ending, visible

_NUM_TOKENS_SHOWN = 6


def prompt_difference(reference: RenderedPrompt, other: RenderedPrompt) -> str:
    """What differs, in words; empty if both are the same tokens."""
    at = _common(reference.tokens, other.tokens)
    if at == len(reference.tokens) == len(other.tokens):
        return ""
    before = _text(reference.tokens[:at])
    both = f"{_following(reference.tokens, at)} | {_following(other.tokens, at)}"
    kind = "the same text in other tokens, " if reference.text == other.text else ""
    return f"{kind}token {at}, after {ending(before)}: {both}"


def spelled(tokens: Sequence[PromptToken]) -> str:
    """Tokens one by one, each in brackets with what it spells, and its id where it spells none."""
    return "".join(f"[{_piece(token)}]" for token in tokens)


def _common(one: Sequence[PromptToken], other: Sequence[PromptToken]) -> int:
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at].id != other[at].id), shorter)


def _following(tokens: Sequence[PromptToken], at: int) -> str:
    following = tokens[at : at + _NUM_TOKENS_SHOWN]
    if not following:
        return "the end"
    more = "…" if len(tokens) > at + _NUM_TOKENS_SHOWN else ""
    return spelled(following) + more


def _text(tokens: Sequence[PromptToken]) -> str:
    return b"".join(token.piece for token in tokens).decode("utf-8", "replace")


def _piece(token: PromptToken) -> str:
    text = token.piece.decode("utf-8", "replace")
    return visible(text) if text and "\ufffd" not in text else f"#{token.id}"
