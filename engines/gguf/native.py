"""The one door to llama.cpp: imports the binding, checks it, and takes over its log.

The low-level API changes with every release of llama-cpp-python, and a call
with the wrong arguments is not an exception but a crash. So the release is
pinned, and what runner.py and sampler.py rely on is compared with what is
installed before the first call.

Importing this module imports no llama_cpp; `llama()` does.
"""

import ctypes
import functools
import importlib
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from engines.errors import Unavailable

log = structlog.get_logger()

PINNED_VERSION = "0.3.36"

# Name: number of arguments. Those whose signatures moved lately, and those where a mistake
# would write to memory that is not ours.
_ARGUMENTS = {
    "llama_adapter_lora_init": 2,
    "llama_batch_init": 3,
    "llama_decode": 2,
    "llama_get_embeddings_seq": 2,
    "llama_get_logits_ith": 2,
    "llama_init_from_model": 2,
    "llama_memory_clear": 2,
    "llama_memory_seq_cp": 5,
    "llama_memory_seq_pos_max": 2,
    "llama_memory_seq_rm": 4,
    "llama_model_load_from_file": 2,
    "llama_model_meta_val_str": 4,
    "llama_model_quantize": 3,
    "llama_sampler_apply": 2,
    "llama_sampler_init_dist": 1,
    "llama_sampler_init_logit_bias": 3,
    "llama_sampler_init_penalties": 5,
    "llama_sampler_init_top_p": 2,
    "llama_sampler_sample": 3,
    "llama_set_abort_callback": 3,
    "llama_set_adapters_lora": 4,
    "llama_state_seq_get_data": 4,
    "llama_state_seq_get_size": 2,
    "llama_state_seq_set_data": 4,
    "llama_token_to_piece": 6,
    "llama_tokenize": 7,
}
_MTMD_ARGUMENTS = {
    "mtmd_bitmap_init": 3,
    "mtmd_decode_use_non_causal": 2,
    "mtmd_encode_chunk": 2,
    "mtmd_get_output_embd": 1,
    "mtmd_helper_decode_image_chunk": 10,
    "mtmd_init_from_file": 3,
    "mtmd_input_chunk_get_tokens_text": 2,
    "mtmd_tokenize_from_parts": 5,
}
_FIELDS = {
    "llama_batch": ("n_tokens", "token", "embd", "pos", "n_seq_id", "seq_id", "logits"),
    "llama_token_data_array": ("data", "size", "selected", "sorted"),
    "llama_model_params": ("load_mode", "progress_callback", "use_extra_bufts"),
    "llama_model_quantize_params": ("nthread", "ftype", "allow_requantize"),
    "llama_context_params": (
        "abort_callback",
        "embeddings",
        "flash_attn_type",
        "kv_unified",
        "n_batch",
        "n_ctx",
        "n_seq_max",
        "n_threads",
        "n_threads_batch",
        "n_ubatch",
        "pooling_type",
        "type_k",
        "type_v",
    ),
}
_WARNING, _ERROR = 3, 4  # llama.cpp writes dozens of lines below these for every load
# As in "load_tensors:        CUDA0 model buffer size =  4095.05 MiB".
_BUFFER = re.compile(rb"(\S+)\s+(?:\w+ )?buffer size =\s*([0-9.]+) MiB")
_GPU_KINDS = (1, 2)  # ggml_backend_dev_type: a GPU of its own memory, or of the machine's

_last_lines = threading.local()
_allocated = threading.local()


class Allocated(NamedTuple):
    """Bytes of the machine's memory and of GPUs'."""

    main_bytes: int = 0
    gpu_bytes: int = 0


