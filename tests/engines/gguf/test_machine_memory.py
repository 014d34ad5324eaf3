from pathlib import Path

from engines.gguf.machine_memory import available_bytes, total_bytes

GIB = 2**30
MEMINFO = "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_container_it_is_what_the_machine_says(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/user.slice\n"})

    assert available_bytes(root) == 8 * GIB
    assert total_bytes(root) == total_bytes()


def test_a_containers_limit_counts_and_what_it_has_cached_of_files_does_not(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/memory.current": f"{GIB // 2}\n",
            "sys/fs/cgroup/memory.stat": f"anon 5\ninactive_file {GIB // 4}\n",
        },
    )

    assert total_bytes(root) == GIB
    assert available_bytes(root) == GIB // 4 * 3


def test_the_narrowest_of_nested_groups_counts(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/a/memory.current": "0\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/b/memory.current": "0\n",
        },
    )

    assert (total_bytes(root), available_bytes(root)) == (GIB, GIB)


def test_groups_of_the_older_kind_are_read_too(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu:/\n4:memory:/box\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GIB // 8}\n",
        },
    )

    assert available_bytes(root) == GIB // 8


def test_where_the_system_says_nothing_all_of_it_is_free(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) == total_bytes(tmp_path) > 0
