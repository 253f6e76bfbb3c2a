"""The corrector against least squares on the validation cameras.

Excess error of a repair: squared error minus the noise variance of the pixel (the frame's noise model),
summed over the damaged pixels. Every figure is a ratio, ours over `repair.least_squares`, on the same pixels.
`linear` is the same for the first estimate alone (`windows.fill`), without the net.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data as data_
import numpy as np

from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Area, Bool, Mosaic
from fixpix_cli.nets.correctors import MlpCorrector
from fixpix_cli.noise import NoiseModel
from fixpix_cli.normalise import windows
from fixpix_cli.repair import least_squares, quantise, repair, repairable

#: name, rate, pattern; a frame is damaged with several seeds until about 2000 pixels are measured
DAMAGE = (
    ("0.01%", 0.0001, "scattered"),
    ("0.1%", 0.001, "scattered"),
    ("1%", 0.01, "scattered"),
    ("5%", 0.05, "scattered"),
    ("20%", 0.2, "scattered"),
    ("40%", 0.4, "scattered"),
    ("70%", 0.7, "scattered"),
    ("85%", 0.85, "scattered"),
    ("3x3", 0.01, "cluster:3"),
    ("5x5", 0.01, "cluster:5"),
    ("columns", 0.01, "columns"),
)
_PIXELS, _SEEDS, _SIDE = 2000, 24, 800


@dataclass(frozen=True)
class Row:
    """Sums of squared error, DN^2, of one camera under one damage, on the same pixels."""

    camera: str
    damage: str
    pixels: int
    energy: float
    noise: float
    least_squares: float
    linear: float
    mlp: float

    @property
    def nmse(self) -> float:
        """NMSE, mlp over least squares."""
        return self.mlp / self.least_squares

    def excess(self, method: str = "mlp") -> float:
        """Excess error over that of least squares."""
        return (getattr(self, method) - self.noise) / max(self.least_squares - self.noise, 1e-12)


def measure(model: Path, folder: Path) -> list[Row]:
    """All validation cameras; large frames are measured on their central part."""
    mlp = MlpCorrector.open(model)
    return [
        _row(camera, name, frames, rate, pattern, mlp)
        for camera, frames in cameras(folder).items()
        for name, rate, pattern in DAMAGE
    ]


def cameras(folder: Path) -> dict[str, list[Mosaic]]:
    found: dict[str, list[Mosaic]] = {}
    for camera, _, frame in data_.frames(folder, "validate"):
        found.setdefault(camera, []).append(_centre(frame))
    return {camera: frames[:2] for camera, frames in found.items()}


def _centre(mosaic: Mosaic) -> Mosaic:
    (height, width), side = mosaic.shape, _SIDE
    top, left = (max(0, n - side) // 4 * 2 for n in (height, width))
    return mosaic.cropped(Area(top, left, min(height, top + side), min(width, left + side)))


def _row(camera: str, name: str, frames: Iterable[Mosaic], rate: float, pattern: str, mlp: MlpCorrector) -> Row:
    sums, pixels = np.zeros(5), 0
    for frame in frames:
        noise = NoiseModel.of(frame)
        for seed in range(_SEEDS):
            damage = inject(frame, Injection(rate, pattern=pattern, seed=1000 + seed))
            bad = repairable(frame, damage.dq != 0)
            sums += _errors(frame, frame.with_samples(damage.samples), bad, noise, mlp)
            pixels += int(np.count_nonzero(bad))
            if np.count_nonzero(bad) * (seed + 1) >= _PIXELS:
                break
    return Row(camera, name, pixels, *map(float, sums))


def _errors(clean: Mosaic, damaged: Mosaic, bad: Bool, noise: NoiseModel, mlp: MlpCorrector) -> np.ndarray:
    """Energy, noise, and the squared errors of least squares, first estimate and mlp."""
    rows, cols = np.nonzero(bad)
    truth = clean.samples[rows, cols].astype(np.float64)
    variance = noise.sigma(truth - clean.black_at(rows, cols)) ** 2
    linear = quantise(windows.fill(damaged, bad).at(rows, cols), clean).astype(np.float64)
    repaired = [repair(damaged, bad, c)[rows, cols].astype(np.float64) for c in (least_squares, mlp)]
    errors = [float(((a - truth) ** 2).sum()) for a in (repaired[0], linear, repaired[1])]
    return np.array([float((truth**2).sum()), float(variance.sum()), *errors])


def summary(rows: list[Row]) -> dict[str, Any]:
    """For the card: NMSE and excess ratios to least squares by damage, mean of cameras and each camera."""
    out: dict[str, Any] = {"baseline": "least-squares, same pixels; ratios below 1 are better", "damage": {}}
    for name, rate, pattern in DAMAGE:
        mine = [row for row in rows if row.damage == name]
        out["damage"][name] = {
            "rate": rate,
            "pattern": pattern,
            "nmse_ratio": _mean(row.nmse for row in mine),
            "excess_ratio": _mean(row.excess() for row in mine),
            "linear_excess_ratio": _mean(row.excess("linear") for row in mine),
            "cameras": {row.camera: [round(row.nmse, 3), round(row.excess(), 3)] for row in mine},
        }
    return out


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def best_below(metrics: dict[str, Any]) -> float | None:
    """The greatest scattered rate up to which both ratios of the mean camera are below 1; None: nowhere."""
    best: float | None = None
    for damage in metrics.get("damage", {}).values():
        if damage["pattern"] != "scattered":
            continue
        if max(damage["nmse_ratio"], damage["excess_ratio"]) >= 1:
            break
        best = damage["rate"]
    return best


def print_table(rows: list[Row]) -> None:
    """NMSE ratio / excess ratio, mlp : least squares; the last two lines are means over cameras."""
    names = [name for name, _, _ in DAMAGE]
    print(f"{'camera':28}" + "".join(f"{name:>14}" for name in names))
    for camera in dict.fromkeys(row.camera for row in rows):
        mine = {row.damage: row for row in rows if row.camera == camera}
        print(f"{camera[:28]:28}" + "".join(f"{mine[n].nmse:7.3f}/{mine[n].excess():6.3f}" for n in names))
    facts = summary(rows)["damage"]
    means = [(facts[n]["nmse_ratio"], facts[n]["excess_ratio"]) for n in names]
    print(f"{'mean':28}" + "".join(f"{nmse:7.3f}/{excess:6.3f}" for nmse, excess in means))
    print(f"{'first estimate alone':28}" + "".join(f"{facts[n]['linear_excess_ratio']:14.3f}" for n in names))
