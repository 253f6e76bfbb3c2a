"""Frames through all stages: rate, memory, the limit on it, devices, and a cluster of processes.

    python tests/bench/pipeline.py [--rows ROW ...] [--frames 8] [--device cuda] [--json FILE]

stages   CPU seconds of each stage on one 24 MP FITS frame.
rate     detect, calibrate and correct (known map) on 24 MP FITS frames: seconds per frame of the whole run, beside as
         many processes as the machine has processors that do nothing but the slowest stage (interleaved rounds).
memory   peak memory of all processes together (Linux: proportional set size) and of the leader, for 10, 100, 500 frames
         of 0.02 MP.
limit    peak memory of all processes under --max-memory, and the exit code: 1 where frames need more.
device   the nets on a device and on the CPU: frames per second.
cluster  what a task costs on a cluster of this machine's processes, and the sizes and times of docs/scale.md.

Frames are hard links to a few different ones, so that hundreds cost little disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from fixpix_cli import files, jobs, machine, maps
from fixpix_cli.defects import DefectMap
from fixpix_cli.evidence import Tally
from fixpix_cli.jobs.calibrating import evidence_of
from fixpix_cli.jobs.repairing import Repair, repair_plane
from fixpix_cli.nets.detectors import detect

BIG, SMALL = (4000, 6000), (128, 160)
KINDS = 4
#: Different frames that `calibrate` gets: 48 MB of disk each.
_DIFFERENT = 32
ROWS = ("stages", "rate", "memory", "limit", "device", "cluster")


def scenes(folder: Path, shape: tuple[int, int], count: int, kinds: int = KINDS) -> Path:
    """`count` frames, links to `kinds` different ones, each with one bad pixel in 5,000."""
    originals = folder.with_name(folder.name + "-originals")
    for place in (folder, originals):
        place.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    bad = np.random.default_rng(99).choice(x.size, x.size // 5000, replace=False)
    for n in range(min(kinds, count)):
        noise = 30 * np.random.default_rng(n).standard_normal(shape, np.float32)
        samples = (2000 + 800 * np.sin(x / 300 + n) + 500 * np.cos(y / 200) + noise).astype(np.uint16)
        samples.reshape(-1)[bad] = 16000
        hdu = fits.PrimaryHDU(samples)
        hdu.header["BAYERPAT"], hdu.header["INSTRUME"] = "RGGB", "Bench"
        hdu.writeto(originals / f"{n}.fits", overwrite=True)
    for n in range(count):
        (folder / f"{n:06d}.fits").unlink(missing_ok=True)
        os.link(originals / f"{n % kinds}.fits", folder / f"{n:06d}.fits")
    mask = np.zeros(shape, bool)
    mask.reshape(-1)[bad] = True
    maps.write_mask(folder.with_name(folder.name + ".mask.fits"), [DefectMap.of(mask)], overwrite=True)
    return folder


def family(pid: int) -> list[int]:
    """A process and all below it."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            below.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += below.get(one, [])
    return found


def memory_of(pid: int) -> float:
    """MB of a process; pages that several have count in parts."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:")), 0.0)


def cpu_of(pid: int) -> float | None:
    """CPU seconds of a process until now."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ran(place: Path, *arguments: object, failing: bool = False) -> dict[str, float]:
    """Run fixpix; seconds by the clock and of CPU, and peak memory in MB, of all processes and of the leader.

    With `failing` frames may fail, and the exit code is told.
    """
    start = time.perf_counter()
    spent: dict[int, float] = {}
    process = subprocess.Popen(
        [sys.executable, "-m", "fixpix_cli", *map(str, arguments), "--quiet"],
        cwd=place, stdout=subprocess.DEVNULL, env={**os.environ, "FIXPIX_STORE": str(place / "store")},
    )  # fmt: skip
    peak = leader = 0.0
    while process.poll() is None:
        pids = family(process.pid)
        spent |= {pid: seconds for pid in pids if (seconds := cpu_of(pid)) is not None}
        sizes = [memory_of(pid) for pid in pids]
        peak, leader = max(peak, sum(sizes)), max(leader, sizes[0])
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    if process.returncode and not failing:
        raise SystemExit(f"fixpix {' '.join(map(str, arguments))}: exit code {process.returncode}")
    code = {"exit_code": process.returncode} if failing else {}
    return {"seconds": seconds, "cpu": sum(spent.values()), "peak_mb": peak, "leader_mb": leader, **code}


# ---------------------------------------------------------------- stages


