"""Rounds of concurrent `fixpix calibrate` processes on one map, some of them killed: is anything lost?

    python tests/bench/store.py --rounds 300

Each round starts several processes that count frames of one camera into one map, frames shared among them,
and kills some with SIGKILL at a random moment. After each round the map must be readable, hold the exact sum
of the evidence of the frames that it says it counted, and every frame that a process reported as done or that was
counted before. At the end one run without kills must lead to the map of all frames, bit for bit.

The processes are forked from one that has imported everything, and call `jobs.calibrate` without workers of their
own, so that hundreds of rounds take minutes; with ``--shell`` they are started as commands.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

from fixpix_cli import __version__, jobs, maps, workers
from fixpix_cli.errors import StoreError
from fixpix_cli.evidence import Evidence
from fixpix_cli.report import record

SHAPE = (48, 64)


def frames(folder: Path, count: int) -> list[Path]:
    """Small darks with hot pixels, two months, three exposures."""
    folder.mkdir()
    paths = []
    for n in range(count):
        rng = np.random.default_rng(n)
        samples = rng.normal(500, 5, SHAPE)
        samples[5::11, 7::13] += 3000
        hdu = fits.PrimaryHDU(np.rint(samples).astype(np.uint16))
        cards = {"INSTRUME": "Bench", "IMAGETYP": "DARK", "EXPTIME": (1.0, 60.0, 300.0)[n % 3], "CCD-TEMP": -5.0}
        hdu.header.update(cards | {"DATE-OBS": f"2026-0{1 + n % 2}-01T00:00:{n % 60:02d}"})
        paths.append(folder / f"d{n:03d}.fits")
        hdu.writeto(paths[-1])
    return paths


def start(share: list[Path], map_file: Path, log: Path, shell: bool) -> int:
    """The id of a new process that calibrates some frames and writes its outcomes to `log`."""
    arguments = ["calibrate", *map(str, share), "--map", str(map_file), "--json", "-j", "1", "--kind", "dark"]
    if shell:
        with open(log, "wb") as out:
            return subprocess.Popen([sys.executable, "-m", "fixpix_cli", *arguments], stdout=out).pid
    if pid := os.fork():
        return pid
    code = 0
    try:
        with open(log, "w") as out:
            for outcome in jobs.calibrate(share, jobs.Common(), store=map_file.parent, map_file=map_file, kind="dark"):
                print(json.dumps(record(outcome)), file=out, flush=True)
                code = max(code, outcome.exit_code)
    except BaseException as error:
        log.write_text(f"{error!r}")
        code = 99
    finally:
        os._exit(code)


def told(log: Path) -> set[str]:
    """Names of the frames that a process reported as in the map."""
    names = set()
    for line in log.read_text().splitlines():
        if line.endswith("}") and "summary" not in (one := json.loads(line)) and one["status"] in ("done", "skipped"):
            names.add(Path(one["path"]).name)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--kill", type=float, default=0.5, help="share of the processes that are killed")
    parser.add_argument("--shell", action="store_true", help="start commands, do not fork")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, began = random.Random(given.seed), time.perf_counter()
    print(f"fixpix {__version__}, Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores")
    counts = {"processes": 0, "killed": 0, "killed in mid-run": 0, "lost frames": 0, "unreadable": 0, "wrong sums": 0}
    with tempfile.TemporaryDirectory() as scratch:
        paths = frames(Path(scratch) / "frames", given.frames)
        if not given.shell:
            workers.run = lambda function, items, *rest: (function(*item) for item in items)  # no process below ours
            list(jobs.calibrate(paths[:1], jobs.Common(), store=Path(scratch) / "first", kind="dark"))  # imports all
        single: dict[str, Evidence] = {}
        for path in paths:  # what each frame says, alone
            pid = start([path], Path(scratch) / "one" / f"{path.stem}.map.fits", Path(scratch) / "log", given.shell)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, (Path(scratch) / "log").read_text()
            single[path.name] = maps.read_map(Path(scratch) / "one" / f"{path.stem}.map.fits").evidence
        span = 0.2
        for number in range(given.rounds):
            map_file = Path(scratch) / f"round{number}" / "cam.map.fits"
            logs = {}
            for k in range(given.processes):
                share = rng.sample(paths, rng.randint(1, len(paths)))
                log = Path(scratch) / f"log{k}"
                log.write_bytes(b"")
                logs[start(share, map_file, log, given.shell)] = log
            counts["processes"] += len(logs)
            first = time.perf_counter()
            for pid in list(logs):
                if rng.random() < given.kill:
                    time.sleep(rng.random() * span)
                    os.kill(pid, signal.SIGKILL)
                    counts["killed"] += 1
            said: set[str] = set()
            for pid, log in logs.items():
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                counts["killed in mid-run"] += code == -signal.SIGKILL
                assert code in (0, -signal.SIGKILL), f"exit {code}: {log.read_text()}"
                said |= told(log)
            span = 0.9 * span + 0.1 * (time.perf_counter() - first)  # kills spread over a run's life
            check(map_file, said, single, counts)
            pid = start(paths, map_file, Path(scratch) / "log", given.shell)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            check(map_file, {path.name for path in paths}, single, counts)
            left = {p.name for p in map_file.parent.iterdir()} - {".cam.map.fits.bak"}
            assert left == {".cam.map.fits.lock", "cam.map.fits"}, left
            if number % 20 == 19:
                print(f"{number + 1} rounds: {counts}", flush=True)
    for name, count in counts.items():
        print(f"{name:>18}: {count}")
    print(f"{given.rounds} rounds in {time.perf_counter() - began:.0f} s")
    sys.exit(1 if counts["lost frames"] or counts["unreadable"] or counts["wrong sums"] else 0)


def check(map_file: Path, said: set[str], single: dict[str, Evidence], counts: dict[str, int]) -> None:
    """Count what is wrong with a map."""
    if not map_file.exists():
        counts["lost frames"] += len(said)
        return
    try:
        camera = maps.read_map(map_file, parts=True)
    except StoreError as error:
        print(error)
        counts["unreadable"] += 1
        return
    there = {counted.name for counted in camera.evidence.frames.values()}
    counts["lost frames"] += len(said - there)
    right = Evidence()
    for name in sorted(there):
        right = right + single[name]
    counts["wrong sums"] += camera.evidence != right


if __name__ == "__main__":
    main()
