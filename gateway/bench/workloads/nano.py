"""The workload `nano`: the 256 sequences of nano-vllm's bench.py, to the token.

`random.seed(0)`; prompts and answers of 100 to 1,024 tokens, uniformly; ids
below 10,000; end-of-sequence ignored. That is 142,827 prompt tokens and exactly
133,966 output tokens, so one published figure can be held against another.
https://github.com/GeeeekExplorer/nano-vllm/blob/main/bench.py
"""

from collections.abc import Sequence
from random import Random

from msgspec import Struct

from gateway.bench.question import Conversation, Question

NUM_SEQUENCES = 256
PROMPT_TOKENS = 142_827
OUTPUT_TOKENS = 133_966
SHORTEST = 100
LONGEST = 1024
MAX_TOKEN_ID = 10_000
TEMPERATURE = 0.6


class Nano(Struct, frozen=True, kw_only=True):
    """nano-vllm's sequences; `vocab_size` folds the ids for a model with fewer tokens."""

    vocab_size: int = MAX_TOKEN_ID + 1
    temperature: float = TEMPERATURE

    def conversations(self, place: int) -> Sequence[Conversation]:
        """Place 0 has the original ids; another adds itself to each, and keeps the lengths."""
        # All prompts are drawn before the first answer's length, as there.
        random = Random(0)
        prompts = [
            [random.randint(0, MAX_TOKEN_ID) for _ in range(random.randint(SHORTEST, LONGEST))]
            for _ in range(NUM_SEQUENCES)
        ]
        lengths = [random.randint(SHORTEST, LONGEST) for _ in range(NUM_SEQUENCES)]
        return [
            Conversation(
                questions=[
                    Question(
                        token_ids=[(token + place) % self.vocab_size for token in prompt],
                        max_tokens=length,
                        temperature=self.temperature,
                        ignore_eos=True,
                    )
                ]
            )
            for prompt, length in zip(prompts, lengths, strict=True)
        ]
