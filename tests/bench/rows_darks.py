"""Row i: real darks of an SBIG STL-1001, whose hot pixels nobody planted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scenes
import sums
from rows_correction import corrected
from tasks import Task

from fixpix_cli import files
from fixpix_cli.evidence import DEFAULT_THRESHOLD, Tally
from fixpix_cli.jobs import Repair
from fixpix_cli.mosaic import Array, Mosaic
from fixpix_cli.nets.detectors import detect
from fixpix_cli.noise import NoiseModel
from fixpix_cli.repair import masked_median
from fixpix_cli.tiles import neighbours

ROW = "darks"
#: DN above the median from which a pixel is one that a map must hold, and by which darks are compared.
HOT = 100.0
THRESHOLDS = tuple(np.round(np.arange(0.02, 1.0, 0.02), 2).tolist())
_SPLITS = 10


def tasks(folder: Path, quick: bool = False) -> list[Task]:
    """The maps of halves, and the counts against exposure and temperature."""
    rows = scenes.tables.table(folder, "frames.csv", "measure")
    darks = [row for row in rows if row["kind"] == "dark" and row["camera"].startswith("SBIG STL-1001")]
    ten = [folder / row["file"] for row in darks if "expos1-Neg5" in row["file"]]
    single = [row for row in darks if "expos1-Neg5" not in row["file"]]
    eleventh = next(folder / row["file"] for row in single if "expos60s-Neg5" in row["file"])
    return [
        Task(ROW, "halves", 11.0, lambda: halves(ten, eleventh, 3 if quick else _SPLITS)),
        Task(ROW, "conditions", float(len(single)), lambda: conditions(folder, single)),
    ]


def _plane(path: Path) -> Mosaic:
    return files.load(path).mosaics[0].light()


def halves(ten: Sequence[Path], eleventh: Path, splits: int) -> dict[str, Any]:
    """Maps from disjoint halves of ten darks, and the eleventh repaired with the map of all ten.

    Returns
    -------
    dict
        hot (pixels more than `HOT` DN above the mean's median); per threshold of `THRESHOLDS` and for the default
        ``[threshold, least recall of the hot pixels, least and mean Jaccard]`` over the splits; mapped (pixels of
        the ten's map), and the share of them within 5 sigma of their neighbours' median before and after.
    """
    planes = [_plane(path) for path in ten]
    tallies = [_tally(plane) for plane in planes]
    mean = np.mean([plane.samples for plane in planes], axis=0)
    hot = mean - np.median(mean) > HOT
    rng = np.random.default_rng(500)
    drawn = [rng.permutation(len(tallies)) for _ in range(splits)]
    pairs = [[_sum([tallies[i] for i in half]) for half in np.array_split(order, 2)] for order in drawn]
    curve = []
    for threshold in (*THRESHOLDS, DEFAULT_THRESHOLD):
        masks = [[tally.view(threshold).bad for tally in pair] for pair in pairs]
        recalls = [float(mask[hot].mean()) for pair in masks for mask in pair]
        overlaps = [sums.jaccard(*pair) for pair in masks]
        curve.append([threshold, min(recalls), min(overlaps), float(np.mean(overlaps))])
    last = _plane(eleventh)
    mask = _sum(tallies).view(DEFAULT_THRESHOLD).bad
    samples, _ = corrected(last, Repair(), mask)
    calm = [_calm(last.with_samples(a), mask) for a in (last.samples, samples)]
    return {"hot": int(hot.sum()), "curve": curve, "mapped": int(mask.sum()), "calm_before": calm[0]} | {
        "calm_after": calm[1]
    }


def _tally(plane: Mosaic) -> Tally:
    found = detect(plane, "dark")
    return Tally.of(plane, found)


def _sum(tallies: Sequence[Tally]) -> Tally:
    total = tallies[0]
    for tally in tallies[1:]:
        total = total + tally
    return total


def _calm(mosaic: Mosaic, mask: Array) -> float:
    """Share of the masked pixels within 5 sigma of the median of their good ones among 8 neighbours."""
    rows, cols = np.nonzero(mask)
    around, ok = neighbours(mosaic.samples, ~mask, rows, cols, np.array(mosaic.cfa.nearest(0, 0, 8)))
    middle = masked_median(around.astype(np.float64), ok)
    seen = np.isfinite(middle)
    sigma = NoiseModel.of(mosaic).sigma(middle - mosaic.black_at(rows, cols))
    return float(np.mean(np.abs(mosaic.samples[rows, cols] - middle)[seen] <= 5 * sigma[seen]))


def conditions(folder: Path, rows: Sequence[dict[str, str]]) -> list[dict[str, float]]:
    """Of single darks: exposure (s), temperature (C), pixels above `HOT`, and those of them that are detected."""
    out = []
    for row in rows:
        plane = _plane(folder / row["file"])
        above = plane.samples - np.median(plane.samples) > HOT
        flags = _tally(plane).view(DEFAULT_THRESHOLD).bad
        set_to = 5 * round(float(row["temperature_c"]) / 5)
        found = {"above": int(above.sum()), "detected": int((above & flags).sum())}
        out.append({"exposure": float(row["exposure_s"]), "temperature": float(set_to), **found})
    return sorted(out, key=lambda one: (one["temperature"], one["exposure"]))
