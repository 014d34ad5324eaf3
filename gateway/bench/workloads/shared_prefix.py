"""The workload `shared-prefix`: users of one assistant, several turns each.

All users of a place have the same long system prompt, and each turn repeats the
conversation so far: what a prefix cache is for. How much of it was found there
is reported as cached tokens.
"""

from collections.abc import Sequence
from random import Random

from msgspec import Struct

from gateway.bench.question import Conversation, Question
from gateway.bench.workloads.words import words


class SharedPrefix(Struct, frozen=True, kw_only=True):
    """One conversation for each user."""

    num_users: int
    num_turns: int
    system_words: int
    prompt_words: int
    max_tokens: int
    temperature: float = 0.0
    ignore_eos: bool = False

    def conversations(self, place: int) -> Sequence[Conversation]:
        """As many as users; see `Workload`."""
        random = Random(f"shared-prefix {place}")
        system = words(random, self.system_words)
        return [
            Conversation(
                system=system,
                questions=[
                    Question(
                        text=words(random, self.prompt_words),
                        max_tokens=self.max_tokens,
                        temperature=self.temperature,
                        ignore_eos=self.ignore_eos,
                    )
                    for _ in range(self.num_turns)
                ],
            )
            for _ in range(self.num_users)
        ]
