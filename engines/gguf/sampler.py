"""Chooses a sequence's next token from the model's logits.

One chain per sequence, so what one request sampled never touches another's
randomness: with a seed, a request's answer does not depend on its place in
the batch. The order of the chain is

    logit bias, top-k, penalties, top-p, min-p, temperature, draw

because top-p and penalties over a whole vocabulary cost a hundred times what
they cost after top-k; a request that switches top-k off still gets one of 1024.

A constraint is not part of the chain: the one token drawn is checked against
it, and only if it is refused are all others masked and the draw repeated.
"""

import ctypes
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.gguf.native import llama
from engines.protocol import Sampling, TokenLogprob, TopLogprob

IMPLICIT_TOP_K = 1024
REPEAT_WINDOW = 64  # tokens that `repeat_penalty` looks back on

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_NEVER = np.float32(-np.inf)


class ConstraintState(Protocol):
    """How far one sequence got in its constraint; see engines/chat/constraints.py."""

    def allows(self, token: int, /) -> bool:
        """Whether this token may come next."""
        ...

    def accept(self, token: int, /) -> None:
        """Go on to the state after this token."""
        ...

    def apply(self, logits: npt.NDArray[np.float32], /) -> None:
        """Set the logits of all tokens that may not come next to minus infinity."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether nothing can follow."""
        ...


class Batch(Protocol):
    """What was computed; a `Runner` after its `decode`."""

    @property
    def context(self) -> Any:
        """llama.cpp's own context."""
        ...

    def logits(self, row: int, /) -> npt.NDArray[np.float32]:
        """The logits of one row."""
        ...


class Candidates:
    """Room for one vocabulary of logits; belongs to a step thread, shared by its samplers."""

    def __init__(self, num_tokens: int) -> None:
        binding = llama()
        self.logits = np.empty(num_tokens, np.float32)
        self._ids = np.arange(num_tokens, dtype=np.int32)
        self._rows = np.empty(num_tokens, _CANDIDATE)
        self.array = binding.llama_token_data_array()
        self._data = self._rows.ctypes.data_as(binding.llama_token_data_p)

    def fill(self) -> Any:
        """The candidates as a chain takes them, one for each of `logits`."""
        self._rows["id"] = self._ids
        self._rows["logit"] = self.logits
        self._rows["p"] = 0.0
        self.array.data = self._data
        self.array.size = len(self._rows)
        self.array.selected = -1
        self.array.sorted = False
        return ctypes.byref(self.array)

    def selected(self) -> int:
        """The token that a chain chose."""
        return int(self.array.data[self.array.selected].id)


class Sampler:
    """One sequence's chain. Freed by `close`, on the thread that made it."""

    def __init__(
        self, sampling: Sampling, *, end_ids: Sequence[int], room: Candidates, max_tokens: int
    ) -> None:
        self._binding = llama()
        self._room = room
        self._end_ids = np.array(end_ids, np.int64)
        self._min_tokens = sampling.min_tokens
        self._num_sampled = 0
        self._chain = self._build(sampling, end_ids, max_tokens)

    def close(self) -> None:
        """Free the chain; idempotent."""
        if self._chain is not None:
            self._binding.llama_sampler_free(self._chain)
            self._chain = None

    def sample(self, batch: Batch, row: int, constraint: ConstraintState | None) -> int:
        """Draw the next token from row `row` of a batch that was just computed."""
        must_go_on = self._num_sampled < self._min_tokens
        self._num_sampled += 1
        if constraint is None and not must_go_on:
            return self._binding.llama_sampler_sample(self._chain, batch.context, row)
        np.copyto(self._room.logits, batch.logits(row))
        if must_go_on:
            self._room.logits[self._end_ids] = _NEVER
        token = self._draw()
        if constraint is not None:
            if not constraint.allows(token):
                constraint.apply(self._room.logits)
                token = self._draw()
            constraint.accept(token)
        self._binding.llama_sampler_accept(self._chain, token)
        return token

    def _draw(self) -> int:
        self._binding.llama_sampler_apply(self._chain, self._room.fill())
        return self._room.selected()

    def _build(self, sampling: Sampling, end_ids: Sequence[int], max_tokens: int) -> Any:
        binding = self._binding
        num_tokens = len(self._room.logits)
        parameters = binding.llama_sampler_chain_default_params()
        parameters.no_perf = True
        chain = binding.llama_sampler_chain_init(parameters)

        def add(link: Any) -> None:
            binding.llama_sampler_chain_add(chain, link)

        bias = dict(sampling.logit_bias)
        if sampling.ignore_eos:
            bias |= dict.fromkeys(end_ids, float("-inf"))
        if bias:
            add(binding.llama_sampler_init_logit_bias(num_tokens, len(bias), self._biases(bias)))
        is_greedy = (sampling.temperature or 0.0) <= 0.0
        penalties = _penalties(sampling, max_tokens)
        if not is_greedy or penalties:
            top_k = sampling.top_k or 0
            add(binding.llama_sampler_init_top_k(top_k if top_k > 0 else IMPLICIT_TOP_K))
        for window, repeat, frequency, presence in penalties:
            add(
                binding.llama_sampler_init_penalties(
                    num_tokens, window, repeat, frequency, presence
                )
            )
        if is_greedy:
            add(binding.llama_sampler_init_greedy())
            return chain
        if sampling.top_p is not None and sampling.top_p < 1.0:
            add(binding.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p:
            add(binding.llama_sampler_init_min_p(sampling.min_p, 1))
        add(binding.llama_sampler_init_temp(sampling.temperature))
        add(binding.llama_sampler_init_dist(_seed(sampling.seed)))
        return chain

    def _biases(self, bias: Mapping[int, float]) -> Any:
        rows = (self._binding.llama_logit_bias * len(bias))()
        for row, (token, value) in zip(rows, bias.items(), strict=True):
            row.token = token
            row.bias = value
        return rows


def logprobs(
    logits: npt.NDArray[np.float32], chosen: int, num_top: int, pieces: Sequence[bytes]
) -> TokenLogprob:
    """The log-probability of `chosen` and of the `num_top` likeliest tokens, by the model alone."""
    values = logits.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    top: list[TopLogprob] = []
    if num_top:
        num_top = min(num_top, len(values))
        best = np.argpartition(values, -num_top)[-num_top:]
        # The sort is stable and by id first, so that ties always come in the same order.
        best = np.sort(best)
        best = best[np.argsort(-values[best], kind="stable")]
        top = [TopLogprob(pieces[token], float(values[token]), int(token)) for token in best]
    return TokenLogprob(pieces[chosen], float(values[chosen]), top, chosen)


def _penalties(sampling: Sampling, max_tokens: int) -> list[tuple[int, float, float, float]]:
    penalties: list[tuple[int, float, float, float]] = []
    repeat = sampling.repeat_penalty
    if repeat is not None and repeat != 1.0:
        penalties.append((REPEAT_WINDOW, repeat, 0.0, 0.0))
    frequency, presence = sampling.frequency_penalty or 0.0, sampling.presence_penalty or 0.0
    if frequency or presence:
        penalties.append((max_tokens, 1.0, frequency, presence))  # over the whole answer
    return penalties


def _seed(seed: int | None) -> int:
    # 2**32 - 1 means "a random seed" to llama.cpp.
    return (secrets.randbits(32) if seed is None else seed) % (2**32 - 1)