@functools.cache
def llama() -> Any:
    """The checked binding. Raises `Unavailable` when it is missing or another release."""
    try:
        import llama_cpp

        binding: Any = importlib.import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        raise Unavailable(
            f"llama-cpp-python cannot be imported ({error}): "
            "run `python -m engines.gguf.build` in the gateway's environment"
        ) from error
    wrong = mismatches(binding)
    if wrong:
        raise Unavailable(
            f"llama-cpp-python {llama_cpp.__version__} is not the {PINNED_VERSION} this engine "
            f"was written for: {'; '.join(wrong)}"
        )
    binding.llama_log_set(_log_callback(binding), None)
    binding.llama_backend_init()
    if waits_in_openmp():
        log.warning(
            "llama_cpp_uses_openmp",
            hint="decoding gets 2 to 5 times slower once a second model is loaded; "
            "rebuild with `python -m engines.gguf.build`",
        )
    return binding


def has_mtmd() -> bool:
    """Whether llama.cpp's multimodal library is there; imports nothing."""
    from importlib.util import find_spec

    folder = os.environ.get("MTMD_CPP_LIB")
    if folder is None:
        found = find_spec("llama_cpp")
        if found is None or found.origin is None:
            return False
        folder = str(Path(found.origin).parent / "lib")
    return any(Path(folder).glob("*mtmd*"))


@functools.cache
def mtmd() -> Any:
    """The checked binding of the multimodal library. Raises `Unavailable` without one."""
    binding = llama()
    try:
        found: Any = importlib.import_module("llama_cpp.mtmd_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        raise Unavailable(
            f"llama.cpp was built without vision ({error}): run `python -m engines.gguf.build`"
        ) from error
    wrong = _wrong_arguments(found, _MTMD_ARGUMENTS)
    if wrong:
        raise Unavailable(f"llama.cpp's multimodal library is another one: {'; '.join(wrong)}")
    for set_log in (found.mtmd_log_set, found.mtmd_helper_log_set):
        set_log(_log_callback(binding), None)
    return found