def stages(verb: str, place: Path) -> dict[str, Callable[[], Any]]:
    """The stages of a verb on one 24 MP frame, each as a call of its own."""
    path = place / "big-originals" / "0.fits"
    frame = files.load(path)
    mosaic = frame.mosaics[0]
    out = place / f"stage-{os.getpid()}.fits"
    calls: dict[str, Callable[[], Any]] = {"read": lambda: files.load(path).mosaics[0].samples.sum()}
    if verb == "correct":
        bad = maps.read_mask(place / "big.mask.fits").planes[0].bad
        edits = [repair_plane(mosaic, bad, Repair(method="mlp"), path)[1]]
        calls["mask"] = lambda: maps.read_mask(place / "big.mask.fits").planes[0].bad
        calls["repair"] = lambda: repair_plane(mosaic, bad, Repair(method="mlp"), path)
        calls["write"] = lambda: files.save(frame, edits, out, overwrite=True)
    else:
        found = detect(mosaic)
        tally = Tally.of(mosaic, found)
        calls["detect"] = lambda: detect(mosaic)
        calls["tally"] = lambda: Tally.of(mosaic, found)
        if verb == "detect":
            calls["write"] = lambda: maps.write_mask(out, [tally.view()], overwrite=True)
    return calls


def alone(verb: str, stage: str, place: Path, times: int, barrier: Any, told: Any) -> None:
    """One process that does one stage again and again."""
    call = stages(verb, place)[stage]
    call()
    barrier.wait()
    start = time.perf_counter()
    for _ in range(times):
        call()
    told.put(time.perf_counter() - start)


def side_by_side(verb: str, stage: str, place: Path, times: int, processes: int) -> float:
    """Seconds per frame of a stage in that many processes at once."""
    context = multiprocessing.get_context("spawn")
    barrier, told = context.Barrier(processes), context.Queue()
    crew = [context.Process(target=alone, args=(verb, stage, place, times, barrier, told)) for _ in range(processes)]
    for one in crew:
        one.start()
    seconds = [told.get() for _ in crew]
    for one in crew:
        one.join()
    return max(seconds) / times / processes


def costs(verb: str, place: Path) -> dict[str, float]:
    """CPU seconds of each stage of a verb."""
    found = {}
    for name, call in stages(verb, place).items():
        start = time.process_time()
        call()
        found[name] = round(time.process_time() - start, 3)
    return found


