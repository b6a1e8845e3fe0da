"""What this machine is, and what it has to spare."""

import platform
from pathlib import Path

# Of a container, in either version of control groups: folder, its limit, and what it has used.
_CONTAINERS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def processor() -> str:
    """The CPU's name as the system tells it; on Linux the model, elsewhere what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), platform.processor() or platform.machine())


def free_memory() -> int | None:
    """Bytes of main memory to be had without swapping, by the machine and its container; None if unknown.

    Known on Linux, where a process that takes more is killed without a word.
    """
    containers = (
        _left(Path(folder, limit), Path(folder, used), Path(folder, "memory.stat"))
        for folder, limit, used in _CONTAINERS
    )
    return min((size for size in (_available(), *containers) if size is not None), default=None)


def _available() -> int | None:
    try:
        figures = _figures(Path("/proc/meminfo"))
    except OSError:
        return None
    return 1024 * figures["MemAvailable:"] if "MemAvailable:" in figures else None


def _left(limit: Path, used: Path, details: Path) -> int | None:
    try:
        figures = _figures(details)
        # What files have cached gives way.
        cached = figures.get("active_file", 0) + figures.get("inactive_file", 0)
        return int(limit.read_text("ascii")) - int(used.read_text("ascii")) + cached
    except (OSError, ValueError):  # absent, or "max"
        return None


def _figures(file: Path) -> dict[str, int]:
    """The first number of each line by what stands before it."""
    lines = (line.split() for line in file.read_text("ascii").splitlines())
    return {name: int(number) for name, number, *_ in lines}
