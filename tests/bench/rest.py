"""What one 24 MP frame takes beside the detector: peak memory and CPU time of detect, calibrate and correct --auto.

    python tests/bench/rest.py [--megapixels 24] [--rate 1e-4]

A stand-in for the detector names the damaged pixels. Each verb and format has a process of its own: the peak is its
greatest resident set (Linux), mapped files and imports included; the times are of the second of two calls, in which
everything is imported and the nets are open.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import speed_inputs

from fixpix_cli import files, maps
from fixpix_cli.detection import Detection
from fixpix_cli.jobs import calibrating, correcting, detecting
from fixpix_cli.jobs.outcomes import Common
from fixpix_cli.jobs.repairing import Repair
from fixpix_cli.nets import detectors
from fixpix_cli.tally import Tally

VERBS = ("detect", "calibrate", "correct")


def measured(verb: str, path: Path, pixels: np.ndarray, told: Any) -> None:
    """One verb on one file in this process."""

    def named(mosaic: Any, *_: object, **__: object) -> Detection:
        return Detection(mosaic.shape, 1e-4, "named", pixels, np.full(len(pixels), 0.9, np.float32))

    detectors.detect = named
    seconds: dict[str, float] = {}

    def timed(place: Any, name: str, label: str) -> None:
        work: Callable[..., Any] = getattr(place, name)

        @functools.wraps(work)
        def call(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return work(*arguments, **options)
            finally:
                seconds[label] = seconds.get(label, 0.0) + time.process_time() - start

        setattr(place, name, call)

    for place in (correcting, detecting, calibrating):
        timed(place, "load", "read")
    timed(Tally, "of", "tally")
    timed(correcting, "repair_plane", "repair")
    timed(files, "save", "write")
    timed(maps, "write_mask", "write")
    timed(calibrating, "digest", "digest")
    out, common = path.parent / "out", Common()
    out.mkdir(exist_ok=True)
    calls: dict[str, Callable[[], Any]] = {
        "detect": lambda: detecting._detect_one(path, out / "a.mask.fits", common, None, False, True),
        "calibrate": lambda: calibrating._calibrate_one(path, common, None, out / "a.map.fits", out)[0],
        "correct": lambda: correcting._correct_one(
            path, out / path.name, common, Repair(auto=True, overwrite=True, out=out), out, None, None
        ),
    }
    for _ in range(2):
        seconds.clear()
        start = time.process_time()
        outcome = calls[verb]()
        whole = time.process_time() - start
    if outcome.error or outcome.defects != len(pixels):
        raise SystemExit(f"{verb} {path.name}: {outcome}")
    peak = int(next(w for w in Path("/proc/self/status").read_text().splitlines() if w.startswith("VmHWM")).split()[1])
    told.put({"peak_mb": round(peak / 1000), "cpu_s": round(whole, 3), **{k: round(v, 3) for k, v in seconds.items()}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=24.0)
    parser.add_argument("--rate", type=float, default=1e-4)
    chosen = parser.parse_args()
    stages = ("read", "digest", "tally", "repair", "write")
    print(f"| verb | file | peak, MB | CPU, s | {' | '.join(stages)} |")
    print("|---|---|" + "---|" * (len(stages) + 2))
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        samples = speed_inputs.scene(chosen.megapixels)
        bad = speed_inputs.damage(samples.shape, chosen.rate)
        samples[bad] = 4000
        for suffix, write in speed_inputs.WRITERS.items():
            path = Path(folder) / f"frame.{suffix}"
            write(path, samples)
            for verb in VERBS:
                told = context.Queue()
                one = context.Process(target=measured, args=(verb, path, np.flatnonzero(bad), told))
                one.start()
                found = told.get(timeout=600)
                one.join()
                cells = [found["peak_mb"], found["cpu_s"], *(found.get(stage, "") for stage in stages)]
                print(f"| {verb} | {suffix} | {' | '.join(map(str, cells))} |", flush=True)
            path.unlink()
    print(json.dumps({"megapixels": chosen.megapixels, "rate": chosen.rate, "date": time.strftime("%Y-%m-%d")}))


if __name__ == "__main__":
    main()
