"""`starter.gguf` through llama.cpp's own functions, with nothing of ours in between."""

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

from engines.gguf.native import llama


class LoadedGguf:
    """One model with one sequence, answering greedily. `close` frees both."""

    def __init__(self, path: Path, *, tokenizer_only: bool = False) -> None:
        llama()  # the log is the whole process's, and goes where the engine wants it
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = tokenizer_only
        # With AMX, repacked q8_0 weights end the process in some builds of llama.cpp.
        parameters.use_extra_bufts = False
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        assert self._model, f"llama.cpp does not load {path}"
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._context = None
        if not tokenizer_only:
            options = llama_cpp.llama_context_default_params()
            options.n_ctx = options.n_batch = 2048
            options.n_threads = options.n_threads_batch = 1
            self._context = llama_cpp.llama_init_from_model(self._model, options)

    def close(self) -> None:
        if self._context is not None:
            llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        encoded = text.encode()
        room = len(encoded) + 1
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self._vocabulary, encoded, len(encoded), tokens, room, False, special
        )
        assert count >= 0
        return tokens[:count]

    def chat_template(self) -> str:
        return llama_cpp.llama_model_chat_template(self._model, None).decode()

    def answer(self, prompt: str, max_tokens: int = 160) -> str:
        """What greedy decoding writes after `prompt`, up to the end of the turn."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        logits = self.decode(self.tokenize(prompt, special=True))
        spelled = b""
        for _ in range(max_tokens):
            token = int(logits.argmax())
            if llama_cpp.llama_vocab_is_eog(self._vocabulary, token):
                break
            spelled += self._piece(token)
            logits = self.decode([token])
        return spelled.decode()

    def decode(self, tokens: list[int]) -> np.ndarray:
        """The logits after `tokens`, which go on from what was decoded before."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        assert llama_cpp.llama_decode(self._context, batch) == 0
        size = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        logits = llama_cpp.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(logits, (size,)).copy()

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, 64, 0, True)
        return buffer.raw[:length]
