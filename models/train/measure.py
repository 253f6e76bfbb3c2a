"""Correctors against the classical ones on the validation cameras.

Excess error of a repair: squared error minus the noise variance of the pixel (the frame's noise model), summed
over the damaged pixels. Every figure is a ratio on the same pixels. The baselines are `repair.least_squares`,
`repair.median` (same colour), `repair.linear`, `repair.gradient`; `best` is the least of the four, camera by
camera and damage by damage. `first` is the first estimate alone (`windows.fill`), without a net; `paper` the FixPix
paper's own net trained on our data (`nets.references.PaperMlp`), which sees what the bad neighbours hold.

Coverage: the share of damaged pixels whose stored value lies within one and two of the net's sigmas of its answer
before rounding; a true sigma has 68 % and 95 %.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data as data_
import numpy as np

from fixpix_cli.cfa import RGGB
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Area, Array, Bool, Mosaic
from fixpix_cli.nets.correctors import MlpCorrector
from fixpix_cli.nets.references import PaperMlp
from fixpix_cli.noise import NoiseModel
from fixpix_cli.normalise import windows
from fixpix_cli.repair import Corrector, gradient, least_squares, linear, median, quantise, repair, repairable, widen

#: name, rate, pattern; a frame is damaged with several seeds until about 2000 pixels are measured, and of more
#: damage at most 6000 are
DAMAGE = (
    ("0.01%", 0.0001, "scattered"),
    ("0.1%", 0.001, "scattered"),
    ("1%", 0.01, "scattered"),
    ("5%", 0.05, "scattered"),
    ("20%", 0.2, "scattered"),
    ("40%", 0.4, "scattered"),
    ("70%", 0.7, "scattered"),
    ("85%", 0.85, "scattered"),
    ("92%", 0.92, "scattered"),
    ("96%", 0.96, "scattered"),
    ("3x3", 0.01, "cluster:3"),
    ("5x5", 0.01, "cluster:5"),
    ("columns", 0.01, "columns"),
)
BASELINES = {"least squares": least_squares, "median": median, "linear": linear, "gradient": gradient}
_PIXELS, _MOST, _SEEDS, _SIDE = 2000, 6000, 12, 800


@dataclass(frozen=True)
class Row:
    """Sums of squared error by method, DN^2, of one camera under one damage, on the same pixels.

    within : pixels within one and two sigma, by net
    """

    camera: str
    damage: str
    pixels: int
    energy: float
    noise: float
    errors: dict[str, float]
    within: dict[str, tuple[int, int]]

    @property
    def best(self) -> str:
        """The best baseline."""
        return min(BASELINES, key=self.errors.__getitem__)

    def nmse(self, method: str, over: str = "least squares") -> float:
        """NMSE of a method over that of another."""
        return self.errors[method] / self.errors[over]

    def excess(self, method: str, over: str = "least squares") -> float:
        """Excess error over that of another."""
        return (self.errors[method] - self.noise) / max(self.errors[over] - self.noise, 1e-12)


def measure(nets: dict[str, MlpCorrector], folder: Path, damage: tuple[Any, ...] = DAMAGE) -> list[Row]:
    """All validation cameras; large frames are measured on their central part."""
    classical = BASELINES | {"paper": PaperMlp.open()}
    return [
        _row(camera, name, frames, rate, pattern, classical, nets)
        for camera, frames in cameras(folder).items()
        for name, rate, pattern in damage
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


def _row(
    camera: str,
    name: str,
    frames: Iterable[Mosaic],
    rate: float,
    pattern: str,
    others: dict[str, Corrector],
    nets: dict[str, MlpCorrector],
) -> Row:
    pixels, energy, variance = 0, 0.0, 0.0
    errors = dict.fromkeys((*others, "first", *nets), 0.0)
    within = dict.fromkeys(nets, (0, 0))
    for frame in frames:
        noise = NoiseModel.of(frame)
        for seed in range(_SEEDS):
            damage = inject(frame, Injection(rate, pattern=pattern, seed=1000 + seed))
            bad = repairable(frame, damage.dq != 0)
            places = np.nonzero(bad)
            chosen = np.random.default_rng(seed).permutation(len(places[0]))[:_MOST]
            rows, cols = (place[chosen] for place in places)
            truth = frame.samples[rows, cols].astype(np.float64)
            pixels += len(truth)
            energy += float((truth**2).sum())
            variance += float((noise.sigma(truth - frame.black_at(rows, cols)) ** 2).sum())
            damaged = frame.with_samples(damage.samples)
            for method, values, sigma in _answers(damaged, bad, rows, cols, others, nets):
                errors[method] += float(((quantise(values, frame).astype(np.float64) - truth) ** 2).sum())
                if sigma is not None:
                    off = np.abs(values - truth)
                    one, two = within[method]
                    within[method] = (one + int((off <= sigma).sum()), two + int((off <= 2 * sigma).sum()))
            if len(truth) * (seed + 1) >= _PIXELS:
                break
    return Row(camera, name, pixels, energy, variance, errors, within)


def _answers(
    damaged: Mosaic,
    bad: Bool,
    rows: Array,
    cols: Array,
    others: dict[str, Corrector],
    nets: dict[str, MlpCorrector],
) -> Iterator[tuple[str, Array, Array | None]]:
    """Method, values and (of nets) sigmas in DN of the bad pixels (rows, cols)."""
    for method, corrector in others.items():
        yield method, repair(damaged, bad, corrector)[rows, cols].astype(np.float64), None
    filled = windows.fill(damaged, bad)
    yield "first", filled.at(rows, cols), None
    for method, net in nets.items():
        values, sigma = net.refine(filled, rows, cols)
        if (open_ := np.isnan(values)).any():
            values[open_] = widen(damaged, filled.good, rows[open_], cols[open_])  # as `repair` does
        yield method, values, sigma


def summary(rows: list[Row], net: str = "mlp") -> dict[str, Any]:
    """For the card: ratios to least squares and to the best baseline, and coverage; means of cameras and each."""
    out: dict[str, Any] = {
        "baseline": "ratios to least squares and to the best of least squares, same-colour median, linear, gradient "
        "(camera by camera), same pixels; below 1 is better",
        "coverage": "share of repaired pixels within 1 and 2 sigma of the stored truth",
        "cameras": "NMSE ratio, excess ratio, excess ratio to the best baseline, within 1 sigma, within 2 sigma",
        "damage": {},
    }
    for name, rate, pattern in DAMAGE:
        mine = [row for row in rows if row.damage == name]
        out["damage"][name] = {
            "rate": rate,
            "pattern": pattern,
            "nmse_ratio": _mean(row.nmse(net) for row in mine),
            "excess_ratio": _mean(row.excess(net) for row in mine),
            "best_excess_ratio": _mean(row.excess(net, row.best) for row in mine),
            "median_excess_ratio": _mean(row.excess(net, "median") for row in mine),
            "first_excess_ratio": _mean(row.excess("first") for row in mine),
            "paper_excess_ratio": _mean(row.excess("paper") for row in mine),
            "within": [_mean(row.within[net][k] / row.pixels for row in mine) for k in (0, 1)],
            "cameras": {
                row.camera: [
                    round(value, 3)
                    for value in (
                        row.nmse(net),
                        row.excess(net),
                        row.excess(net, row.best),
                        *(n / row.pixels for n in row.within[net]),
                    )
                ]
                for row in mine
            },
        }
    return out


def microseconds(net: MlpCorrector) -> float:
    """Processor time of one pixel, without the frame's first estimate: a 512 x 512 Bayer frame, 10 % holes."""
    rng = np.random.default_rng(0)
    mosaic = Mosaic(rng.integers(0, 4000, (512, 512)).astype(np.uint16), RGGB)
    bad = rng.random(mosaic.shape) < 0.1
    filled, (rows, cols) = windows.fill(mosaic, bad), np.nonzero(bad)
    started = time.process_time()
    net.refine(filled, rows, cols)
    return round(1e6 * (time.process_time() - started) / len(rows), 2)


