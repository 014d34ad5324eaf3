"""A toy vocabulary: every byte, some longer tokens, and the special ones of a chat model."""

from engines.chat.constraints import ConstraintCompiler, ConstraintState

WORDS = (b"hello", b'{"', b'": ', b'"}', b" the", "é".encode(), b"\n\n", b"")
TOKENS = [bytes([byte]) for byte in range(256)] + list(WORDS)
EOS = len(TOKENS)
TOKENS.append(b"<|im_end|>")
OPEN, CLOSE = len(TOKENS), len(TOKENS) + 1
TOKENS += [b"<tool_call>", b"</tool_call>"]


def tokenize(text: bytes) -> list[int]:
    return list(text)


def new_compiler(*, special_calls: bool = False) -> ConstraintCompiler:
    special = {EOS, OPEN, CLOSE} if special_calls else {EOS}
    return ConstraintCompiler(TOKENS, eos_ids=[EOS], special_ids=special, tokenize=tokenize)


def follows(state: ConstraintState, text: str | bytes) -> bool:
    """Say whether the text is allowed byte by byte, and may end there."""
    for token in text.encode() if isinstance(text, str) else text:
        if not state.allows(token):
            return False
        state.accept(token)
    return state.may_end
