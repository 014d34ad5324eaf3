"""Attention of one step, whatever its sequences do in it."""

from torch import Tensor

from engines.paged.kernels.decode_attention import decode_attention
from engines.paged.kernels.prefill_attention import prefill_attention
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
    c * tanh(score / c) before that.
    """
    if inputs.max_query_tokens == 1:
        return decode_attention(
            q, key_cache, value_cache, inputs.block_tables, inputs.context_lens,
            scale=scale, window=window, softcap=softcap, num_splits=inputs.num_splits,
        )  # fmt: skip
    return prefill_attention(
        q, key_cache, value_cache, inputs.block_tables, inputs.query_starts, inputs.context_lens,
        scale=scale, window=window, softcap=softcap, max_query_tokens=inputs.max_query_tokens,
    )  # fmt: skip