def rate(place: Path, count: int, rounds: int) -> Iterator[dict[str, Any]]:
    scenes(place / "big", BIG, count)
    different = min(count, _DIFFERENT)  # calibrate counts equal frames once
    scenes(place / "each", BIG, different, different)
    verbs = {
        "detect": ("detect", "big", "--out", "out"),
        "calibrate": ("calibrate", "each", "--kind", "light", "--map", "new.map.fits"),
        "correct": ("correct", "big", "--map", "big.mask.fits", "--out", "out", "--overwrite"),
    }
    for verb, arguments in verbs.items():
        frames = different if verb == "calibrate" else count
        cpu = costs(verb, place)
        slowest = max(cpu, key=lambda name: cpu[name])
        whole, stage = [], []
        for _ in range(rounds):
            (place / "new.map.fits").unlink(missing_ok=True)
            whole.append(ran(place, *arguments))
            stage.append(side_by_side(verb, slowest, place, max(1, frames // machine.available()), machine.available()))
        seconds = float(np.median([one["seconds"] for one in whole])) / frames
        only = float(np.median(stage))
        yield {
            "row": "rate", "verb": verb, "frames": frames, "seconds_per_frame": round(seconds, 3),
            "slowest_stage": slowest, "slowest_alone": round(only, 3), "ratio": round(seconds / only, 2),
            "cpu_per_frame": round(float(np.median([one["cpu"] for one in whole])) / frames, 3),
            "stages_cpu": cpu, "peak_mb": round(max(one["peak_mb"] for one in whole)),
        }  # fmt: skip


def stage_costs(place: Path) -> Iterator[dict[str, Any]]:
    scenes(place / "big", BIG, 1)
    for verb in ("correct", "detect"):
        for stage, seconds in costs(verb, place).items():
            yield {"row": "stages", "verb": verb, "stage": stage, "cpu_s": seconds}


# ---------------------------------------------------------------- memory


def memory(place: Path, counts: tuple[int, ...] = (10, 100, 500)) -> Iterator[dict[str, Any]]:
    for verb in (("correct", "--auto", "--out", "out", "--overwrite"), ("calibrate",), ("detect", "--out", "out")):
        for count in counts:
            folder = scenes(place / f"small{count}", SMALL, count)
            done = ran(place, verb[0], folder.name, *verb[1:], "-j", 2)
            named = " ".join(verb[:2] if "--auto" in verb else verb[:1])
            figures = {name: round(value, 1) for name, value in done.items()}
            yield {"row": "memory", "verb": named, "frames": count, **figures}


def limit(place: Path) -> Iterator[dict[str, Any]]:
    scenes(place / "big", BIG, 4)
    for most in ("500M", "1G", "2G"):
        done = ran(place, "detect", "big", "--out", "out", "--max-memory", most, failing=True)
        yield {"row": "limit", "asked": most, **{name: round(value, 1) for name, value in done.items()}}


def device(place: Path, name: str, count: int) -> Iterator[dict[str, Any]]:
    scenes(place / "big", BIG, count)
    for where in dict.fromkeys(("cpu", name)):
        done = ran(place, "detect", "big", "--out", "out", "--device", where)
        yield {
            "row": "device", "device": where, "frames": count, "frames_per_s": round(count / done["seconds"], 3),
            "peak_mb": round(done["peak_mb"]),
        }  # fmt: skip


# ---------------------------------------------------------------- cluster


def cluster(place: Path, tasks: int = 400) -> Iterator[dict[str, Any]]:
    from fixpix_cli import cluster as clusters

    with clusters.connected(jobs.Common(cluster="local:2"), [], [], []) as there:
        items = [(place / "nothing",)] * tasks  # frames that take no time
        for _ in there.each(os.fspath, items[:20], lambda item, why: why):
            pass  # the workers' first processes start
        start, cpu = time.perf_counter(), time.process_time()
        for _ in there.each(os.fspath, items, lambda item, why: why):
            pass
        whole, own = time.perf_counter() - start, time.process_time() - cpu
        start, cpu = time.perf_counter(), time.process_time()
        there.client.gather(there.client.map(abs, range(tasks), pure=False))
        bare, bare_own = time.perf_counter() - start, time.process_time() - cpu
        yield {
            "row": "cluster", "tasks": tasks, "ms_per_frame_task": round(1000 * whole / tasks, 2),
            "of_it_cpu_of_client_and_scheduler": round(1000 * own / tasks, 2),
            "ms_per_bare_task": round(1000 * bare / tasks, 2), "bare_cpu": round(1000 * bare_own / tasks, 2),
        }  # fmt: skip
    scenes(place / "big", BIG, 2)
    evidence, seconds = [], []
    for n in range(2):
        frame = files.load(place / "big" / f"{n:06d}.fits")
        evidence.append(evidence_of(frame, "light", frozenset())[0])
    begun = time.process_time()
    total = evidence[0] + evidence[1]
    seconds.append(time.process_time() - begun)
    for parts in ([evidence[0]], [evidence[1]]):  # the first makes the map, the second reads it, too
        begun = time.process_time()
        maps.add(place / "sum.map.fits", frame.identity, parts)
        seconds.append(time.process_time() - begun)
    yield {
        "row": "evidence", "frame_mb": round(len(pickle.dumps(evidence[0])) / 1e6, 3),
        "suspects": int(sum(len(t.entries) for t in evidence[0].tallies.values())),
        "pair_mb": round(len(pickle.dumps(total)) / 1e6, 3), "sum_cpu_ms": round(1000 * seconds[0], 1),
        "map_write_cpu_s": round(seconds[1], 2), "map_again_cpu_s": round(seconds[2], 2),
        "map_mb": round((place / "sum.map.fits").stat().st_size / 1e6, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=["rate", "memory", "limit"])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="Where the frames are made; default: a temporary folder.")
    chosen = parser.parse_args()
    facts = {
        "python": platform.python_version(), "processors": machine.available(), "load": round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d"), "numpy": np.__version__,
    }  # fmt: skip
    print(json.dumps(facts))
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        place = Path(folder)
        for row in chosen.rows:
            made = {
                "stages": lambda: stage_costs(place),
                "rate": lambda: rate(place, chosen.frames, chosen.rounds),
                "memory": lambda: memory(place),
                "limit": lambda: limit(place),
                "device": lambda: device(place, chosen.device, chosen.frames),
                "cluster": lambda: cluster(place),
            }[row]()
            for one in made:
                print(json.dumps(one), flush=True)
                found.append(one)
    for name in dict.fromkeys(one["row"] for one in found):
        some = [one for one in found if one["row"] == name]
        print(f"\n| {' | '.join(some[0])} |\n|{'---|' * len(some[0])}")
        for one in some:
            print(f"| {' | '.join(str(value) for value in one.values())} |")
    if chosen.json:
        chosen.json.write_text(json.dumps({"facts": facts, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
