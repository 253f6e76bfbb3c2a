"""Error against the side m of square holes: the cnn, the mlp and the baselines, on the same pixels.

On the validation cameras, on validation photographs turned back into raw, and on channels of validation photographs
as they are (mono planes, as in an RGB TIFF). Holes stand alone: at least 20 good pixels lie between two of them.

Excess error of a repair: squared error minus the noise variance of the pixel (the frame's noise model); of the
photographs turned into raw the value without noise is known, and the squared error is taken against that. NMSE: squared
error over the squared stored values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import data as data_
import imagecodecs
import numpy as np
from measure import cameras

from fixpix_cli.mosaic import Mosaic
from fixpix_cli.nets.correctors import MlpCorrector
from fixpix_cli.nets.holes import CnnCorrector
from fixpix_cli.noise import NoiseModel
from fixpix_cli.normalise import holes
from fixpix_cli.repair import Corrector, least_squares, median, repair

MEAN = "mean of cnn and mlp"
SIDES = range(1, holes.LARGEST + 1)
#: Names of the methods in tables and plots. The baselines are those that take a mask.
NETS = ("cnn", "mlp", MEAN)
BASELINES = ("least squares", "median", "OpenCV Telea", "OpenCV Navier-Stokes")
METHODS = NETS + BASELINES
_COMPARED = (("cnn", BASELINES), ("cnn", ("mlp",)), (MEAN, ("mlp",)))
RAW_PHOTOS, RGB_PHOTOS = "photographs, as raw", "photographs, RGB"
#: Where less than this share of a squared error is not noise, its excess says nothing.
_LEAST_EXCESS = 0.05
_PITCH, _GAP, _PHOTOS = 40, 20, 6


@dataclass(frozen=True)
class Row:
    """Sums over the holes of one side m of one camera (or kind of photograph).

    energy : of the stored values, DN^2; errors : method -> squared error, DN^2; excess : the same without the noise.
    Photographs are weighted so that each has the same energy.
    """

    group: str
    side: int
    pixels: int
    energy: float
    errors: dict[str, float]
    excess: dict[str, float]

    def nmse(self, method: str) -> float:
        return self.errors[method] / self.energy

    def ratio(self, method: str, others: Iterable[str]) -> float:
        """Excess error of a method over the least of some others'; NaN where that is nothing but noise."""
        best = min(others, key=lambda name: self.excess[name])
        if self.excess[best] < _LEAST_EXCESS * self.errors[best]:
            return float("nan")
        return self.excess[method] / self.excess[best]


def squares(shape: tuple[int, int], side: int, seed: int) -> np.ndarray:
    """(H, W) bool: side x side holes, one in every 40 x 40 pixels, 20 pixels apart or more."""
    rng = np.random.default_rng([seed, side, *shape])
    bad = np.zeros(shape, bool)
    room = _PITCH - _GAP - side + 1
    for top in range(0, shape[0] - side - room, _PITCH):
        for left in range(0, shape[1] - side - room, _PITCH):
            r, c = top + int(rng.integers(room)), left + int(rng.integers(room))
            bad[r : r + side, c : c + side] = True
    return bad


def inpainted(flag: int) -> Corrector:
    """OpenCV's inpainting of each colour plane, radius 3, as a corrector."""

    def corrector(mosaic: Mosaic, bad: np.ndarray) -> np.ndarray:
        out = np.empty(mosaic.shape, np.float32)
        pr, pc = mosaic.cfa.period
        for r, c in mosaic.cfa.positions:
            part = (slice(r, None, pr), slice(c, None, pc))
            plane = np.ascontiguousarray(np.where(bad[part], 0, mosaic.samples[part]).astype(np.float32))
            out[part] = cv2.inpaint(plane, np.ascontiguousarray(bad[part].astype(np.uint8)), 3, flag)
        return out[np.nonzero(bad)].astype(np.float64)

    return corrector


def scenes(folder: Path) -> Iterable[tuple[str, data_.Scene, bool]]:
    """Group, scene, and whether its values without noise are known."""
    for camera, frames in cameras(folder).items():
        for frame in frames[:1]:
            yield camera, data_.Scene(frame, frame.samples), False
    rng = np.random.default_rng(0)
    for number, row in enumerate(data_.table(folder, "photos.csv", "validate")[:_PHOTOS]):
        photo = imagecodecs.imread(folder / row["file"])[:, :, :3]
        yield RAW_PHOTOS, data_.unprocess(photo, rng), True
        plane = np.ascontiguousarray(photo[:, :, number % 3])
        yield RGB_PHOTOS, data_.Scene(Mosaic(plane, white=255.0), plane), False


def measure(model: Path, folder: Path) -> list[Row]:
    """All groups and sides; large frames are measured on their central part."""
    correctors: dict[str, Corrector] = {
        "cnn": CnnCorrector.open(model),
        "mlp": MlpCorrector.open(),
        "least squares": least_squares,
        "median": median,
        "OpenCV Telea": inpainted(cv2.INPAINT_TELEA),
        "OpenCV Navier-Stokes": inpainted(cv2.INPAINT_NS),
    }
    found: dict[tuple[str, int], list[Row]] = {}
    for seed, (group, scene, known) in enumerate(scenes(folder)):
        noise = NoiseModel.of(scene.mosaic)
        for side in SIDES:
            row = _row(group, side, scene, known, noise, squares(scene.mosaic.shape, side, seed), correctors)
            found.setdefault((group, side), []).append(row)
    return [_sum(rows) for rows in found.values()]


