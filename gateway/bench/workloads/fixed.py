"""The workload `fixed`: questions of one length, answers of one length.

With `prompt_tokens` a prompt is that many random token ids, exact to the token,
which needs the completions endpoint. Without, it is that many words, which are
about as many tokens; the report tells how many they really were.
"""

from collections.abc import Sequence
from random import Random

from msgspec import Struct

from gateway.bench.question import Conversation, Question
from gateway.bench.workloads.words import token_ids, words


class Fixed(Struct, frozen=True, kw_only=True):
    """Questions that differ in nothing but their words."""

    num_requests: int
    max_tokens: int
    prompt_words: int = 30
    prompt_tokens: int | None = None
    prompt: str | None = None  # ask this, always
    vocab_size: int = 10_000
    temperature: float = 0.0
    ignore_eos: bool = False

    def conversations(self, place: int) -> Sequence[Conversation]:
        """As many as requests; see `Workload`."""
        random = Random(f"fixed {place}")
        return [Conversation(questions=[self._question(random)]) for _ in range(self.num_requests)]

    def _question(self, random: Random) -> Question:
        ids: Sequence[int] = ()
        if self.prompt_tokens is not None:
            ids = token_ids(random, self.prompt_tokens, vocab_size=self.vocab_size)
        return Question(
            text="" if ids else self.prompt or words(random, self.prompt_words),
            token_ids=ids,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            ignore_eos=self.ignore_eos,
        )
