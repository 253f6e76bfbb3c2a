"""Does a map made under some conditions know the bad pixels of others? Fit on some darks, predict the others.

python tests/bench/darkcurrent.py [--data DIR] [--readme] [--json FILE]

Real darks of an SBIG STL-1001 (10 to 300 s, -10 and -5 C; DIR or FIXPIX_DATA) and a simulated sensor with truth.
On the real ones the truth is what fixpix measures in the predicted dark itself (one frame, so that pixels near the
threshold fall on either side by chance), and the pixels more than 100 DN above its median; on the simulated one the
pixels whose true excess is more than 5 sigma of the frame's noise (pixels that are saturated, dead or blink are left
out). The rule of use is `fixpix_cli.choosing.choose`, the one of ``fixpix correct``; beside it stands what the nearest
darks alone give.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import output
import sums

from fixpix_cli import choosing, classical, darkcurrent, darks, files
from fixpix_cli.darkcurrent import Kind
from fixpix_cli.defects import DQ
from fixpix_cli.evidence import Bin, Counted, Evidence, Tally
from fixpix_cli.mosaic import Array, Conditions, Mosaic
from fixpix_cli.noise import NoiseModel
from fixpix_cli.simulate import Sensor

#: DN above the median from which a pixel is one that a map must hold.
HOT = 100.0
#: Predictions of fewer sigma of noise than this are not asked for their coverage: selection by noise would bend it.
CLEAR = 10.0
#: What is fitted on what, and what is predicted: (exposure in s, temperature in C).
REAL = (
    ("one dark", [(60, -10)], [(10, -10), (30, -10), (150, -10), (300, -10), (10, -5), (60, -5), (300, -5)]),
    ("two exposures", [(30, -10), (60, -10)], [(10, -10), (150, -10), (300, -10), (10, -5), (300, -5)]),
    ("two temperatures", [(60, -10), (60, -5)], [(10, -10), (150, -10), (300, -10), (10, -5), (300, -5)]),
    ("the longest", [(300, -5)], [(10, -10), (60, -10), (300, -10), (10, -5), (60, -5), (150, -5)]),
    ("all at -10 C", [(t, -10) for t in (10, 20, 30, 60, 150, 300)], [(t, -5) for t in (10, 20, 30, 60, 150, 300)]),
)
SIMULATED = (
    ("one condition", [(60, 0)], [(0.5, 0), (5, 0), (300, 0), (10, -20), (60, 15)]),
    ("two by two", [(30, 0), (120, 0), (30, 10), (120, 10)], [(0.5, 0), (1, 20), (30, -25), (10, 20)]),
)
#: What of the real darks goes into the README.
SHORT = ("one dark", "two temperatures", "the longest", "all at -10 C"), ((10, -10), (300, -10), (10, -5), (300, -5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("FIXPIX_DATA"), help="the measuring data")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    figures = {"simulated": simulated()}
    if arguments.data is not None:
        figures["real"] = real(Path(arguments.data) / "darks")
    text = json.dumps(figures, indent=1)
    if arguments.json is not None:
        arguments.json.write_text(text)
    else:
        print(text)
    print("\n\n".join(table(name, rows) for name, rows in figures.items()), file=sys.stderr)
    if arguments.readme:
        short = {name: [row for row in rows if name != "real" or in_short(row)] for name, rows in figures.items()}
        markdown = "\n\n".join(table(name, rows) for name, rows in short.items())
        output.README.write_text(output.rewrite(output.README.read_text(), {"darkcurrent": markdown}))


def in_short(row: dict[str, Any]) -> bool:
    return row["fitted"] in SHORT[0] and tuple(row["predicted"]) in SHORT[1]


def evidence_of(name: str, mosaic: Mosaic, conditions: Conditions) -> Evidence:
    """What one dark says, as `calibrate` counts it."""
    found = classical.detect(mosaic, conditions.kind)
    bin_ = Bin.of(conditions)
    tally = Tally.of(mosaic, found)
    return Evidence({(0, bin_): tally}, {name: Counted(name, name, bin_, conditions)})


def real(folder: Path) -> list[dict[str, Any]]:
    """The STL-1001: one dark per condition."""
    taken: dict[tuple[int, int], tuple[Mosaic, Conditions, Evidence]] = {}
    for path in sorted(folder.glob("stl1001_darks-expos*s-Neg*")):
        frame = files.load(path)
        key = (round(frame.conditions.exposure or 0), 5 * round((frame.conditions.temperature or 0) / 5))
        mosaic = frame.mosaics[0].light()
        taken[key] = (mosaic, frame.conditions, evidence_of(path.name, mosaic, frame.conditions))
    rows = []
    for name, fitted, predicted in REAL:
        known = reduce(add, (taken[key][2] for key in fitted))
        for key in predicted:
            mosaic, conditions, own = taken[key]
            (tally,) = own.tallies.values()
            samples = mosaic.samples.astype(np.float64)
            entries = tally.entries[tally.entries["measured"] > 0]
            measured = np.full(samples.size, np.nan)
            measured[entries["pixel"]] = entries["level"] / 4
            rows.append(
                {"fitted": name, "on": fitted, "predicted": key}
                | compared(known, mosaic, conditions, tally.view().bad, measured, NoiseModel.of(mosaic))
                | {"hot": hot_found(known, mosaic, conditions, samples - np.median(samples) > HOT)}
            )
    return rows


def simulated() -> list[dict[str, Any]]:
    """A sensor of which every pixel's dark current is known; three darks per condition."""
    sensor = Sensor(shape=(640, 960), seed=31, defects=0.01)
    number = 0
    rows = []
    for name, fitted, predicted in SIMULATED:
        parts = []
        for exposure, temperature in fitted:
            for _ in range(3):
                number += 1
                conditions = Conditions(exposure, 100.0, temperature, None, "dark")
                parts.append(evidence_of(str(number), sensor.expose(None, exposure, temperature, number), conditions))
        known = reduce(add, parts)
        for exposure, temperature in predicted:
            number += 1
            mosaic = sensor.expose(None, exposure, temperature, number)
            signal = sensor.dark_signal(exposure, temperature)
            excess = signal - np.median(signal)
            noise = np.hypot(sensor.read_noise, np.sqrt(np.median(signal) / sensor.gain))
            conditions = Conditions(exposure, 100.0, temperature, None, "dark")
            counted = (sensor.truth & ~np.int32(DQ.DO_NOT_USE | DQ.HOT | DQ.WARM)) == 0
            asked = np.where(counted & (signal < 0.8 * (mosaic.white - sensor.black)), excess, np.nan).reshape(-1)
            rows.append(
                {"fitted": name, "on": fitted, "predicted": (exposure, temperature)}
                | compared(known, mosaic, conditions, excess > choosing.SIGMAS * noise, asked, None, counted)
            )
    return rows