def _row(
    group: str,
    side: int,
    scene: data_.Scene,
    known: bool,
    noise: NoiseModel,
    bad: np.ndarray,
    correctors: dict[str, Corrector],
) -> Row:
    """One scene under holes of one side."""
    mosaic = scene.mosaic
    rows, cols = np.nonzero(bad)
    stored, clean = (a[rows, cols].astype(np.float64) for a in (mosaic.samples, scene.clean))
    variance = float((noise.sigma(stored - mosaic.black_at(rows, cols)) ** 2).sum())
    energy = float((stored**2).sum())
    weight = 1.0 / energy if group in (RAW_PHOTOS, RGB_PHOTOS) else 1.0
    damaged = mosaic.samples.copy()
    damaged[rows, cols] = 0
    hurt = mosaic.with_samples(damaged)
    answers = {name: repair(hurt, bad, one)[rows, cols].astype(np.float64) for name, one in correctors.items()}
    answers[MEAN] = (answers["cnn"] + answers["mlp"]) / 2
    errors, excess = {}, {}
    for name, answer in answers.items():
        errors[name] = weight * float(((answer - stored) ** 2).sum())
        against = float(((answer - clean) ** 2).sum())
        excess[name] = weight * (against if known else against - variance)
    return Row(group, side, len(rows), weight * energy, errors, excess)


def _sum(rows: list[Row]) -> Row:
    def total(get: Callable[[Row], dict[str, float]]) -> dict[str, float]:
        return {name: sum(get(row)[name] for row in rows) for name in METHODS}

    pixels, energy = sum(row.pixels for row in rows), sum(row.energy for row in rows)
    return Row(
        rows[0].group, rows[0].side, pixels, energy, total(lambda row: row.errors), total(lambda row: row.excess)
    )


def mean_ratio(rows: list[Row], side: int, method: str, others: Iterable[str]) -> float:
    """Mean over the groups of `Row.ratio`, where it is known."""
    return float(np.nanmean([row.ratio(method, others) for row in rows if row.side == side]))


def from_side(rows: list[Row]) -> int:
    """The least side from which on the cnn's excess error is below the mlp's in the mean; 7: nowhere."""
    best = holes.LARGEST + 1
    for side in reversed(SIDES):
        if mean_ratio(rows, side, "cnn", ["mlp"]) >= 1:
            break
        best = side
    return best


def summary(rows: list[Row]) -> dict[str, Any]:
    """For the card: by the side of the holes, NMSE of all methods and the ratios of excess error."""
    out: dict[str, Any] = {"holes": "square, isolated; ratios of excess error, below 1 is better", "sides": {}}
    for side in SIDES:
        mine = [row for row in rows if row.side == side]
        out["sides"][str(side)] = {
            "nmse": {name: float(f"{np.mean([row.nmse(name) for row in mine]):.4g}") for name in METHODS},
            "over_best_baseline": round(mean_ratio(rows, side, "cnn", BASELINES), 4),
            "over_mlp": round(mean_ratio(rows, side, "cnn", ["mlp"]), 4),
            "mean_over_mlp": round(mean_ratio(rows, side, MEAN, ["mlp"]), 4),
            "groups": {
                row.group: [_rounded(row.ratio("cnn", others)) for others in (BASELINES, ["mlp"])] for row in mine
            },
        }
    return out


def _rounded(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None


def print_table(rows: list[Row]) -> None:
    """NMSE x 1000 of every method, then the cnn's excess error over the best baseline's and over the mlp's."""
    groups = list(dict.fromkeys(row.group for row in rows))
    print("| NMSE x 1000 | m | " + " | ".join(METHODS) + " | cnn : best baseline | cnn : mlp | mean : mlp |")
    print("|---|---|" + "---|" * (len(METHODS) + 3))
    for group in groups:
        for row in (row for row in rows if row.group == group):
            figures = " | ".join(f"{1000 * row.nmse(name):.3f}" for name in METHODS)
            ratios = " | ".join(f"{row.ratio(name, others):.2f}" for name, others in _COMPARED)
            print(f"| {group} | {row.side} | {figures} | {ratios} |")
    for side in SIDES:
        ratios = " | ".join(f"{mean_ratio(rows, side, name, others):.2f}" for name, others in _COMPARED)
        print(f"| mean | {side} |" + " |" * len(METHODS) + f" {ratios} |")
    print(f"the cnn is better than the mlp from m = {from_side(rows)} on")


def plot(rows: list[Row], path: Path) -> None:
    """Root mean square error without the noise, in % of the root mean square value, against m."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    photos = (RAW_PHOTOS, RGB_PHOTOS)
    named = list(dict.fromkeys(row.group for row in rows if row.group not in photos))
    panels = {"validation cameras (mean)": named, **{name: [name] for name in photos}}
    figure, axes = pyplot.subplots(1, len(panels), figsize=(13, 4.2), sharex=True)
    for axis, (title, groups) in zip(axes, panels.items(), strict=True):
        for method in METHODS:
            curve = []
            for side in SIDES:
                mine = [row for row in rows if row.side == side and row.group in groups]
                curve.append(np.mean([100 * np.sqrt(max(row.excess[method], 0) / row.energy) for row in mine]))
            axis.plot(list(SIDES), curve, marker="o", label=method, lw=2.4 if method == "cnn" else 1.3)
        axis.set(title=title, xlabel="side m of the hole, pixels")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("error without noise, % of the signal (rms)")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    print(f"{path.name}: error against m")
