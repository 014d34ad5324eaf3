"""A step's results on their way back from the device."""

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from typing import Any

import torch
from torch import Tensor

from engines.paged.sequence import Row, StepResult
from engines.paged.transfers import to_host

ToRead = Any  # turns a pick's row of log-probabilities into what its reader gets


class Pending:
    """Made when a step's sampling was launched; `read` waits for the device.

    It waits for this step alone: the next one is under way by then.
    """

    def __init__(
        self,
        device: torch.device,
        tokens: Tensor | None,
        logprobs: Any | None,
        picks: SequenceOf[Row],
        prompt_scores: Any | None,
    ) -> None:
        self._picks = picks
        self._logprobs = logprobs
        self._prompt_scores = prompt_scores
        self._tokens = None if tokens is None else to_host(tokens)
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            # Behind all copies, those of log-probabilities included: after it nobody waits.
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> StepResult:
        """Wait until the device has the results. Called once."""
        if self._event is not None:
            self._event.synchronize()
        tokens = [] if self._tokens is None else self._tokens.tolist()
        logprobs = None
        if self._logprobs is not None:
            logprobs = self._logprobs.read(tokens)
        scores: Mapping[int, Any] = {}
        if self._prompt_scores is not None:
            scores = self._prompt_scores.read()
        return StepResult(tokens, logprobs, scores)
