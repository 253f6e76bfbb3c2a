"""The figures of the README: detection and repair on real frames, and a known-map repair from shell to shell.

    FIXPIX_DATA=... python tests/bench/figures.py

Definitions: relative injection, d = 0.7; native outliers of the undamaged frame
count for nothing; NMSE on stored values over the damaged pixels, with the true
mask. S40 and HERO6 are training cameras of the rules and of the nets, the others
are not. Prints Markdown.
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

from fixpix_cli import files, maps, repair, score
from fixpix_cli.cfa import GRBG, RGGB
from fixpix_cli.defects import DefectMap
from fixpix_cli.evidence import DEFAULT_THRESHOLD, Tally
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Assume
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.nets.detectors import detect

CAMERAS = {
    "Canon S40": ("raw/canon_s40_*.CRW", Assume()),
    "GoPro HERO6": ("dng/gopro_hero6_adobe_ljpeg.dng", Assume()),
    "Canon 550D": ("dng/canon_550d_packed14.dng", Assume()),
    "Kodak DC120": ("raw/*.KDC", Assume()),
    "Nikon": ("mosaic/nikon_dsc1339.tif", Assume(RGGB, (600.0,), 16383.0)),
    "Canon 100D (sky)": ("fits/canon_100d_unsolved.fits", Assume(GRBG, (2048.0,))),
    "MicaSense RedEdge": ("lab/rededge_*.tif", Assume()),
}
RATES = (1e-4, 0.01, 0.2)


def quality(data: Path) -> None:
    methods = {"mlp": shipped_mlp(), "least squares": repair.least_squares, "median": repair.median}
    rates = [f"{rate:.2%}" for rate in RATES]
    tables: list[list[str]] = [[], []]
    for camera, (pattern, known) in CAMERAS.items():
        found = {rate: score.Detection() for rate in RATES}
        fixed = {(rate, name): score.Correction() for rate in RATES for name in methods}
        for path in sorted(data.glob(pattern)):
            clean = files.load(path, known).mosaics[0].light()
            native = score.native_outliers(clean)
            for rate in RATES:
                damage = inject(clean, Injection(rate, 0.7, seed=11), frame_key=path.name)
                damaged, truth = clean.with_samples(damage.samples), damage.dq != 0
                flags = Tally.of(damaged, detect(damaged).probability).view(DEFAULT_THRESHOLD).bad
                found[rate] += score.detection(flags, truth, native)
                for name, corrector in methods.items():
                    fixed[rate, name] += score.correction(clean, repair.repair(damaged, truth, corrector), truth)
        cells = ["{recall:.3f} / {precision:.3f}".format(**found[rate].ratios()) for rate in RATES]
        tables[0].append(f"| {camera} | " + " | ".join(cells) + " |")
        cells = [f"{1e3 * fixed[rate, name].ratios()['nmse_stored']:.2f}" for rate in RATES for name in methods]
        tables[1].append(f"| {camera} | " + " | ".join(cells) + " |")
    heads = [[f"at {r}" for r in rates], [f"{m} {r}" for r in rates for m in methods]]
    titles = ("Detection in one frame, recall / precision", "Repair with the true mask, NMSE x 1000")
    for title, head, rows in zip(titles, heads, tables, strict=True):
        print(f"\n{title}:\n\n| camera | " + " | ".join(head) + " |\n|" + "---|" * (len(head) + 1))
        print("\n".join(rows))


#: The command line, followed by its peak memory in kB (Linux). A child's ru_maxrss would be its parent's.
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
    from astropy.io import fits

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
    print(f"\nknown map, 24 MP FITS: {one:.2f} s (copying the file: {two:.2f} s), peak {peak:.0f} MB")


def main() -> None:
    folder = os.environ.get("FIXPIX_DATA")
    if not folder:
        sys.exit("set FIXPIX_DATA to the data folder")
    print(f"{platform.python_version()}, {os.cpu_count()} cores, numpy {np.__version__}\n")
    known_map()
    quality(Path(folder))


if __name__ == "__main__":
    main()