def compared(
    known: Evidence,
    mosaic: Mosaic,
    conditions: Conditions,
    truth: Array,
    measured: Array,
    noise: NoiseModel | None,
    counted: Array | bool = True,
) -> dict[str, Any]:
    """The chosen set against the true one, by the model and by the nearest darks alone, and the excess's coverage.

    Parameters
    ----------
    truth : (H, W) bool array
    measured : (H * W,) float64 array, DN
        The excess there; NaN where unknown.
    noise : NoiseModel or None
        Of `measured`; None: it is exact.
    counted : (H, W) bool array, or True
        Which pixels are compared.
    """
    bin_ = Bin.of(conditions)
    model = fit(known, bin_.gain)
    nearest = known.nearest(0, bin_)
    choice = choose(known, mosaic, conditions)
    if model is None or nearest is None:
        raise ValueError("the darks fit no model")
    excess, error = model.predict(conditions.exposure or 0.0, conditions.temperature)
    there = measured[model.pixels]
    sigma = np.zeros(len(excess))
    least = CLEAR * float(NoiseModel.of(mosaic).sigma(np.array(0.0 if noise is None else np.median(mosaic.samples))))
    if noise is not None:
        above = np.median(mosaic.samples) + np.maximum(np.nan_to_num(excess), 0)
        sigma = noise.sigma(above)
    greatest = 0.6 * (mosaic.white - float(np.max(mosaic.black)))
    with np.errstate(invalid="ignore"):
        use = (model.kind == Kind.SCALING) & (excess > least) & (excess < greatest) & (there < greatest)
    off = (there[use] - excess[use]) / np.hypot(error[use], sigma[use])
    exponent = model.exponent
    return {
        "doubling": [model.doubling, model.doubling_error],
        "doubling_measured": model.fitted,
        "exponent": exponent,
        "scatter": model.scatter,
        "stops": nearest[0][0].distance(bin_),
        "predicted_pixels": int(choice.sum()),
        "true_pixels": int(truth.sum()),
        "model": scores(choice & counted, truth & counted),
        "nearest": scores(nearest[1].view().bad & counted, truth & counted),
        "ratio": float(np.median(there[use] / excess[use])),
        "within_1_sigma": float(np.mean(np.abs(off) < 1)),
        "within_2_sigma": float(np.mean(np.abs(off) < 2)),
        "asked": int(use.sum()),
    }


