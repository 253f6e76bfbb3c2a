"""What detection in one 24 MP frame costs, stage by stage: CPU seconds, wall clock, peak memory.

    python tests/bench/speed_detect.py [--threads N]

The frame is simulated stars on a Bayer sensor, 0.01 % of it damaged. CPU seconds hold on a busy machine, too.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fixpix_cli import classical
from fixpix_cli.cfa import RGGB
from fixpix_cli.inject import Injection, inject
from fixpix_cli.levels import levels
from fixpix_cli.nets import detectors
from fixpix_cli.normalise import features
from fixpix_cli.simulate import Sensor, stars


def timed(name: str, work: Callable[[], Any]) -> Any:
    """Call `work` and print what it cost; the peak is that of the whole process so far."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    answer = work()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name:24} {cpu:6.2f} s CPU {wall:7.2f} s wall {after.ru_maxrss // 1024:5} MB peak", flush=True)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    shape = (1000, 1500)
    small = Sensor(shape=shape, cfa=RGGB, seed=3, defects=0.0).expose(stars(shape, 3, 300, 2.0), 30)
    frame = type(small)(samples=np.tile(small.samples, (4, 4)), cfa=small.cfa, black=small.black, white=small.white)
    frame = frame.with_samples(inject(frame, Injection(1e-4, 0.7, seed=1)).samples)
    print(f"{frame.samples.size / 1e6:.0f} MP, {threads} threads, rules and unet")
    timed("all of it", lambda: detectors.detect(frame, threads=threads))
    known = timed("levels", lambda: levels(frame.light()))
    rules = timed("rules", lambda: classical.ratios_of(known, None, threads))
    seen = features.Seen(known, rules, features.phase_of(frame.cfa))
    first = timed("features and net", lambda: detectors.shipped_unet().ratios_of(seen, threads=threads))
    timed("rate of the net", lambda: classical.rate_of(first, float("-inf")))
    timed("probability", lambda: classical.probability_of(first, 1e-4))


if __name__ == "__main__":
    main()
