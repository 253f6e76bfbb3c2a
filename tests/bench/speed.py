"""How long a repair with a known map takes, from shell to shell.

    python tests/bench/speed.py

A 24 MP FITS frame with 2,400 known bad pixels; the median of some runs of the whole process, its peak memory (Linux),
and what copying the file takes.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

from fixpix_cli import maps
from fixpix_cli.defects import DefectMap

#: The command line, followed by its peak memory in kB. A child's ru_maxrss would be its parent's.
_CHILD = """
import sys
from fixpix_cli.cli import main
try:
    main(sys.argv[1:])
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def known_map(rounds: int = 7) -> None:
    """A 24 MP FITS frame with 2,400 known bad pixels, whole processes."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        y, x = np.mgrid[:4000, :6000]
        noise = 30 * np.random.default_rng(0).standard_normal(x.shape)
        hdu = fits.PrimaryHDU((2000 + 800 * np.sin(x / 300) + 500 * np.cos(y / 200) + noise).astype(np.uint16))
        hdu.header["BAYERPAT"] = "RGGB"
        hdu.writeto(place / "big.fits")
        bad = np.zeros(x.shape, bool)
        bad.reshape(-1)[np.random.default_rng(1).choice(bad.size, 2400, replace=False)] = True
        maps.write_mask(place / "m.fits", [DefectMap.of(bad)])
        command = [sys.executable, "-c", _CHILD, "correct", "big.fits", "--map", "m.fits", "--quiet", "--overwrite"]
        seconds, copies, peak = [], [], 0.0
        for _ in range(rounds):
            start = time.perf_counter()
            done = subprocess.run(command, cwd=place, check=True, capture_output=True, text=True)
            peak = max(peak, int(done.stdout) / 1024)
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
            subprocess.run(["cp", "big.fits", "copy.fits"], cwd=place, check=True)
            copies.append(time.perf_counter() - start)
    one, two = np.median(seconds), np.median(copies)
    print(f"known map, 24 MP FITS: {one:.2f} s (copying the file: {two:.2f} s), peak {peak:.0f} MB")


def main() -> None:
    print(f"{platform.python_version()}, {os.cpu_count()} cores, numpy {np.__version__}")
    known_map()


if __name__ == "__main__":
    main()
