"""Other engines with the same shapes, where they are installed: transformers and vLLM.

Each gets random weights, the attention it has without further packages, and the
settings that its documentation recommends for throughput. Which those were is
printed with the table: a figure of a peer is worth no more than its settings.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.gpu_bench.our_engine import CONTEXT_TOKENS, NotMeasured

TRANSFORMERS_SETTINGS = "paged|sdpa attention, CUDA graphs, asynchronous batching"
VLLM_SETTINGS = "its defaults, with max_num_seqs = 256"
RESULT_SECONDS = 600.0


@contextmanager
def transformers_engine(folder: Path, device: str = "cuda") -> Iterator["TransformersSubject"]:
    """Continuous batching of transformers. Raises `NotMeasured` where it is not installed."""
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig
    except ImportError as error:
        raise NotMeasured(f"transformers with continuous batching: {error}") from None
    config = AutoConfig.from_pretrained(folder)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="paged|sdpa"
        ).eval()
    on_gpu = device != "cpu"
    batching = ContinuousBatchingConfig(use_cuda_graph=on_gpu, use_async_batching=on_gpu)
    # No token has the id -1, so every answer has its full length.
    generation = GenerationConfig(
        do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=2048
    )
    with model.continuous_batching_context_manager(
        generation_config=generation, continuous_batching_config=batching
    ) as manager:
        yield TransformersSubject(manager)


class TransformersSubject:
    """One continuous-batching manager; always greedy, as it samples for all requests alike."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def seconds_for(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], *, temperature: float
    ) -> float:
        since = time.perf_counter()
        waiting = {
            self._manager.add_request(list(prompt), max_new_tokens=length): length
            for prompt, length in zip(prompts, lengths, strict=True)
        }
        while waiting:
            result = self._manager.get_result(timeout=RESULT_SECONDS)
            if result is None:
                raise NotMeasured(f"{len(waiting)} prompts were not answered")
            if result.error is not None:
                raise NotMeasured(f"a prompt failed: {result.error}")
            if result.is_finished():
                length = waiting.pop(result.request_id)
                if len(result.generated_tokens) != length:
                    raise NotMeasured(
                        f"{len(result.generated_tokens)} tokens came where {length} were asked for"
                    )
        return time.perf_counter() - since


@contextmanager
def vllm_engine(folder: Path) -> Iterator["VllmSubject"]:
    """vLLM in this process. Raises `NotMeasured` where it is not installed."""
    try:
        from vllm import LLM
    except ImportError as error:
        raise NotMeasured(f"vLLM: {error}") from None
    engine = LLM(
        model=str(folder),
        load_format="dummy",
        dtype="bfloat16",
        skip_tokenizer_init=True,
        max_model_len=CONTEXT_TOKENS,
        max_num_seqs=256,
        disable_log_stats=True,
    )
    yield VllmSubject(engine)


class VllmSubject:
    """vLLM's offline interface."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def seconds_for(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], *, temperature: float
    ) -> float:
        from vllm import SamplingParams

        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        sampling = [
            SamplingParams(
                temperature=temperature, ignore_eos=True, max_tokens=length, detokenize=False
            )
            for length in lengths
        ]
        since = time.perf_counter()
        outputs = self._engine.generate(asked, sampling, use_tqdm=False)
        seconds = time.perf_counter() - since
        num_tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        if num_tokens != sum(lengths):
            raise NotMeasured(f"{num_tokens} tokens came where {sum(lengths)} were asked for")
        return seconds
