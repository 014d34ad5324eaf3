"""One model in llama.cpp: its weights, its KV cache and its batch.

Every call that touches the context or frees something belongs to the one thread
that made the `Runner` (two threads in one context end the process, and with
OpenMP even taking turns is 2 to 5 times slower). Only `vocabulary` may be used
from any other.

All positions and lengths given to llama.cpp's memory are checked here: it
trusts them, and a negative one writes outside its buffers.
"""

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engines.errors import Unavailable
from engines.gguf import slot_states
from engines.gguf.adapter_file import Adapter
from engines.gguf.adapters import AppliedAdapters
from engines.gguf.batch import Batch
from engines.gguf.core_threads import CoreThreads, may_stay_on_cores
from engines.gguf.cores import usable_cores
from engines.gguf.native import allocated, forget_allocated, forget_lines, last_lines, llama
from engines.gguf.projector import ImageChunk, Projector
from engines.gguf.tensor_types import CACHE_TYPES, bytes_per_item
from engines.gguf.tuning import AS_IT_LIKES, Tuning
from engines.gguf.vocabulary import Vocabulary

_F32, _F16, _BF16 = 0, 1, 30  # ggml_type
POOLINGS = {"mean": 1, "cls": 2, "last": 3, "rank": 4}
_NO_MMAP, _MMAP = 0, 1
_FLASH = {None: -1, False: 0, True: 1}
_DATA_TOO = True
_TILE_ROWS = 64  # GGML_FA_TILE_Q


class Shape(NamedTuple):
    """How large the KV cache is and how it is divided."""

    num_slots: int
    context_tokens: int  # that one sequence may have
    pool_tokens: int  # over all sequences; of "exact" caches: num_slots * context_tokens
    exact: bool
    max_batch_tokens: int


class Row(NamedTuple):
    """One token of a batch: where it goes, and whether its logits are wanted."""

    token: int
    position: int
    slot: int
    wants_logits: bool


class Aborted(Exception):
    """The step was interrupted; the cache may hold some of its tokens."""


class CacheFull(Exception):
    """There is no room in the KV cache for this batch; nothing was computed."""


