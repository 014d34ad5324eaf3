"""A request as the step thread has it: what `Sequence.payload` is."""

from dataclasses import dataclass
from typing import Any

from engines.chat.after_thinking import AfterThinking
from engines.chat.constraints import ConstraintState
from engines.outbox import Mailbox
from engines.protocol import Sampling


@dataclass(eq=False, slots=True, kw_only=True)
class Request:
    """How a sequence's tokens are chosen and where they go."""

    mailbox: Mailbox[Any]
    sampling: Sampling
    constraint: ConstraintState | AfterThinking | None = None
    num_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
