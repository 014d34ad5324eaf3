"""The LoRA adapters of a loaded model.

They belong to the model's own thread, as all of `Runner` does, and to the model for as long
as it is loaded: one with another adapter has another name, and so a KV cache of its own.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

from engines.errors import Unavailable
from engines.gguf.adapter_file import Adapter
from engines.gguf.native import forget_lines, last_lines, llama


class AppliedAdapters:
    """The adapters of one loaded model; freed with it."""

    def __init__(self, model: Any, adapters: Sequence[Adapter]) -> None:
        """Load them on the thread that loaded `model`. Raises `Unavailable`."""
        self._binding = binding = llama()
        self.size_bytes = sum(adapter.path.stat().st_size for adapter in adapters)
        loaded: list[Any] = []
        for adapter in adapters:
            forget_lines()
            found = binding.llama_adapter_lora_init(model, str(adapter.path).encode())
            if not found:
                reason = last_lines() or "no reason was given"
                raise Unavailable(f"llama.cpp could not load {adapter.path.name}: {reason}")
            loaded.append(ctypes.cast(found, ctypes.c_void_p))
        # llama.cpp reads these only while a context is given them.
        self._adapters = (ctypes.c_void_p * len(loaded))(*loaded)
        self._scales = (ctypes.c_float * len(loaded))(*(adapter.scale for adapter in adapters))

    def apply(self, context: Any) -> None:
        """Have a context compute with them from now on. Raises `Unavailable`."""
        count = len(self._adapters)
        if count == 0:
            return
        binding = self._binding
        pointers = ctypes.cast(self._adapters, binding.llama_set_adapters_lora.argtypes[1])
        if binding.llama_set_adapters_lora(context, pointers, count, self._scales):
            raise Unavailable("llama.cpp could not apply the model's adapters")
