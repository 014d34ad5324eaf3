"""How much memory this machine, or its container, has, and how much of it is left."""

import os
from pathlib import Path

_HUGE = 2**60  # cgroups without a limit say "max", or a number as large


def total_bytes(root: Path = Path("/")) -> int:
    """All that processes here may ever have."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for limit, _ in _groups(root)]
    return min([physical, *limits])


def available_bytes(root: Path = Path("/")) -> int:
    """What can be had now without anything being swapped out or killed."""
    machine = _field(root / "proc/meminfo", "MemAvailable:", unit=1024)
    if machine is None:
        return total_bytes(root)
    return max(0, min([machine, *(limit - used for limit, used in _groups(root))]))


def _groups(root: Path) -> list[tuple[int, int]]:
    """Limit and use of each control group that this process is in and that has a limit."""
    found: list[tuple[int, int]] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            names = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = (
                "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                "total_inactive_file",
            )  # fmt: skip
        else:
            continue
        top = root / names[0]
        # Inside a container the path may be the host's; what is mounted then is the group itself.
        folder = top / path.lstrip("/")
        while True:
            if (group := _group(folder, *names[1:])) is not None:
                found.append(group)
            if folder == top:
                break
            folder = folder.parent
    return found


def _group(folder: Path, limit: str, used: str, reclaimable: str) -> tuple[int, int] | None:
    most, now = _number(folder / limit), _number(folder / used)
    if most is None or now is None or most >= _HUGE:
        return None
    # What was read of files is given back as soon as somebody needs the memory.
    return most, max(0, now - (_field(folder / "memory.stat", reclaimable, unit=1) or 0))


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _field(path: Path, name: str, *, unit: int) -> int | None:
    for line in _text(path).splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[1]) * unit
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
