"""Kinds of defects against truth: simulated sensors, and damage of the kind that sensors do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rows_darks
import scenes

from fixpix_cli import shapes
from fixpix_cli.defects import DQ, TYPES
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Array, Mosaic
from fixpix_cli.nets.detectors import detect
from fixpix_cli.simulate import Sensor, landscape, stars
from fixpix_cli.tally import Tally

NUMBERS = (1, 2, 3, 5, 9, 15, 20, 30)
#: Frames of the confusion matrices.
_FRAMES = 16
_RATE = 0.004
_NAMES = {DQ.OTHER_BAD_PIXEL: "STUCK"}
Shots = Callable[[int], Iterator[tuple[Mosaic, Array]]]


def name_of(kind: DQ) -> str:
    return _NAMES.get(kind, kind.name or "")


def sets(side: int) -> dict[str, tuple[str | None, float, Shots]]:
    """Name -> kind of frame, exposure (s), and what gives frames with their truth."""
    shape = (side, side * 3 // 2)
    whole = Sensor(shape, seed=5, defects=_RATE)
    sound = Sensor(shape, seed=6, defects=0.0)

    def taken(sensor: Sensor, scene: Callable[[int], Array | None], exposure: float) -> Shots:
        def shots(count: int) -> Iterator[tuple[Mosaic, Array]]:
            for n in range(count):
                mosaic = sensor.expose(scene(n), exposure, 0.0, n)
                if sensor is whole:
                    yield mosaic, whole.truth
                    continue
                spec = Injection(_RATE, kind="sensor", seed=1)
                damage = inject(mosaic, spec, frame_key=str(n), exposure=1.0)
                yield mosaic.with_samples(damage.samples), damage.dq

        return shots

    def dark(n: int) -> None:
        return None

    def field(n: int) -> Array:
        return stars(shape, 3, 150, 2.6, shift=(3.3 * n % 40, -2.7 * n % 31))

    return {
        "darks, 10 s, simulated sensor": ("dark", 10.0, taken(whole, dark, 10.0)),
        "darks, 60 s, simulated sensor": ("dark", 60.0, taken(whole, dark, 60.0)),
        "darks, 60 s, planted": ("dark", 60.0, taken(sound, dark, 60.0)),
        "moving lights, simulated sensor": (None, 1.0, taken(whole, lambda n: landscape(shape, n), 1.0)),
        "moving lights, planted": (None, 1.0, taken(sound, lambda n: landscape(shape, n), 1.0)),
        "dithered stars, planted": (None, 30.0, taken(sound, field, 30.0)),
    }


def measure(quick: bool) -> dict[str, Any]:
    """Confusion matrices, curves against the number of frames, and shapes."""
    numbers = NUMBERS[:4] if quick else NUMBERS
    matrices, curves = {}, {}
    for name, (kind, exposure, shots) in sets(160 if quick else 320).items():
        total, truth = None, 0
        lines: dict[str, list[float | None]] = {}
        for n, (mosaic, dq) in enumerate(shots(numbers[-1]), 1):
            found = detect(mosaic, kind, exposure, thorough=True)
            tally = Tally.of(mosaic, found)
            total, truth = tally if total is None else total + tally, truth | dq
            if n == min(_FRAMES, numbers[-1]):
                matrices[name] = {"frames": n} | _matrix(total.view().dq, truth)
            if n in numbers:
                for label, value in _recalls(total.view().dq, truth).items():
                    lines.setdefault(label, [None] * len(numbers))[numbers.index(n)] = value
        curves[name] = lines
    return {"matrices": matrices, "numbers": numbers, "curves": curves, "shapes": planted_shapes(160 if quick else 320)}


def _matrix(found: Array, truth: Array) -> dict[str, Any]:
    """Rows: what was planted, and the good pixels; columns: as what they were found, and those that were not."""
    lines = {}
    for kind in TYPES:
        mine = found[(truth & int(kind)) != 0]
        if mine.size:
            lines[name_of(kind)] = [int(np.count_nonzero(mine & int(t))) for t in TYPES] + [
                int(np.count_nonzero(mine == 0))
            ]
    false = found[truth == 0]
    lines["good"] = [int(np.count_nonzero(false & int(t))) for t in TYPES] + [int(np.count_nonzero(false == 0))]
    return {"found": [name_of(kind) for kind in TYPES], "lines": lines}


def _recalls(found: Array, truth: Array) -> dict[str, float | None]:
    out: dict[str, float | None] = {}
    for kind in TYPES:
        mine = found[(truth & int(kind)) != 0]
        if mine.size:
            out[name_of(kind)] = float(np.mean(mine != 0))
    flagged = int(np.count_nonzero(found))
    return out | {"precision": float(np.mean(truth[found != 0] != 0)) if flagged else None}


def planted_shapes(side: int) -> list[dict[str, str]]:
    """Clusters, columns and rows of warm and hot pixels in ten darks: what was planted, and what the map shows."""
    out = []
    for pattern, rate in (("cluster:2", 0.002), ("cluster:3", 0.002), ("cluster:5", 0.002), ("columns", 0.01)):
        sensor, total, truth = Sensor((side, side * 3 // 2), seed=8, defects=0.0), None, None
        for n in range(10):
            mosaic = sensor.expose(None, 60.0, 0.0, n)
            damage = inject(mosaic, Injection(rate, 0.5, "fixed", pattern, seed=2), frame_key=str(n))
            damaged = mosaic.with_samples(damage.samples)
            detection = detect(damaged, "dark", 60.0)
            tally = Tally.of(damaged, detection)
            total = tally if total is None else total + tally
            truth = damage.dq != 0 if truth is None else truth | (damage.dq != 0)
        planted, found = shapes.found(truth), shapes.found(total.view().bad)
        out.append({"pattern": pattern, "planted": _shapes(planted), "found": _shapes(found)})
    return out


def _shapes(found: shapes.Shapes) -> str:
    sizes = ", ".join(f"{count} of {size}" for size, count in found.sizes().items() if size > 3)
    return ", ".join(f"{count} {name}" for name, count in found.counts().items()) + (f" ({sizes})" if sizes else "")


def agreement(folder: Path) -> float:
    """Of the pixels that two halves of the real darks both find, the share with the same type."""
    rows = scenes.tables.table(folder, "frames.csv", "measure")
    ten = [row for row in rows if row["camera"].startswith("SBIG STL-1001") and "expos1-Neg5" in row["file"]]
    tallies = [rows_darks._tally(rows_darks._plane(folder / row["file"])) for row in ten]
    one, two = (rows_darks._sum(half).view().dq for half in (tallies[::2], tallies[1::2]))
    both = (one != 0) & (two != 0)
    return float(np.mean(one[both] == two[both]))
