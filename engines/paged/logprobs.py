"""The log-probabilities of sampled tokens, on their way back to the host."""

from collections.abc import Sequence as SequenceOf

import torch
from torch import Tensor

from engines.paged.transfers import to_device, to_host
from engines.protocol import TokenLogprob, TopLogprob


class Logprobs:
    """What the rows of one step that ask for log-probabilities get, on its way to the host."""

    def __init__(
        self,
        rows: SequenceOf[int],
        num_top: SequenceOf[int],
        tensors: tuple[Tensor, Tensor, Tensor],
        pieces: SequenceOf[bytes],
    ) -> None:
        self._rows = rows
        self._num_top = num_top
        self._chosen, self._top_ids, self._top = map(to_host, tensors)
        self._pieces = pieces

    @classmethod
    def of(
        cls,
        logits: Tensor,
        tokens: Tensor,
        num_top: SequenceOf[int | None],
        pieces: SequenceOf[bytes],
    ) -> "Logprobs":
        """Compute them from the model's own logits [R, V]; `num_top` is None for who asks not."""
        rows = [row for row, count in enumerate(num_top) if count is not None]
        counts = [count for count in num_top if count is not None]
        wanted = to_device(torch.tensor(rows), logits.device)
        scores = logits[wanted].log_softmax(-1)
        best = scores.topk(min(max(counts), scores.shape[1]))
        # Best first, and of equals the lower id, so that ties always come in the same order.
        ids, order = best.indices.sort(dim=-1)
        values, order = best.values.gather(1, order).sort(dim=-1, descending=True, stable=True)
        chosen = scores.gather(1, tokens[wanted][:, None])[:, 0]
        return cls(rows, counts, (chosen, ids.gather(1, order), values), pieces)

    def read(self, tokens: SequenceOf[int]) -> list[TokenLogprob | None]:
        """One for each row, None for who asks not; only after the device has sent them."""
        entries: list[TokenLogprob | None] = [None] * len(tokens)
        read = zip(
            self._rows,
            self._num_top,
            self._chosen.tolist(),
            self._top_ids.tolist(),
            self._top.tolist(),
            strict=True,
        )
        for row, num_top, chosen, ids, values in read:
            token, pieces = tokens[row], self._pieces
            likeliest = zip(ids[:num_top], values[:num_top], strict=True)
            top = [TopLogprob(pieces[one], value, one) for one, value in likeliest]
            entries[row] = TokenLogprob(pieces[token], chosen, top, token)
        return entries
