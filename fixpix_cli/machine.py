"""Floor 3. What this process may use of the machine: processors and memory, within its control groups.

A container or a batch job shows the whole machine's processors and memory and
is throttled or killed beyond its own share. On Linux that share stands in the
control groups (version 1 and 2) of the process and of all groups above it.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

#: Where Linux says which groups a process is in, and where they are mounted.
_MINE, _MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
#: Memory of a machine that does not say.
_UNKNOWN = 4_000_000_000


def available(mine: Path = _MINE, mount: Path = _MOUNT) -> int:
    """Processors that this process may use: by its affinity and by the time that its control groups get.

    Parameters
    ----------
    mine, mount : Path
        Where the control groups are named and mounted.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups("cpu", mine, mount):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # no such file, or "max 100000"
            quota, period = map(int, (group / "cpu.max").read_text().split())
            count = min(count, math.ceil(quota / period))
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            count = min(count, math.ceil(quota / period)) if quota > 0 else count
    return max(1, count)


def memory(mine: Path = _MINE, mount: Path = _MOUNT) -> int:
    """Bytes of memory that this machine has, or that the control groups of this process allow.

    4 GB where the system does not say.
    """
    found = []
    with contextlib.suppress(ValueError, OSError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for group in _groups("memory", mine, mount):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            with contextlib.suppress(ValueError, OSError):  # no such file, or "max"
                found.append(int((group / name).read_text()))
    return min(found, default=_UNKNOWN)


def _groups(controller: str, mine: Path, mount: Path) -> Iterator[Path]:
    """Folders of the control groups that hold this process, the innermost first.

    In a container the innermost may be named as the host sees it: then only the mount itself is there.
    """
    yield mount
    try:
        lines = mine.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        tops = [mount / names, mount / controller] if names else [mount, mount / "unified"]
        for top in dict.fromkeys(tops):
            group = top / path.lstrip("/")
            while group != top and top in group.parents:
                yield group
                group = group.parent
            yield top
