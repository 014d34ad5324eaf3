"""A step's results on their way back from the device."""

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from typing import Any

import torch
from torch import Tensor

from engines.paged.sequence import Row, StepResult

ToRead = Any  # turns a pick's row of log-probabilities into what its reader gets


class Pending:
    """Made when a step's sampling was launched; `read` waits for the device."""

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
        self._tokens = tokens
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            if tokens is not None:
                # Pinned, so that the copy is a launch like any other.
                self._tokens = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
                self._tokens.copy_(tokens, non_blocking=True)
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
