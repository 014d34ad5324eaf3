"""Turns logits into tokens, with what each running sequence asked for kept on the device.

A sequence has a place, from `begin` to `end`; everything about its sampling is in tensors with a
line for each place, so a step needs only the places of its rows. What comes out is also written
into `last_tokens`, from where the next step takes its input without the host having seen it.

`draw` is the whole of it for plain rows: a few launches of fixed shape on fixed buffers, which a
CUDA graph can hold. `sample` is for everything: before it draws, it changes logits as
engines/gguf/sampler.py does, so that one request means the same on both engines: biases, grammar
mask, top-k, penalties; then top-p, min-p, temperature. Penalties are about the answer alone, never
the prompt: `repeat_penalty` about its last 64 tokens, the others about all of it. The one
difference: with top-k off, gguf draws from the 1024 likeliest, to save time; here from all.

The step thread owns a sampler. Nothing here waits for the device.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.errors import RequestRefused
from engines.paged.kernels.logit_edits import add_bias, apply_bitmask
from engines.paged.kernels.sampling import sample
from engines.paged.penalties import Penalties, sent_to
from engines.protocol import Sampling

_FOREVER = 2**62


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural logarithms of probabilities, by the model alone: before anything is changed.

    `top_ids` and `top` [R, n] are the likeliest tokens, best first and of equals the lower id; n is
    the most that any sequence at work asked for.
    """

    chosen: Tensor
    top_ids: Tensor
    top: Tensor


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """One token [R] int64 a row, on the device; log-probabilities if a sequence at work asked."""

    token_ids: Tensor
    logprobs: Logprobs | None


