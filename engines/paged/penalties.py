"""What penalized answers have said so far, on the device.

`repeat_penalty` is about the last 64 tokens of an answer, `frequency_penalty` and
`presence_penalty` about all of it, none about the prompt: the gguf engine's rule.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from engines.paged.kernels.logit_edits import count_penalties, repeat_penalty
from engines.paged.kernels.sampling import keep_top_k
from engines.protocol import Sampling

REPEAT_WINDOW = 64  # tokens that `repeat_penalty` looks back on


class Penalties:
    """The penalties of all running sequences of one model, by their places in its sampler.

    Counting takes a line of the vocabulary for each, so lines exist only as far as they were ever
    needed together. Line 0 takes what is counted for rows without penalties.
    """

    def __init__(self, num_places: int, vocab_size: int, device: torch.device) -> None:
        self.places: dict[int, int] = {}  # to lines of `_counts`
        self._device = device
        self._free: list[int] = []
        self._counts = torch.zeros((1, vocab_size), dtype=torch.int32, device=device)
        self._lines = torch.full((num_places,), -1, dtype=torch.int64, device=device)
        self._factors = torch.zeros((3, num_places), device=device)
        self._factors[0] = 1.0  # repeat, frequency, presence
        self._num_recent = torch.zeros(num_places, dtype=torch.int64, device=device)
        shape = (num_places, REPEAT_WINDOW)
        self._recent = torch.full(shape, -1, dtype=torch.int64, device=device)

    def begin(self, place: int, sampling: Sampling, answer_tokens: Sequence[int]) -> None:
        """Start to count at `place`, from what the answer has already."""
        repeat = 1.0 if sampling.repeat_penalty is None else sampling.repeat_penalty
        frequency, presence = sampling.frequency_penalty or 0.0, sampling.presence_penalty or 0.0
        if repeat == 1.0 and not frequency and not presence:
            return
        line = self._take_line()
        self.places[place] = line
        self._lines[place] = line
        factors = torch.tensor((repeat, frequency, presence))
        self._factors[:, place] = sent_to(factors, self._device)
        self._num_recent[place] = len(answer_tokens)
        self._recent[place] = -1
        self._counts[line] = 0
        if answer_tokens:
            tokens = sent_to(torch.tensor(answer_tokens), self._device)
            ones = torch.ones_like(tokens, dtype=torch.int32)
            self._counts[line].scatter_add_(0, tokens, ones)
            first = max(0, len(answer_tokens) - REPEAT_WINDOW)
            slots = torch.arange(first, len(answer_tokens), device=self._device) % REPEAT_WINDOW
            self._recent[place].index_copy_(0, slots, tokens[first:])

    def end(self, place: int) -> None:
        """Stop counting."""
        line = self.places.pop(place, None)
        if line is not None:
            self._free.append(line)
            self._lines[place] = -1
            self._factors[0, place] = 1.0
            self._recent[place] = -1

    def apply(self, logits: Tensor, places: Tensor, top_k: Tensor) -> Tensor:
        """Change the logits of penalized rows, and return the top-k that is still to be done.

        Like gguf, choose the top k before penalties, so for these rows it is done here.
        """
        if not self.places:
            return top_k
        lines = self._lines[places]
        keep_top_k(logits, top_k.where(lines >= 0, 0))
        repeat, frequency, presence = self._factors.index_select(1, places).unbind(0)
        repeat_penalty(logits, self._recent[places], repeat)
        count_penalties(logits, self._counts, lines, frequency, presence)
        return top_k.where(lines < 0, 0)

    def count(self, places: Tensor, tokens: Tensor) -> None:
        """Note what was sampled at each of these places."""
        if not self.places:
            return
        lines = self._lines[places]
        flat = lines.clamp(min=0) * self._counts.shape[1] + tokens
        self._counts.view(-1).scatter_add_(0, flat, (lines >= 0).int())
        slots = places * REPEAT_WINDOW + self._num_recent[places] % REPEAT_WINDOW
        self._recent.view(-1).index_copy_(0, slots, tokens.where(lines >= 0, -1))
        self._num_recent.index_add_(0, places, torch.ones_like(places))

    def _take_line(self) -> int:
        if not self._free:
            num_lines, vocab_size = self._counts.shape
            more = self._counts.new_zeros((num_lines, vocab_size))
            self._counts = torch.cat((self._counts, more))
            self._free = list(range(num_lines, 2 * num_lines))
        return self._free.pop()


def sent_to(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device, without waiting for what is running there."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
