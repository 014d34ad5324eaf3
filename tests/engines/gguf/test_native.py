import threading

import pytest

from engines.gguf import native
from engines.gguf.native import Allocated, allocated, forget_allocated, gpu_memory


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("load_tensors:          CPU model buffer size =    50.00 MiB", (50, 0)),
        ("load_tensors:   CPU_Mapped model buffer size =    50.00 MiB", (50, 0)),
        ("load_tensors:   CPU_REPACK model buffer size =    50.00 MiB", (50, 0)),
        ("load_tensors:        CUDA0 model buffer size =  4096.00 MiB", (0, 4096)),
        ("llama_kv_cache:      CUDA1 KV buffer size =   128.00 MiB", (0, 128)),
        ("llama_kv_cache:        CPU KV buffer size =    24.00 MiB", (24, 0)),
        ("sched_reserve:   CUDA_Host compute buffer size =     8.00 MiB", (8, 0)),
        ("~llama_context: CPU compute buffer size is   7.0137 MiB, matches", (0, 0)),
        ("llama_kv_cache: size =   24.00 MiB (  512 cells)", (0, 0)),
    ],
)
def test_what_llama_cpp_says_of_its_buffers_is_added_up(line: str, taken: tuple[int, int]) -> None:
    forget_allocated()
    for _ in range(2):
        native._note_buffer(line.encode())

    assert allocated() == Allocated(*(2 * size * 2**20 for size in taken))


def test_each_thread_has_its_own_sum() -> None:
    forget_allocated()
    native._note_buffer(b"x:  CPU model buffer size =    1.00 MiB")
    others: list[Allocated] = []
    thread = threading.Thread(target=lambda: others.append(allocated()))
    thread.start()
    thread.join()

    assert others == [Allocated()]
    assert allocated().main_bytes == 2**20


def test_a_build_without_gpus_has_no_gpu_memory() -> None:
    if native.llama().llama_supports_gpu_offload():
        pytest.skip("llama.cpp was built for a GPU")

    assert gpu_memory() == (0, 0)


def test_ggmls_list_of_devices_can_be_asked() -> None:
    library = native.ggml()
    devices = [library.ggml_backend_dev_get(n) for n in range(library.ggml_backend_dev_count())]

    assert all(devices)
    assert 0 in [library.ggml_backend_dev_type(device) for device in devices]  # the CPU