def hot_found(known: Evidence, mosaic: Mosaic, conditions: Conditions, hot: Array) -> dict[str, float]:
    """Share of the pixels far above the median that are chosen, by the model and by the nearest darks alone."""
    nearest = known.nearest(0, Bin.of(conditions))
    alone = np.zeros_like(hot) if nearest is None else nearest[1].view().bad
    return {"model": float(choose(known, mosaic, conditions)[hot].mean()), "nearest": float(alone[hot].mean())}


def fit(known: Evidence, gain: int | None) -> darkcurrent.Model | None:
    return darkcurrent.fit(darks.levels_of(known, 0, gain))


def choose(known: Evidence, mosaic: Mosaic, conditions: Conditions) -> Array:
    """(H, W) bool: what ``fixpix correct`` takes for bad."""
    choice = choosing.choose(known, 0, conditions, lambda: mosaic, lambda gain: fit(known, gain))
    if choice is None:
        raise ValueError("nothing is known of the plane")
    return choice.view.bad


def scores(found: Array, truth: Array) -> dict[str, float]:
    both = int((found & truth).sum())
    return {
        "jaccard": sums.jaccard(found, truth),
        "recall": both / max(1, int(truth.sum())),
        "precision": both / max(1, int(found.sum())),
    }


def table(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of one sensor's rows."""
    hot = ", pixels above 100 DN found: model / nearest" if name == "real" else ""
    head = ["fitted on", "predicted", "doubling, C", "Jaccard / recall / precision: model", "nearest alone"]
    head += [hot.removeprefix(", ")] * bool(hot) + ["measured : predicted excess", "within 1, 2 sigma"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        doubling = f"{row['doubling'][0]:.1f} +- {row['doubling'][1]:.1f}"
        cells = [
            f"{row['fitted']}: {said(row['on'])}",
            said([row["predicted"]]),
            doubling if row["doubling_measured"] else f"({doubling})",
            *(" / ".join(f"{value:.2f}" for value in row[which].values()) for which in ("model", "nearest")),
        ]
        if hot:
            cells.append(f"{row['hot']['model']:.3f} / {row['hot']['nearest']:.3f}")
        cells += [f"{row['ratio']:.2f}", f"{row['within_1_sigma']:.2f}, {row['within_2_sigma']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    exponents = sorted({f"{row['exponent'][0]:.3f} +- {row['exponent'][1]:.3f}" for row in rows if row["exponent"]})
    title = "SBIG STL-1001, one dark each" if name == "real" else "Simulated sensor (doubling in 6 C), three darks each"
    return f"{title}; exponent of the exposure {', '.join(exponents)}:\n\n" + "\n".join(lines)


def said(conditions: Sequence[Sequence[float]]) -> str:
    """Exposures and temperatures in few words."""
    by_temperature: dict[float, list[str]] = {}
    for exposure, temperature in conditions:
        by_temperature.setdefault(temperature, []).append(f"{exposure:g}")
    return "; ".join(f"{', '.join(times)} s at {degrees} C" for degrees, times in by_temperature.items())


if __name__ == "__main__":
    main()
