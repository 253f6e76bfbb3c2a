"""Every speed figure of fixpix and of its peers: whole processes, stages against the machine's limits, growth laws.

    python tests/bench/speed.py --readme

builds its inputs in a temporary folder, takes about eight minutes on two free cores, prints its tables, and with
`--readme` puts them into the README. `--rows` takes some of the rows, `--quick` smaller inputs and three rounds, for a
CI job; `--large` adds frames of 54 and 150 MP, 100 and 500 frames, and the peers that take ten seconds and more.
Figures of one table come from one interleaved run: ours, the peers' and the copy in turn, medians of `--rounds`. Only
ratios mean anything on a busy machine. Peers come with ``pip install fixpix[bench]`` and the programs siril-cli,
dcraw and rawtherapee-cli; what is missing is named, and left out. Linux only.

Rows
    start      what a command takes before it does anything
    known      24 MP with 2,400 known bad pixels: FITS, TIFF, DNG without compression and with lossless JPEG
    find       24 MP: find and repair
    stages     where the time of `known` goes, beside what the machine needs for the same bytes or sums
    pixels     1 to 150 MP at 0.01 % known bad pixels
    defects    0.001 % to 70 % known bad pixels
    frames     1 to 500 frames of one run, against copying them
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import output
import speed_inputs as inputs
import speed_peers
import speed_stages
from speed_runs import Agent, Run, exponent

OURS = [sys.executable, "-m", "fixpix_cli"]
ROOT = Path(__file__).resolve().parents[2]
#: Asked: whole known-map process over Siril's; a frame of a batch over copying it; LJPEG over its codec; start-up.
SIRIL, COPY, CODEC, START = 2.0, 1.2, 1.2, 2.0
#: Asked of find and repair: MB.
MEMORY = 350.0

Figures = dict[str, Any]


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated: " + ", ".join(ROWS))
    parser.add_argument("--rounds", type=int, help="how often each command runs (7; quick: 3)")
    parser.add_argument("--quick", action="store_true", help="2 MP instead of 24, fewer sizes")
    parser.add_argument("--large", action="store_true", help="also the largest sizes and the slowest peers")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    parser.add_argument("--work", type=Path, help="folder for the inputs (a temporary one is removed)")
    options = parser.parse_args(argv)
    options.rounds = options.rounds or (3 if options.quick else 7)
    options.rows = options.rows.split(",")
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}")
    return options


def correct(name: str, mask: str = "known.mask.fits", *more: str) -> list[str]:
    """Our command line for one frame with a known map."""
    return [*OURS, "correct", name, "--map", mask, "--out", "ours", "--overwrite", "--quiet", *more]


def start(place: Path, agent: Agent, options: argparse.Namespace) -> Figures:
    """The command before it does anything, against the imports that it cannot do without."""
    inputs.write_fits(place / "small.fits", inputs.scene(0.01))
    inputs.write_masks(place, inputs.damage(inputs.scene(0.01).shape, 1e-3), "small")
    return agent.interleaved(
        {
            "python": [sys.executable, "-c", "pass"],
            "python, numpy, onnxruntime": [sys.executable, "-c", "import numpy, onnxruntime"],
            "fixpix --help": [*OURS, "--help"],
            "fixpix correct, 0.01 MP": correct("small.fits", "small.mask.fits"),
        },
        options.rounds,
    )


def known(place: Path, agent: Agent, options: argparse.Namespace) -> Figures:
    """One frame with known bad pixels in each container, beside its peers and the copy."""
    found: Figures = {}
    for kind in inputs.WRITERS:
        commands = {f"fixpix, {kind}": correct(f"frame.{kind}"), f"cp, {kind}": ["cp", f"frame.{kind}", "copy"]}
        found |= agent.interleaved(commands | speed_peers.known(place, kind), options.rounds)
    return found


def find(place: Path, agent: Agent, options: argparse.Namespace) -> Figures:
    """One frame without a map."""
    ours = [*OURS, "correct", "frame.fits", "--auto", "--out", "ours", "--overwrite", "--quiet"]
    return agent.interleaved({"fixpix --auto": ours, **speed_peers.find(place, options.large)}, options.rounds)


def stages(place: Path, agent: Agent, options: argparse.Namespace) -> Figures:
    """The stages of `known`, FITS and LJPEG."""
    rows = [*speed_stages.plain(place, options.rounds), *speed_stages.ljpeg(place, options.rounds)]
    return {row.name: row for row in rows}


def pixels(place: Path, agent: Agent, options: argparse.Namespace) -> Figures:
    """Cost against the size of a frame."""
    sizes = (0.5, 1, 2) if options.quick else (1, 6, 24, 54, 150) if options.large else (1, 6, 24)
    found: Figures = {}
    for size in sizes:
        samples = inputs.scene(size)
        inputs.write_fits(place / "sized.fits", samples)
        inputs.write_masks(place, inputs.damage(samples.shape, 1e-4), "sized")
        one = agent.interleaved({f"{size:g} MP": correct("sized.fits", "sized.mask.fits")}, min(3, options.rounds))
        found |= one
    return found


def defects(place: Path, agent: Agent, options: argparse.Namespace) -> Figures:
    """Cost against the number of bad pixels, in a frame of one size."""
    samples = inputs.scene(1 if options.quick else 6)
    inputs.write_fits(place / "many.fits", samples)
    found: Figures = {}
    for rate in (1e-5, 1e-3, 1e-2) if options.quick else (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.7):
        inputs.write_masks(place, inputs.damage(samples.shape, rate), "many")
        found |= agent.interleaved(
            {f"{100 * rate:g} %": correct("many.fits", "many.mask.fits")}, min(3, options.rounds)
        )
    return found


def frames(place: Path, agent: Agent, options: argparse.Namespace) -> Figures:
    """Cost against the number of frames; each is a file of its own, and so is each output."""
    counts = (1, 4) if options.quick else (1, 4, 16, 100, 500) if options.large else (1, 4, 16)
    folder = place / "batch"
    folder.mkdir(exist_ok=True)
    found: Figures = {}
    for count in counts:
        for number in range(count):
            if not (folder / f"{number}.fits").exists():
                os.link(place / "frame.fits", folder / f"{number}.fits")
        commands = {
            f"{count} frames": correct("batch"),
            f"cp, {count} frames": ["cp", "-r", "batch", "copied"],
        }
        found |= agent.interleaved(commands, min(3, options.rounds))
        for leftover in ("ours", "copied"):
            shutil.rmtree(place / leftover, ignore_errors=True)
    return found


ROWS: dict[str, Callable[[Path, Agent, argparse.Namespace], Figures]] = {
    row.__name__: row for row in (start, known, find, stages, pixels, defects, frames)
}


def runs_table(found: Mapping[str, Run], over: str | Callable[[str], str | None]) -> str:
    """Figures of whole processes, and the ratio of their times to another's."""
    lines = []
    for name, run in found.items():
        other = over(name) if callable(over) else over
        ratio = f"{run.seconds / found[other].seconds:.2f}" if other in found and other != name else None
        lines.append((name, f"{run.seconds:.3f}", f"{run.cpu:.3f}", f"{run.peak:.0f}", ratio))
    head = f"over {over}" if isinstance(over, str) else "over the copy"
    return output.table(("command", "s", "CPU s", "MB", head), lines)