class Sampler:
    """The sampling of all running sequences of one model."""

    def __init__(self, max_sequences: int, vocab_size: int, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._vocab_size = vocab_size
        # One place more than sequences: rows that pad a batch have to be somewhere.
        self.padding_place = max_sequences
        num_places = max_sequences + 1
        self.last_tokens = torch.zeros(num_places, dtype=torch.int64, device=self._device)
        self._fractions = torch.zeros((3, num_places), device=self._device)
        self._fractions[1] = 1.0  # temperature, top_p, min_p
        self._integers = torch.zeros((2, num_places), dtype=torch.int64, device=self._device)
        self._num_logprobs: dict[int, int] = {}
        self._bias = _Bias(num_places, vocab_size, self._device)
        self._penalties = Penalties(num_places, vocab_size, self._device)

    def begin(
        self,
        place: int,
        sampling: Sampling,
        stop_tokens: Iterable[int],
        *,
        answer_tokens: Sequence[int] = (),
        logprobs: int | None = None,
    ) -> None:
        """Take a sequence in at a free place.

        `answer_tokens` are what it has sampled already, when it comes back after a preemption;
        `logprobs` is as in `GenerateRequest`. Raises `RequestRefused` for a token id that the model
        does not have.
        """
        self._bias.begin(place, sampling, stop_tokens, len(answer_tokens))
        self._penalties.begin(place, sampling, answer_tokens)
        fractions = (
            max(sampling.temperature or 0.0, 0.0),
            1.0 if sampling.top_p is None else sampling.top_p,
            sampling.min_p or 0.0,
        )
        top_k = min(max(sampling.top_k or 0, 0), self._vocab_size)
        self._fractions[:, place] = sent_to(torch.tensor(fractions), self._device)
        integers = torch.tensor((_seed(sampling.seed), top_k))
        self._integers[:, place] = sent_to(integers, self._device)
        if logprobs is not None:
            self._num_logprobs[place] = logprobs

    def end(self, place: int) -> None:
        """Free a place; idempotent."""
        self._num_logprobs.pop(place, None)
        self._bias.end(place)
        self._penalties.end(place)

    def is_plain(self, places: Iterable[int]) -> bool:
        """Whether `draw` does all that the sequences at these places asked for."""
        return not any(
            place in self._num_logprobs
            or place in self._bias.places
            or place in self._penalties.places
            for place in places
        )

    def draw(self, logits: Tensor, places: Tensor, positions: Tensor) -> Tensor:
        """Choose a token [R] for each plain row of `logits` [R, V], whatever stands in others.

        `positions` are the tokens' own, so that a sequence that is computed again draws the same.
        Both index tensors are int64, on the device; rows that pad are at `padding_place`.
        """
        tokens = self._drawn(logits, places, positions, self._integers[1].index_select(0, places))
        self.last_tokens.index_copy_(0, places, tokens)
        return tokens

    def sample(
        self,
        logits: Tensor,
        places: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        mask_rows: Tensor | None = None,
    ) -> SampledTokens:
        """Choose a token for each row, with all that was asked for; changes `logits`.

        `mask` [M, W] int32 has a bit for each token that a constraint allows, line m for row
        `mask_rows[m]`, or for row m.
        """
        unchanged = logits
        changes = mask is not None or self._bias.places or self._penalties.places
        if self._num_logprobs and changes:
            unchanged = logits.clone()
        self._bias.apply(logits, places)
        if mask is not None:
            apply_bitmask(logits, mask, mask_rows)
        top_k = self._integers[1].index_select(0, places)
        top_k = self._penalties.apply(logits, places, top_k)
        tokens = self._drawn(logits, places, positions, top_k)
        self._bias.count(places)
        self._penalties.count(places, tokens)
        self.last_tokens.index_copy_(0, places, tokens)
        if not self._num_logprobs:
            return SampledTokens(tokens, None)
        num_top = max(self._num_logprobs.values())
        return SampledTokens(tokens, logprobs_of(unchanged, tokens, num_top))

    def _drawn(self, logits: Tensor, places: Tensor, positions: Tensor, top_k: Tensor) -> Tensor:
        temperature, top_p, min_p = self._fractions.index_select(1, places).unbind(0)
        return sample(
            logits,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seeds=self._integers[0].index_select(0, places),
            positions=positions,
        )


def logprobs_of(logits: Tensor, tokens: Tensor, num_top: int) -> Logprobs:
    """Log-probabilities of `tokens` [R] and of the `num_top` likeliest, by `logits` [R, V]."""
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    chosen = logits.gather(1, tokens[:, None]) - total
    top, ids = logits.topk(min(num_top, logits.shape[1]), dim=-1)
    ids, order = ids.sort(dim=-1)
    top, order = top.gather(1, order).sort(dim=-1, descending=True, stable=True)
    return Logprobs(chosen[:, 0], ids.gather(1, order), top - total)


class _Bias:
    """Tokens whose logits get something added: by request, or to keep an answer from ending.

    Each place has a list of (token, value, number of sampled tokens until which it holds).
    """

    def __init__(self, num_places: int, vocab_size: int, device: torch.device) -> None:
        self.places: set[int] = set()
        self._vocab_size = vocab_size
        self._device = device
        self._num_sampled = torch.zeros(num_places, dtype=torch.int64, device=device)
        self._tokens = torch.full((num_places, 1), -1, dtype=torch.int64, device=device)
        self._until = torch.zeros((num_places, 1), dtype=torch.int64, device=device)
        self._values = torch.zeros((num_places, 1), device=device)

    def begin(
        self, place: int, sampling: Sampling, stop_tokens: Iterable[int], num_sampled: int
    ) -> None:
        """Note what holds at `place`, where nothing does now."""
        entries = [(token, value, _FOREVER) for token, value in sampling.logit_bias.items()]
        until = _FOREVER if sampling.ignore_eos else sampling.min_tokens
        if until > num_sampled:
            entries += [(token, float("-inf"), until) for token in stop_tokens]
        for token, _, _ in entries:
            if not 0 <= token < self._vocab_size:
                raise RequestRefused(
                    f"token {token} does not exist; this model's ids go from 0 to "
                    f"{self._vocab_size - 1}",
                    param="logit_bias",
                )
        if not entries:
            return
        self._widen(len(entries))
        tokens, values, untils = zip(*entries, strict=True)
        count = len(entries)
        self._tokens[place, :count] = sent_to(torch.tensor(tokens), self._device)
        self._values[place, :count] = sent_to(torch.tensor(values), self._device)
        self._until[place, :count] = sent_to(torch.tensor(untils), self._device)
        self._num_sampled[place] = num_sampled
        self.places.add(place)

    def end(self, place: int) -> None:
        """Forget what held."""
        if place in self.places:
            self.places.remove(place)
            self._tokens[place] = -1

    def apply(self, logits: Tensor, places: Tensor) -> None:
        """Change the logits of rows at these places."""
        if self.places:
            holds = self._until[places] > self._num_sampled[places, None]
            add_bias(logits, self._tokens[places].where(holds, -1), self._values[places])

    def count(self, places: Tensor) -> None:
        """Note that one more token was sampled at each of these places."""
        if self.places:
            self._num_sampled.index_add_(0, places, torch.ones_like(places))

    def _widen(self, width: int) -> None:
        """Make room for lists of `width`, in steps of doubling."""
        missing = max(width, 2 * self._tokens.shape[1]) - self._tokens.shape[1]
        if width > self._tokens.shape[1]:
            self._tokens = torch.nn.functional.pad(self._tokens, (0, missing), value=-1)
            self._values = torch.nn.functional.pad(self._values, (0, missing))
            self._until = torch.nn.functional.pad(self._until, (0, missing))


def _seed(seed: int | None) -> int:
    """The seed's lowest 64 bits, as a signed number; a random one where there is none."""
    bits = (secrets.randbits(64) if seed is None else seed) & (2**64 - 1)
    return bits - 2**64 if bits >= 2**63 else bits
