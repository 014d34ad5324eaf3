"""Log-probabilities of a prompt's own tokens, for requests that ask for them.

The logits of a whole chunk would be large (2,048 tokens of a 128k vocabulary are
a gigabyte), so they are made some tokens at a time.
"""

from collections.abc import Sequence as SequenceOf
from typing import Any

import torch
from torch import Tensor

from engines.paged.batch import StepTensors
from engines.paged.models.decoder import Decoder
from engines.paged.sequence import Row
from engines.paged.transfers import to_device, to_host
from engines.protocol import TokenLogprob, TopLogprob

_TOKENS_AT_ONCE = 128

# Some tokens, their scores, and for each the likeliest and their scores.
_Part = tuple[SequenceOf[int], Tensor, Tensor, Tensor]


class PromptScores:
    """Scores the prompts of one model."""

    def __init__(self, model: Decoder, pieces: SequenceOf[bytes]) -> None:
        self._model = model
        self._pieces = pieces

    def of(self, rows: SequenceOf[Row], tensors: StepTensors, hidden: Tensor) -> "Scored | None":
        """Launch the scoring of the rows whose requests ask for it; None if none does."""
        parts: dict[int, list[_Part]] = {}
        offset = 0
        for index, row in enumerate(rows):
            num_top = row.sequence.payload.num_prompt_logprobs
            end = min(row.start + row.count + 1, row.sequence.num_prompt_tokens)
            if num_top is not None and end > row.start + 1:
                targets = row.sequence.tokens[row.start + 1 : end]
                parts[index] = self._scored(
                    hidden[offset : offset + len(targets)], targets, num_top
                )
            offset += row.count
        return Scored(parts, self._pieces) if parts else None

    def _scored(self, hidden: Tensor, targets: SequenceOf[int], num_top: int) -> list[_Part]:
        parts: list[_Part] = []
        wanted = to_device(torch.tensor(targets), hidden.device)
        for at in range(0, len(targets), _TOKENS_AT_ONCE):
            some = wanted[at : at + _TOKENS_AT_ONCE]
            scores = self._model.logits(hidden[at : at + len(some)]).log_softmax(-1)
            best = scores.topk(num_top)
            chosen = scores.gather(1, some[:, None])[:, 0]
            ids, values = to_host(best.indices), to_host(best.values)
            parts.append((targets[at : at + len(some)], to_host(chosen), ids, values))
        return parts


class Scored:
    """Prompt scores on their way to the host."""

    def __init__(
        self,
        parts: dict[int, list[_Part]],
        pieces: SequenceOf[bytes],
    ) -> None:
        self._parts = parts
        self._pieces = pieces

    def read(self) -> dict[int, Any]:
        """By row of the plan: one `TokenLogprob` for each token after the row's first.

        Only after the device has sent them.
        """
        return {
            index: [score for part in parts for score in self._read(*part)]
            for index, parts in self._parts.items()
        }

    def _read(
        self, targets: SequenceOf[int], chosen: Tensor, top_ids: Tensor, top: Tensor
    ) -> list[TokenLogprob]:
        pieces = self._pieces
        return [
            TokenLogprob(
                pieces[token],
                score,
                [
                    TopLogprob(pieces[one], value, one)
                    for one, value in zip(ids, values, strict=True)
                ],
                token,
            )
            for token, score, ids, values in zip(
                targets, chosen.tolist(), top_ids.tolist(), top.tolist(), strict=True
            )
        ]
