"""Attention of one step, whatever its sequences do in it.

A step mixes sequences with one new token and sequences with a chunk of their prompt. On a GPU both
kernels run on it, each for its own: a decode in prefill's large tiles would read its context with
one program and multiply mostly padding. Who is which is read on the device, so the host need not
know, and the launches depend on tensor shapes alone.
"""

import torch
from torch import Tensor

from engines.paged.kernels import decode_attention, prefill_attention
from engines.paged.kernels.triton_gate import runs_triton
from engines.paged.step_inputs import StepInputs


def attention(
    q: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    inputs: StepInputs,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attend from q [T, Hq, D] to the contexts that `inputs` describes.

    A key j is visible to query i where 0 <= i - j < window. With a softcap c, a score becomes
    c * tanh(score / c) before that. Rows of no sequence are zeros.
    """
    run = launch if runs_triton(q) else reference
    return run(q, key_cache, value_cache, inputs, scale=scale, window=window, softcap=softcap)


def reference(
    q: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    inputs: StepInputs,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """The same as `attention`, in torch."""
    return prefill_attention.reference(
        q, key_cache, value_cache, inputs.block_tables, inputs.query_starts, inputs.context_lens,
        scale=scale, window=window, softcap=softcap, max_query_tokens=inputs.max_query_tokens,
    )  # fmt: skip


def launch(
    q: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    inputs: StepInputs,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """The same as `attention`, in Triton."""
    if inputs.max_query_tokens == 1:
        return decode_attention.launch(
            q, key_cache, value_cache, inputs.block_tables, inputs.context_lens,
            scale=scale, window=window, softcap=softcap, num_splits=inputs.num_splits,
        )  # fmt: skip
    out = torch.zeros(q.shape, dtype=q.dtype, device=q.device)
    prefill_attention.launch_rows(
        q, key_cache, value_cache, inputs.block_tables, inputs.query_starts, inputs.context_lens,
        out, scale=scale, window=window, softcap=softcap, min_query_tokens=2,
    )  # fmt: skip
    decode_attention.launch_rows(
        q, key_cache, value_cache, inputs.block_tables, inputs.context_lens, inputs.query_starts,
        out, scale=scale, window=window, softcap=softcap, num_splits=inputs.num_splits,
    )  # fmt: skip
    return out
