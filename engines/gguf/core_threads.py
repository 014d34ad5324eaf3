"""llama.cpp's threads for one model, each on a core of its own.

At every node of a graph, some 400 times a step, llama.cpp's threads wait for each
other, spinning. Left to the kernel, two of them land on one core as soon as
somebody else computes on another: then each spins away its time slice before the
other may come to the same node, and a step of 30 ms takes 1.2 s. With each on a
core of its own a neighbour costs its share of that core (docs/experiments.md).

That is for as many threads as there are cores. Fewer have room to get out of the
way, which is the kernel's work: llama.cpp makes those itself, for each step.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import structlog

from engines.gguf.cores import may_choose_cores, stay_on, usable_cores
from engines.gguf.native import ggml, libllama, llama, waits_in_openmp

log = structlog.get_logger()

_MAX_CORES = 512  # GGML_MAX_N_THREADS
_ROOM = 4096  # bytes for `_Parameters`, of which a later llama.cpp may want more
_NO_POLLING = 0  # between two steps the threads sleep: others want the cores then
_CHECKED = 7  # any number that no field has by itself


class _Parameters(ctypes.Structure):
    """ggml_threadpool_params of the pinned release."""

    _fields_ = [
        ("cpumask", ctypes.c_bool * _MAX_CORES),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    ]


class CoreThreads:
    """Made, used and closed on the thread that decodes, which is one of them."""

    def __init__(self) -> None:
        self._cores = usable_cores()
        self._pool: Any = None
        self._is_possible = may_choose_cores() and len(self._cores) > 1 and not waits_in_openmp()

    def attach(self, context: Any, num_threads: int) -> None:
        """Let the next steps of `context` be computed on so many threads."""
        library = libllama()
        pool = self._pool_of_all() if num_threads == len(self._cores) else None
        if pool is None:
            library.llama_detach_threadpool(context)
            self._stay_on(self._cores)
        else:
            library.llama_attach_threadpool(context, pool, pool)
            self._stay_on(self._cores[-1:])  # ggml gives the others those before it

    def close(self) -> None:
        """End the threads, once no context uses them; idempotent."""
        if self._pool is not None:
            ggml().ggml_threadpool_free(self._pool)
            self._pool = None
        self._stay_on(self._cores)

    def _pool_of_all(self) -> Any:
        if self._pool is None and self._is_possible:
            self._pool = _pool_on(self._cores)
            self._is_possible = self._pool is not None
        return self._pool

    def _stay_on(self, cores: list[int]) -> None:
        try:
            stay_on(cores)
        except OSError as error:  # somebody has taken the cores from this process
            log.warning("core_refused", cores=cores, reason=str(error))


def _pool_on(cores: list[int]) -> Any:
    """A thread pool with a thread for each core; None where ggml has none like it."""
    if cores[-1] >= _MAX_CORES:
        return None
    library = ggml()
    parameters = _checked_parameters(library.ggml_threadpool_params_init)
    if parameters is None:
        return None
    library.ggml_threadpool_params_init(ctypes.byref(parameters), len(cores))
    for core in cores:
        parameters.cpumask[core] = True
    parameters.strict_cpu = True
    parameters.poll = _NO_POLLING
    return library.ggml_threadpool_new(ctypes.byref(parameters))


def _checked_parameters(initialize: Callable[[Any, int], None]) -> _Parameters | None:
    """Parameters in room enough; None, and a warning, if their fields lie elsewhere by now."""
    parameters = _Parameters.from_buffer(bytearray(_ROOM))
    initialize(ctypes.byref(parameters), _CHECKED)
    found = (parameters.n_threads, parameters.prio, parameters.poll, parameters.strict_cpu)
    if found == (_CHECKED, 0, 50, False):
        return parameters
    log.warning("thread_pool_is_another", found=found)
    return None


def may_stay_on_cores(gpu_layers: int) -> bool:
    """Whether the CPU computes the steps; beside a GPU a core of one's own is in the way."""
    return gpu_layers == 0 or not llama().llama_supports_gpu_offload()
