"""llama.cpp's logits at every position, as exact as it computes them: float32 throughout."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np

from engines.gguf.native import llama

_F32, _NO_FLASH = 0, 0


def exact_logits(
    path: Path,
    tokens: Sequence[int],
    *,
    context_tokens: int = 256,
    adapter: Path | None = None,
) -> np.ndarray:
    """One row of logits for each token."""
    llama()  # the log is the whole process's, and goes where the engine wants it
    parameters = llama_cpp.llama_model_default_params()
    parameters.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
    assert model, f"llama.cpp does not load {path}"
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = context_tokens
    options.n_threads = options.n_threads_batch = 1
    options.type_k = options.type_v = _F32
    options.flash_attn_type = _NO_FLASH
    context = llama_cpp.llama_init_from_model(model, options)
    if adapter is not None:
        loaded = llama_cpp.llama_adapter_lora_init(model, str(adapter).encode())
        assert loaded, f"llama.cpp does not load {adapter}"
        kind = llama_cpp.llama_adapter_lora_p_ctypes
        assert not llama_cpp.llama_set_adapters_lora(
            context, (kind * 1)(loaded), 1, (ctypes.c_float * 1)(1.0)
        )
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for place, token in enumerate(tokens):
        batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = 0
    assert llama_cpp.llama_decode(context, batch) == 0
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = [
        np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, place), (size,)).copy()
        for place in range(len(tokens))
    ]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return np.stack(rows)
