"""Floor 2. What this machine's processor can do."""

from __future__ import annotations

from functools import cache
from pathlib import Path

#: Flags of x86 processors that multiply bytes four at a time into sums of 32 bits. Others sum into 16 bits,
#: which overflow, or are no faster with bytes than with single precision.
_BYTES = {"avx512_vnni", "avx_vnni"}


@cache
def multiplies_bytes(info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether int8 nets are exact and fast here. Where the system does not say (other than Linux): no."""
    try:
        lines = info.read_text(errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return not _BYTES.isdisjoint(flags)
