"""Keeps a model's output to a schema, a pattern, a choice or a grammar.

A constraint is compiled once (llguidance) into a state machine over the
model's own tokens. Before each token the engine asks it, preferably only about
the token it would take anyway (`allows`), and for a mask of all tokens if that
one is refused. A caller's grammar reaches nothing but llguidance, which returns
errors where others end the process.

Compiling is bounded three times: by size (constraint_limits.py), by the
compiler's own counters, and by the time that the first steps take when they are
tried out. It belongs in a worker thread; it does not hold the interpreter lock.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from threading import Lock
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from engines.chat.grammars import grammar_of
from engines.chat.tool_grammar import ToolConstraint
from engines.errors import RequestRefused
from engines.protocol import Constraint

MAX_CACHED = 32
MAX_COMPILE_SECONDS = 2.0
MAX_STEP_SECONDS = 0.25
_NUM_TRIED_STEPS = 6
_MAX_MESSAGE = 200


class ConstraintState:
    """How far one answer has come in its grammar; one owner, not shared.

    `allows`, `mask` and `apply` raise `RequestRefused` when the grammar turns
    out to be too expensive to follow.
    """

    __slots__ = ("_eos_ids", "_matcher", "_param")

    def __init__(self, matcher: LLMatcher, eos_ids: frozenset[int], param: str) -> None:
        self._matcher = matcher
        self._eos_ids = eos_ids
        self._param = param

    @property
    def is_finished(self) -> bool:
        """The grammar is complete and nothing can follow but the end."""
        return self._matcher.is_stopped()

    @property
    def may_end(self) -> bool:
        """What was accepted so far is a whole text of the grammar."""
        return self._matcher.is_accepting()

    def allows(self, token_id: int) -> bool:
        """Say whether this token may come next; much cheaper than a mask."""
        if token_id in self._eos_ids:
            return self._matcher.is_accepting()
        started = time.thread_time()
        allowed = self._matcher.validate_tokens([token_id]) == 1
        self._check(started)
        return allowed

    def accept(self, token_id: int) -> None:
        """Move on. Raises `ValueError` for a token that is not allowed."""
        if token_id in self._eos_ids and self._matcher.is_accepting():
            return
        if not self._matcher.consume_token(token_id):
            raise ValueError(f"token {token_id} is not allowed here: {self._matcher.get_error()}")

    def mask(self) -> NDArray[np.uint32]:
        """Return one bit for each token, lowest bit first: 1 if it may come next."""
        started = time.thread_time()
        bits = self._matcher.compute_bitmask()
        self._check(started)
        return np.frombuffer(bits, dtype=np.uint32)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all tokens that may not come next to minus infinity, in place."""
        bits = np.unpackbits(self.mask().view(np.uint8), bitorder="little", count=len(logits))
        np.putmask(logits, bits == 0, -np.inf)

    def clone(self) -> "ConstraintState":
        """Return an independent state at the same place."""
        return ConstraintState(self._matcher.deep_copy(), self._eos_ids, self._param)

    def _check(self, started: float) -> None:
        # Whoever shares this engine's batch waits too, so one slow step is one too many.
        if time.thread_time() - started > MAX_STEP_SECONDS:
            raise RequestRefused("the constraint takes too long to follow", param=self._param)
        if self._matcher.is_error():
            raise RequestRefused(_cannot_follow(self._matcher), param=self._param)


class ConstraintCompiler:
    """Compiles constraints for one model's vocabulary; safe in several threads at once.

    Keeps the last `MAX_CACHED` grammars: the same constraint is compiled once.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        *,
        eos_ids: Sequence[int],
        special_ids: Collection[int],
        tokenize: Callable[[bytes], Sequence[int]],
    ) -> None:
        """Take every token's bytes by id; special tokens are never matched as text."""
        vocabulary = _Vocabulary(tokens, eos_ids=eos_ids, special_ids=special_ids, encode=tokenize)
        self._tokenizer = LLTokenizer(
            vocabulary,  # pyright: ignore[reportArgumentType]
            n_vocab=len(tokens),
            eos_token=list(eos_ids),
        )
        self._eos_ids = frozenset(eos_ids)
        self._special = {tokens[at].decode("utf-8", "replace"): at for at in special_ids}
        self._limits = LLParserLimits(
            max_items_in_row=2000,
            initial_lexer_fuel=1_000_000,
            step_lexer_fuel=100_000,
            step_max_items=30_000,
            max_lexer_states=10_000,
            max_grammar_size=100_000,
            verbose_errors=False,
        )
        self._lock = Lock()
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def compile(
        self, constraint: Constraint | ToolConstraint, *, param: str | None = None
    ) -> ConstraintState:
        """Return the state before the first token, or refuse; `param` names the field to blame."""
        if param is None:
            param = "tools" if isinstance(constraint, ToolConstraint) else "response_format"
        grammar = grammar_of(constraint, param, special=self._special)
        with self._lock:
            matcher = self._compiled.get(grammar)
            if matcher is not None:
                self._compiled.move_to_end(grammar)
                return ConstraintState(matcher.deep_copy(), self._eos_ids, param)
        matcher = self._built(grammar, param)
        with self._lock:
            self._compiled[grammar] = matcher
            while len(self._compiled) > MAX_CACHED:
                self._compiled.popitem(last=False)
            return ConstraintState(matcher.deep_copy(), self._eos_ids, param)

    def _built(self, grammar: str, param: str) -> LLMatcher:
        started = time.thread_time()
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            message = f"the constraint is not valid: {_said(matcher)}"
            raise RequestRefused(message, param=param)
        self._try_out(matcher.deep_copy(), param)
        if time.thread_time() - started > MAX_COMPILE_SECONDS:
            raise RequestRefused("the constraint takes too long to compile", param=param)
        return matcher

    def _try_out(self, matcher: LLMatcher, param: str) -> None:
        """Take some steps: an impossible grammar shows at once, an expensive one early."""
        for _ in range(_NUM_TRIED_STEPS):
            started = time.thread_time()
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            if matcher.is_error():
                raise RequestRefused(_cannot_follow(matcher), param=param)
            allowed = np.flatnonzero(np.unpackbits(bits, bitorder="little"))
            tokens = [at for at in allowed.tolist() if at not in self._eos_ids]
            if not tokens or matcher.is_stopped():
                return
            matcher.consume_token(tokens[len(tokens) // 2])
            if time.thread_time() - started > MAX_STEP_SECONDS:
                raise RequestRefused("the constraint takes too long to follow", param=param)


class _Vocabulary:
    """A model's tokens as llguidance wants to be told of them."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self,
        tokens: Sequence[bytes],
        *,
        eos_ids: Sequence[int],
        special_ids: Collection[int],
        encode: Callable[[bytes], Sequence[int]],
    ) -> None:
        self.tokens = list(tokens)
        self.eos_token_id = eos_ids[0]
        self.special_token_ids = sorted({*special_ids, *eos_ids})
        self._encode = encode

    def __call__(self, text: Any) -> list[int]:
        return list(self._encode(text.encode() if isinstance(text, str) else text))


def _said(matcher: LLMatcher) -> str:
    """Return what the compiler said in one line: it draws its errors on several."""
    first, *others = matcher.get_error().strip().split("\n")
    reasons = [line.strip() for line in others if line.strip().startswith("error:")]
    return " ".join(part[:_MAX_MESSAGE] for part in (first, *reasons[:1]))


def _cannot_follow(matcher: LLMatcher) -> str:
    said = _said(matcher)
    if "NoExtension" in said:
        return "the constraint cannot be followed: nothing satisfies it"
    return f"the constraint cannot be followed: {said}"
