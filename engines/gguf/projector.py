"""Pictures for one loaded model, through llama.cpp's multimodal library (mtmd).

It is made and freed on the model's thread, which also does `decode`. `cut` and `encode` run
on any other, one at a time: an encoder takes seconds on a CPU, and answers go on meanwhile.
"""

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.errors import RequestRefused, Unavailable
from engines.gguf.native import forget_lines, last_lines, llama, mtmd, note_allocated
from engines.gguf.pictures import Pixels

Embeddings = npt.NDArray[np.float32]
_TEXT, _IMAGE = 0, 1
_ADD_SPECIAL = True


class CutImage:
    """A picture as the model takes it: marks, and one or several images."""

    def __init__(self, chunks: Any, context: Any) -> None:
        """`chunks` are freed with it."""
        self._mtmd = mtmd()
        self._chunks = chunks
        self._context = context
        self.pieces: list[Sequence[int] | ImageChunk] = [
            self._piece(self._mtmd.mtmd_input_chunks_get(chunks, at))
            for at in range(self._mtmd.mtmd_input_chunks_size(chunks))
        ]

    def _piece(self, chunk: Any) -> "Sequence[int] | ImageChunk":
        if self._mtmd.mtmd_input_chunk_get_type(chunk) == _TEXT:
            count = ctypes.c_size_t()
            tokens = self._mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            return [int(tokens[at]) for at in range(count.value)]
        attends_whole = self._mtmd.mtmd_decode_use_non_causal(self._context, chunk)
        return ImageChunk(self, chunk, attends_whole=attends_whole)

    def __del__(self) -> None:
        self._mtmd.mtmd_input_chunks_free(self._chunks)


class ImageChunk:
    """One image of a `CutImage`; `embeddings` once it is encoded.

    Of one that `attends_whole`, each part sees all others: it must be computed in one batch.
    """

    def __init__(self, owner: CutImage, chunk: Any, *, attends_whole: bool) -> None:
        binding = mtmd()
        self._owner = owner  # its memory is freed with that
        self.chunk = chunk
        self.num_tokens: int = binding.mtmd_input_chunk_get_n_tokens(chunk)
        self.num_positions: int = binding.mtmd_input_chunk_get_n_pos(chunk)
        self.attends_whole = attends_whole
        self.embeddings: Embeddings | None = None


class Projector:
    """The encoder of one loaded model."""

    def __init__(self, path: Path, model: Any, *, num_threads: int) -> None:
        """Load it beside `model`. Raises `Unavailable`."""
        self._binding = binding = mtmd()
        self._lock = threading.Lock()
        self._width: int = llama().llama_model_n_embd_inp(model)
        parameters = binding.mtmd_context_params_default()
        parameters.n_threads = num_threads
        parameters.print_timings = False
        parameters.warmup = False
        forget_lines()
        self._context = binding.mtmd_init_from_file(str(path).encode(), model, parameters)
        reason = last_lines() or "no reason was given"
        if not self._context:
            raise Unavailable(f"llama.cpp could not load projector {path.name}: {reason}")
        if not binding.mtmd_support_vision(self._context):
            self.close()
            raise Unavailable(f"projector {path.name} is not for pictures")
        self.size_bytes = path.stat().st_size
        note_allocated(self.size_bytes)

    def cut(self, pixels: Pixels) -> CutImage:
        """The picture scaled, and cut into images, as this model wants it."""
        binding = self._binding
        with self._lock:
            self._check_open()
            data = np.ascontiguousarray(pixels.data)
            pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
            bitmap = binding.mtmd_bitmap_init(pixels.width, pixels.height, pointer)
            chunks = binding.mtmd_input_chunks_init()
            part = binding.mtmd_input_part(None, bitmap)
            parts = (ctypes.POINTER(binding.mtmd_input_part) * 1)(ctypes.pointer(part))
            failed = binding.mtmd_tokenize_from_parts(
                self._context, chunks, parts, 1, not _ADD_SPECIAL
            )
            binding.mtmd_bitmap_free(bitmap)
            if failed:
                binding.mtmd_input_chunks_free(chunks)
                raise RequestRefused(
                    "the model cannot take an image of this size", param="messages"
                )
            return CutImage(chunks, self._context)

    def encode(self, image: ImageChunk) -> None:
        """Compute an image's embeddings, if nobody has yet. Takes long."""
        with self._lock:
            self._check_open()
            if image.embeddings is not None:
                return
            forget_lines()
            if self._binding.mtmd_encode_chunk(self._context, image.chunk):
                raise Unavailable(f"llama.cpp could not encode an image: {last_lines()}")
            found = self._binding.mtmd_get_output_embd(self._context)
            shape = (image.num_tokens, self._width)
            image.embeddings = np.ctypeslib.as_array(found, shape).copy()

    def decode(
        self, context: Any, image: ImageChunk, *, position: int, slot: int, batch_tokens: int
    ) -> int:
        """Put an image into a slot of the model's context; llama.cpp's code of what happened."""
        assert image.embeddings is not None, "it is encoded before its request is submitted"
        binding = self._binding
        embeddings = image.embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        after = ctypes.c_int32()
        return binding.mtmd_helper_decode_image_chunk(
            self._context,
            context,
            image.chunk,
            embeddings,
            position,
            slot,
            batch_tokens,
            ctypes.byref(after),
            binding.mtmd_helper_post_decode_callback(),
            None,
        )

    def _check_open(self) -> None:
        if not self._context:
            raise Unavailable("the model was unloaded")

    def close(self) -> None:
        """Free it, after what is being encoded; idempotent."""
        with self._lock:
            if self._context:
                self._binding.mtmd_free(self._context)
            self._context = None