def scores(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Of every net: mean excess ratio to least squares by damage, and the mean of those, by which to choose."""
    out = {}
    for net in rows[0].within:
        names = dict.fromkeys(row.damage for row in rows)
        by_damage = {name: _mean(row.excess(net) for row in rows if row.damage == name) for name in names}
        out[net] = by_damage | {"all": _mean(by_damage.values())}
    return out


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def best_below(metrics: dict[str, Any]) -> float | None:
    """The greatest scattered rate up to which both ratios of the mean camera are below 1; None: nowhere.

    1 where they are at every measured rate: beyond the greatest of them nothing speaks for another method.
    """
    best: float | None = None
    for damage in metrics.get("damage", {}).values():
        if damage["pattern"] != "scattered":
            continue
        if max(damage["nmse_ratio"], damage["excess_ratio"]) >= 1:
            return best
        best = damage["rate"]
    return best and 1.0


def print_table(rows: list[Row], net: str = "mlp") -> None:
    """NMSE ratio / excess ratio to least squares by camera; below, means over cameras."""
    names = list(dict.fromkeys(row.damage for row in rows))
    print(f"{'NMSE / excess : least squares':30}" + "".join(f"{name:>14}" for name in names))
    for camera in dict.fromkeys(row.camera for row in rows):
        mine = {row.damage: row for row in rows if row.camera == camera}
        print(f"{camera[:30]:30}" + "".join(f"{mine[n].nmse(net):7.3f}/{mine[n].excess(net):6.3f}" for n in names))
    facts = summary(rows, net)["damage"]
    for line, key in (
        ("mean NMSE : least squares", "nmse_ratio"),
        ("mean excess : least squares", "excess_ratio"),
        ("mean excess : best baseline", "best_excess_ratio"),
        ("mean excess : median", "median_excess_ratio"),
        ("first estimate : least squares", "first_excess_ratio"),
        ("paper's net : least squares", "paper_excess_ratio"),
    ):
        print(f"{line:30}" + "".join(f"{facts[n][key]:14.3f}" for n in names))
    print(
        f"{'within 1 / 2 sigma':30}"
        + "".join(f"{facts[n]['within'][0]:7.3f}/{facts[n]['within'][1]:6.3f}" for n in names)
    )
