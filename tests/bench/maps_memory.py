"""`fixpix calibrate` as a process: peak memory and time against the number of frames."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from astropy.io import fits

from fixpix_cli.simulate import Sensor

#: Pixels of a frame; a calibrate of so many frames is measured.
_SHAPE = (240, 320)


def measure(numbers: tuple[int, ...]) -> list[dict[str, Any]]:
    """Per number of frames: seconds for each; MB: peaks of the leading and of the largest other process, the map."""
    sensor, out = Sensor(_SHAPE, seed=4, defects=0.002), []
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for n in range(max(numbers)):
            hdu = fits.PrimaryHDU(sensor.expose(None, 60.0, 0.0, n).samples)
            hdu.header["INSTRUME"], hdu.header["EXPTIME"], hdu.header["IMAGETYP"] = "Bench", 60.0, "Dark"
            hdu.writeto(place / f"dark{n:05d}.fits")
        for count in numbers:
            out.append(_calibrated(place, [f"dark{n:05d}.fits" for n in range(count)]))
    return out


def _calibrated(place: Path, names: list[str]) -> dict[str, Any]:
    store = place / f"store{len(names)}"
    command = [sys.executable, "-m", "fixpix_cli", "calibrate", *names, "--quiet", "-j", "1", "--store", str(store)]
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL)
    peaks: dict[int, float] = {}
    while child.poll() is None:
        for pid in _family(child.pid):
            peaks[pid] = max(peaks.get(pid, 0.0), _peak(pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - start
    if child.returncode:
        raise RuntimeError(f"calibrate ended with {child.returncode}")
    leader = peaks.pop(child.pid, 0.0)
    size = sum(path.stat().st_size for path in store.glob("*.map.fits")) / 1e6
    return {
        "frames": len(names),
        "size": f"{_SHAPE[1]} x {_SHAPE[0]}",
        "each": seconds / len(names),
        "leader": leader,
        "worker": max(peaks.values(), default=0.0),
        "map": size,
    }


def _family(pid: int) -> list[int]:
    """A process and all that come from it (Linux)."""
    found, children = [], [pid]
    while children:
        found += children
        children = [int(name) for one in children for name in _children(one)]
    return found


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []


def _peak(pid: int) -> float:
    """Peak resident memory in MB so far; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


assert os.name == "posix", "this bench reads /proc"