class Runner:
    """A loaded model. Made, used and freed on one thread; see the module's docstring."""

    def __init__(
        self,
        path: Path,
        *,
        use_extra_buffers: bool = True,
        adapters: Sequence[Adapter] = (),
        projector: Path | None = None,
        on_progress: Callable[[float], bool] | None = None,
        tuning: Tuning = AS_IT_LIKES,
    ) -> None:
        self._tuning = tuning
        self._binding = binding = llama()
        self._context: Any = None
        self._num_threads = 1
        self._cores = CoreThreads() if may_stay_on_cores(tuning.gpu_layers) else None
        self._embed_context: Any = None
        # Read by llama.cpp between graph nodes through libc's `atoi`: "1" aborts the step. A
        # Python callback would need the GIL 200 times a step.
        self._abort_flag = ctypes.create_string_buffer(b"0")
        parameters = binding.llama_model_default_params()
        parameters.use_extra_bufts = use_extra_buffers
        # A mapped file that is truncated or replaced in place kills the process (SIGBUS).
        parameters.load_mode = _MMAP if tuning.mmap else _NO_MMAP
        parameters.n_gpu_layers = tuning.gpu_layers
        progress = binding.llama_progress_callback(
            lambda done, _: True if on_progress is None else on_progress(done)
        )
        parameters.progress_callback = progress
        forget_lines()
        forget_allocated()
        self._model = binding.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            reason = last_lines() or "no reason was given"
            raise Unavailable(f"llama.cpp could not load {path.name}: {reason}")
        self.projector: Projector | None = None
        try:
            self._adapters = AppliedAdapters(self._model, adapters)
            if projector is not None:
                threads = max(1, len(usable_cores()) // 2)  # others compute meanwhile
                self.projector = Projector(projector, self._model, num_threads=threads)
        except BaseException:
            binding.llama_model_free(self._model)
            raise
        self.vocabulary = Vocabulary(self._model)
        self.num_tokens = self.vocabulary.num_tokens
        self.trained_tokens: int = binding.llama_model_n_ctx_train(self._model)
        self.memory_bytes: int = binding.llama_model_size(self._model) + self._adapters.size_bytes
        if self.projector is not None:
            self.memory_bytes += self.projector.size_bytes
        self.width: int = binding.llama_model_n_embd(self._model)
        self.num_labels: int = binding.llama_model_n_cls_out(self._model)
        self.allocated = allocated()  # as llama.cpp says; a new one when it allocates more
        item_bytes = bytes_per_item(tuning.cache_type_k) + bytes_per_item(tuning.cache_type_v)
        self.cache_bytes_per_token = int(item_bytes * self._kv_width())
        # Their state cannot be cut at a position: a prefix is reused whole or not at all.
        self.has_cuttable_cache: bool = not (
            binding.llama_model_is_recurrent(self._model)
            or binding.llama_model_is_hybrid(self._model)
        )

    def _kv_width(self) -> int:
        """Numbers that the keys of one token take over all layers; an estimate for odd models."""
        binding, model, metadata = self._binding, self._model, self.vocabulary.metadata
        architecture = metadata.get("general.architecture")
        head_width = metadata.get(f"{architecture}.attention.key_length")
        heads = max(1, binding.llama_model_n_head(model))
        width = int(head_width) if head_width else self.width // heads
        return binding.llama_model_n_layer(model) * binding.llama_model_n_head_kv(model) * width

    def open_cache(self, shape: Shape) -> None:
        """Make the context that generates. Raises `Unavailable` when memory is short."""
        parameters = self._context_parameters()
        parameters.n_ctx = shape.pool_tokens
        parameters.n_batch = parameters.n_ubatch = shape.max_batch_tokens
        parameters.n_seq_max = shape.num_slots
        parameters.kv_unified = not shape.exact
        if shape.exact:
            # Where keys and values are of one type, ggml chooses among three ways through
            # flash attention by the number of rows, and their last bits differ. Of two types
            # it always takes the first: one row after another, whatever the batch.
            parameters.flash_attn_type = 1
            parameters.type_k, parameters.type_v = _F16, _BF16
        else:
            tuning = self._tuning
            parameters.flash_attn_type = _FLASH[tuning.flash_attention]
            parameters.type_k = CACHE_TYPES[tuning.cache_type_k]
            parameters.type_v = CACHE_TYPES[tuning.cache_type_v]
        self._shape = shape
        self._context = self._make_context(parameters, f"{shape.pool_tokens} tokens of KV cache")
        self._memory = self._binding.llama_get_memory(self._context)
        self._batch = Batch(shape.max_batch_tokens)

    def decode(self, rows: Sequence[Row], when_ready: Callable[[], object] = lambda: None) -> None:
        """Compute a batch of at most `max_batch_tokens` rows.

        `when_ready` is called when all is prepared and this thread is about to leave the GIL.
        """
        self._check(rows)
        batch = self._batch.fill(rows)
        when_ready()
        status = self._binding.llama_decode(self._context, batch)
        _raise_for(status, f"a batch of {len(rows)}")

    def decode_image(self, image: ImageChunk, *, position: int, slot: int) -> None:
        """Compute an image whole, into the positions from `position` on."""
        shape = self._shape
        assert self.projector is not None, "a model without vision is given no images"
        self._check_slot(slot, position + image.num_tokens)
        status = self.projector.decode(
            self._context,
            image,
            position=position,
            slot=slot,
            batch_tokens=shape.max_batch_tokens,
        )
        _raise_for(status, f"an image of {image.num_tokens} tokens")

    def _check(self, rows: Sequence[Row]) -> None:
        shape = self._shape
        for row in rows:
            if not (
                0 <= row.token < self.num_tokens
                and 0 <= row.position < shape.context_tokens
                and 0 <= row.slot < shape.num_slots
            ):
                raise ValueError(f"{row} is outside of {shape}")

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """The logits of a row of the last batch; a view that the next decode overwrites."""
        pointer = self._binding.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, (self.num_tokens,))

    def set_threads(self, num_threads: int) -> None:
        """Compute the next steps on so many threads."""
        if num_threads == self._num_threads:
            return
        self._num_threads = num_threads
        for context in (self._context, self._embed_context):
            if context is not None:
                self._use_threads(context)

    def _use_threads(self, context: Any) -> None:
        number = self._num_threads
        self._binding.llama_set_n_threads(context, number, number)
        if self._cores is not None:
            self._cores.attach(context, number)

    @property
    def tile_rows(self) -> int | None:
        """Rows that attention computes together; None where a batch is not cut into tiles."""
        types = {self._tuning.cache_type_k, self._tuning.cache_type_v}
        is_tiled = self._tuning.flash_attention is not False and types in ({"f16"}, {"f32"})
        is_on_cpu = self._cores is not None
        return _TILE_ROWS if is_tiled and is_on_cpu and not self._shape.exact else None

    @property
    def context(self) -> Any:
        """llama.cpp's own context, for the sampler."""
        return self._context

    def truncate(self, slot: int, length: int) -> bool:
        """Forget what a slot holds from position `length` on; False if it cannot be cut there."""
        self._check_slot(slot, length)
        return bool(self._binding.llama_memory_seq_rm(self._memory, slot, length, -1))

    def clear(self, slot: int) -> None:
        """Forget all that a slot holds."""
        self._check_slot(slot, 0)
        self._binding.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def clear_all(self) -> None:
        """Forget everything."""
        self._binding.llama_memory_clear(self._memory, _DATA_TOO)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Give the empty slot `target` the first `length` positions of `source`."""
        self._check_slot(source, length)
        self._check_slot(target, length)
        if self._shape.exact:
            # Between caches of their own llama.cpp copies whole ones or ends the process.
            self._binding.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self._binding.llama_memory_seq_rm(self._memory, target, length, -1)
        else:
            self._binding.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def save(self, slot: int, max_bytes: int) -> slot_states.State | None:
        """A copy of all that a slot holds, or None if it is larger than `max_bytes`."""
        self._check_slot(slot, 0)
        return slot_states.copy_of(self._context, slot, max_bytes=max_bytes)

    def restore(self, slot: int, state: slot_states.State, length: int) -> bool:
        """Give the empty `slot` what `save` gave for `length` positions; False: it stays empty."""
        self._check_slot(slot, length)
        if slot_states.put_back(self._context, slot, state, length=length):
            return True
        self.clear(slot)
        return False

    def _check_slot(self, slot: int, length: int) -> None:
        if not (0 <= slot < self._shape.num_slots and 0 <= length <= self._shape.context_tokens):
            raise ValueError(f"slot {slot}, length {length} is outside of {self._shape}")

    def embed(self, inputs: Sequence[Sequence[int]], shape: Shape, pooling: str) -> Any:
        """One vector for each input, as an array [inputs, width], computed together.

        With pooling "rank" a vector is as wide as the model has labels.

        At most `shape.num_slots` inputs of `shape.max_batch_tokens` tokens in all.
        """
        if sum(map(len, inputs)) > shape.max_batch_tokens or len(inputs) > shape.num_slots:
            raise ValueError(f"{len(inputs)} inputs are too much for {shape}")
        binding = self._binding
        if self._embed_context is None:
            parameters = self._context_parameters()
            parameters.n_ctx = shape.pool_tokens
            # Pooling needs all of an input in one micro-batch; llama.cpp asserts it.
            parameters.n_batch = parameters.n_ubatch = shape.max_batch_tokens
            parameters.n_seq_max = shape.num_slots
            parameters.kv_unified = True
            parameters.flash_attn_type = 0
            parameters.type_k = parameters.type_v = _F32
            parameters.embeddings = True
            parameters.pooling_type = POOLINGS[pooling]
            self._embed_context = self._make_context(parameters, "embedding")
            self._embed_batch = Batch(shape.max_batch_tokens)
        context = self._embed_context
        if memory := binding.llama_get_memory(context):
            binding.llama_memory_clear(memory, not _DATA_TOO)
        rows = [
            Row(token, position, slot, wants_logits=True)
            for slot, tokens in enumerate(inputs)
            for position, token in enumerate(tokens)
        ]
        status = binding.llama_decode(context, self._embed_batch.fill(rows))
        if status == 2:
            raise Aborted
        if status != 0:
            raise Unavailable(f"llama.cpp failed to embed {len(inputs)} inputs (code {status})")
        width = self.num_labels if pooling == "rank" else self.width
        vectors = np.empty((len(inputs), width), np.float32)
        for slot in range(len(inputs)):
            pointer = binding.llama_get_embeddings_seq(context, slot)
            if not pointer:
                raise Unavailable("this model gives no pooled embeddings")
            vectors[slot] = np.ctypeslib.as_array(pointer, (width,))
        return vectors

    def _context_parameters(self) -> Any:
        parameters = self._binding.llama_context_default_params()
        parameters.n_threads = parameters.n_threads_batch = self._num_threads
        return parameters

    def _make_context(self, parameters: Any, purpose: str) -> Any:
        forget_lines()
        context = self._binding.llama_init_from_model(self._model, parameters)
        if not context:
            reason = last_lines() or "out of memory?"
            raise Unavailable(f"llama.cpp could not make a context for {purpose}: {reason}")
        self.allocated = allocated()
        try:
            self._adapters.apply(context)
        except BaseException:
            self._binding.llama_free(context)
            raise
        atoi = self._binding.ggml_abort_callback(_atoi_address())
        self._binding.llama_set_abort_callback(
            context, atoi, ctypes.cast(self._abort_flag, ctypes.c_void_p)
        )
        self._use_threads(context)
        return context

    def abort(self) -> None:
        """Interrupt the step that runs; from any thread, until `resume`."""
        self._abort_flag[0] = b"1"

    def resume(self) -> None:
        """Take `abort` back."""
        self._abort_flag[0] = b"0"

    def close(self) -> None:
        """Free everything, on the thread that loaded it; idempotent."""
        for context in (self._context, self._embed_context):
            if context is not None:
                self._binding.llama_free(context)
        self._context = self._embed_context = None
        if self._cores is not None:
            self._cores.close()
        if self.projector is not None:
            self.projector.close()
        if self._model:
            self.vocabulary.forget()
            self._binding.llama_model_free(self._model)
            self._model = None


def _raise_for(status: int, what: str) -> None:
    if status == 1:
        raise CacheFull
    if status == 2:
        raise Aborted
    if status != 0:
        raise Unavailable(f"llama.cpp failed to decode {what} (code {status})")


def _atoi_address() -> int:
    address = ctypes.cast(ctypes.CDLL(None).atoi, ctypes.c_void_p).value
    assert address is not None
    return address