def growth(found: Mapping[str, Run], what: str) -> str:
    """A sentence: by which power CPU time and memory grow."""
    sizes = [float(name.split()[0]) for name in found]
    (time, spread), (memory, _) = (exponent(sizes, [getattr(r, f) for r in found.values()]) for f in ("cpu", "peak"))
    return (
        f"CPU time grows with {what} to the power {time:.2f} (spread {100 * spread:.0f} %), memory to {memory:.2f}: "
        + ", ".join(f"{name} {run.cpu:.2f} s CPU, {run.peak:.0f} MB" for name, run in found.items())
        + "."
    )


def told(found: Mapping[str, Figures]) -> tuple[str, list[output.Target]]:
    """The tables, and which targets are met."""
    parts, targets = [], []
    if rows := found.get("start"):
        bare = "python, numpy, onnxruntime"
        parts += ["Start-up:", runs_table(rows, bare)]
        ratio = rows["fixpix correct, 0.01 MP"].seconds / rows[bare].seconds
        targets.append(output.at_most("start-up", "a small frame over the unavoidable imports", START, ratio, 2))
    if rows := found.get("known"):
        kinds = {name: f"cp, {name.split(', ')[1]}" for name in rows if ", " in name}
        parts += ["Known map:", runs_table(rows, kinds.get)]
        siril = rows.get("Siril cosme_cfa")
        for kind in ("fits", "tif", "dng"):
            ratio = rows[f"fixpix, {kind}"].seconds / siril.seconds if siril else None
            targets.append(output.at_most("known map", f"{kind} over Siril's list", SIRIL, ratio, 2))
    if rows := found.get("find"):
        siril, ours = "Siril find_cosme_cfa", rows["fixpix --auto"]
        parts += ["No map, 0.01 % damaged:", runs_table(rows, siril)]
        ratio = ours.seconds / rows[siril].seconds if siril in rows else None
        targets.append(output.at_most("no map", "find and repair over Siril's find_cosme_cfa", SIRIL, ratio, 2))
        targets.append(output.at_most("no map", "peak memory, MB", MEMORY, ours.peak, 0))
    if rows := found.get("stages"):
        lines = [
            (s.name, f"{1000 * s.seconds:.1f}", f"{1000 * s.least:.1f}", f"{s.ratio:.1f}", s.limit)
            for s in rows.values()
        ]
        parts += [
            "CPU time of the stages of one frame:",
            output.table(("stage", "ms", "limit, ms", "ratio", "limit"), lines),
        ]
        ratio = rows["LJPEG DNG: read and write"].ratio
        targets.append(output.at_most("known map", "LJPEG DNG over its codec alone", CODEC, ratio, 2))
    for name, what in (("pixels", "pixels"), ("defects", "bad pixels")):
        if rows := found.get(name):
            parts.append(growth(rows, what))
    if rows := found.get("frames"):
        ours = {name: run for name, run in rows.items() if not name.startswith("cp")}
        parts += [growth(ours, "frames"), runs_table(rows, lambda name: f"cp, {name}")]
        most = list(ours)[-1]
        ratio = rows[most].seconds / rows[f"cp, {most}"].seconds
        targets.append(output.at_most("known map", f"a frame of {most} over copying it", COPY, ratio, 2))
    return "\n\n".join(parts), targets


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = arguments(argv)
    with tempfile.TemporaryDirectory(prefix="fixpix-speed-") as temporary:
        place = (options.work or Path(temporary)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        agent = Agent(place)
        samples = inputs.scene(2 if options.quick else 24)
        bad = inputs.damage(samples.shape, 1e-4)
        inputs.hurt(samples, bad)
        inputs.write_masks(place, bad, "known")
        for kind, write in inputs.WRITERS.items():
            write(place / f"frame.{kind}", samples)
        del samples
        found: dict[str, Figures] = {}
        for name in options.rows:
            print(f"{name} ...", file=sys.stderr, flush=True)
            found[name] = ROWS[name](place, agent, options)
        agent.close()
    tables, targets = told(found)
    command = shlex.join(["python", "tests/bench/speed.py", *(sys.argv[1:] if argv is None else argv)])
    facts = output.environment(command, speed_peers.missing())
    first = (
        f"With `{command}` on {facts['date']}, {facts['machine']}, Python {facts['python']}, NumPy {facts['numpy']}, "
        f"onnxruntime {facts['onnxruntime']}; {options.rounds} interleaved rounds, medians, whole processes; MB is "
        "the largest process."
    )
    if facts["not measured"]:
        first += f" Not installed: {', '.join(facts['not measured'])}."
    text = "\n\n".join([first, output.targets_table(targets), tables])
    print(text)
    if options.json:
        rows = {name: {key: asdict(figure) for key, figure in row.items()} for name, row in found.items()}
        verdicts = [asdict(target) for target in targets]
        options.json.write_text(json.dumps({**facts, "targets": verdicts, "rows": rows}, indent=1))
    if options.readme:
        output.README.write_text(output.rewrite(output.README.read_text(), {"table": text}, "speed"))


if __name__ == "__main__":
    main()