def version() -> str:
    """The installed release of llama-cpp-python, without importing it."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("llama-cpp-python")
    except PackageNotFoundError:
        return "none"


def mismatches(binding: Any) -> list[str]:
    """What this engine relies on and `binding` does not have, in words."""
    wrong = [
        f"{struct} has no field {field}"
        for struct, fields in _FIELDS.items()
        for field in fields
        if field not in {name for name, _ in getattr(binding, struct)._fields_}
    ]
    return wrong + _wrong_arguments(binding, _ARGUMENTS)


def _wrong_arguments(binding: Any, arguments: Mapping[str, int]) -> list[str]:
    wrong: list[str] = []
    for name, expected in arguments.items():
        function = getattr(binding, name, None)
        found = None if function is None else len(function.argtypes)
        if found != expected:
            wrong.append(f"{name} takes {found} arguments, not {expected}")
    return wrong


def uses_openmp(libraries: Path) -> bool:
    """Whether the CPU library was built with OpenMP, which slows a process with two models."""
    names = (b"libgomp", b"libomp", b"libiomp")
    return any(
        name in library.read_bytes()
        for library in libraries.glob("libggml-cpu*.so")
        if not library.is_symlink()
        for name in names
    )


@functools.cache
def waits_in_openmp() -> bool:
    """Whether the installed one was."""
    import llama_cpp

    return uses_openmp(Path(llama_cpp.__file__).parent / "lib")


def last_lines() -> str:
    """The last warnings and errors llama.cpp logged on this thread, for an error message."""
    return "; ".join(getattr(_last_lines, "lines", ()))


def forget_lines() -> None:
    """Start `last_lines` afresh, before a call whose failure it may have to explain."""
    _last_lines.lines = deque(maxlen=3)


def quantize(
    source: Path, target: Path, file_type: int, *, num_threads: int, on_line: Callable[[str], None]
) -> None:
    """Write `target`; `on_line` hears all that llama.cpp says, a line for each tensor among it.

    For a process of its own (quantizing.py): the log is the whole process's. Raises
    `Unavailable`."""
    binding = llama()
    parameters = binding.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.nthread = num_threads
    parameters.allow_requantize = False
    forget_lines()
    take = _log_callback(binding)

    def listen(level: int, text: bytes | None, data: object) -> None:
        on_line((text or b"").decode("utf-8", "replace"))
        take(level, text, data)

    callback = binding.llama_log_callback(listen)
    binding.llama_log_set(callback, None)
    try:
        failed = binding.llama_model_quantize(
            str(source).encode(), str(target).encode(), ctypes.byref(parameters)
        )
    finally:
        binding.llama_log_set(take, None)
    if failed:
        reason = last_lines() or "no reason was given"
        raise Unavailable(f"llama.cpp could not quantize the model: {reason}")


def forget_allocated() -> None:
    """Start `allocated` afresh, before a model is loaded on this thread."""
    _allocated.so_far = Allocated()


def allocated() -> Allocated:
    """What llama.cpp said that it allocated on this thread since `forget_allocated`."""
    return getattr(_allocated, "so_far", Allocated())


def note_allocated(size_bytes: int) -> None:
    """Count memory of which llama.cpp says nothing."""
    main, gpu = allocated()
    _allocated.so_far = Allocated(main + size_bytes, gpu)


def _note_buffer(line: bytes) -> None:
    if (found := _BUFFER.search(line)) is None:
        return
    device, size = found[1], int(float(found[2]) * 2**20)
    main, gpu = allocated()
    # "CUDA_Host" is memory of the machine that the GPU may read.
    is_main = device.startswith(b"CPU") or device.endswith(b"Host")
    _allocated.so_far = Allocated(main + size, gpu) if is_main else Allocated(main, gpu + size)


def gpu_memory() -> tuple[int, int]:
    """Free and total bytes of all GPUs that llama.cpp can use; zeros where there are none.

    Asks the driver; any thread may call. Raises `Unavailable` as `llama` does."""
    if not llama().llama_supports_gpu_offload():
        return 0, 0
    library = ggml()
    free_bytes = total_bytes = 0
    for number in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(number)
        if library.ggml_backend_dev_type(device) in _GPU_KINDS:
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
            free_bytes, total_bytes = free_bytes + free.value, total_bytes + total.value
    return free_bytes, total_bytes


@functools.cache
def libllama() -> Any:
    """llama.cpp's own functions for thread pools, which the binding leaves out."""
    library: Any = importlib.import_module("llama_cpp.llama_cpp")._lib
    library.llama_attach_threadpool.argtypes = (ctypes.c_void_p,) * 3
    library.llama_attach_threadpool.restype = None
    library.llama_detach_threadpool.argtypes = (ctypes.c_void_p,)
    library.llama_detach_threadpool.restype = None
    return library


@functools.cache
def ggml() -> Any:
    """ggml's list of devices and its thread pools, which the binding leaves out, too."""
    library: Any = importlib.import_module("llama_cpp._ggml").libggml
    size_pointer = ctypes.POINTER(ctypes.c_size_t)
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_get.argtypes = (ctypes.c_size_t,)
    library.ggml_backend_dev_type.argtypes = (ctypes.c_void_p,)
    library.ggml_backend_dev_memory.argtypes = (ctypes.c_void_p, size_pointer, size_pointer)
    library.ggml_backend_dev_memory.restype = None
    library.ggml_threadpool_params_init.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.ggml_threadpool_params_init.restype = None
    library.ggml_threadpool_new.argtypes = (ctypes.c_void_p,)
    library.ggml_threadpool_new.restype = ctypes.c_void_p
    library.ggml_threadpool_free.argtypes = (ctypes.c_void_p,)
    library.ggml_threadpool_free.restype = None
    return library


@functools.cache
def _log_callback(binding: Any) -> Any:
    def take(level: int, text: bytes | None, _: object) -> None:
        if text and b"buffer size =" in text:
            _note_buffer(text)
        if level not in (_WARNING, _ERROR) or not text:
            return
        line = text.decode("utf-8", "replace").strip()
        lines = getattr(_last_lines, "lines", None)
        if lines is not None:
            lines.append(line)
        log.debug("llama_cpp_said", line=line)

    return binding.llama_log_callback(take)
