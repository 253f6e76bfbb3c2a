"""The repair rows as tables and targets: ratios of excess error, holes, the crossing of the strategy, collateral."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sums
from output import Section, Target, at_most, mean, number, table
from rows_correction import AUTO, BLIND, DAMAGE, HOLES, OURS, SCATTERED
from tables_detection import cameras, select

Row = dict[str, Any]
LEAST_SQUARES, MEDIAN = "least squares", "median"
_SHOWN = ("0.01%", "1%", "20%", "70%", "3x3", "5x5", "columns")
_PLANES = "RGB planes"


def add(rows: Sequence[Row]) -> dict[str, float]:
    """Sums over some rows."""
    return {
        key: sum(row[key] for row in rows) for key in ("pixels", "error", "noise", "energy", "energy_black", "span2")
    }


class Figures:
    """The sums by camera, damage and method."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.cameras = [camera for camera in cameras(rows) if _PLANES not in camera]
        self.methods = list(dict.fromkeys(row["who"] for row in rows))
        self.baselines = [who for who in self.methods if who not in (*OURS, BLIND)]
        self._sums: dict[tuple[str, str, str], list[Row]] = {}
        for row in rows:
            self._sums.setdefault((row["camera"], row["damage"], row["who"]), []).append(row)

    def of(self, camera: str, damage: str, who: str) -> dict[str, float] | None:
        """Sums of one cell; None where it was not measured."""
        rows = self._sums.get((camera, damage, who))
        return add(rows) if rows else None

    def ratio(self, camera: str, damage: str, who: str, other: str) -> float | None:
        """Excess error of a method over that of another."""
        a, b = self.of(camera, damage, who), self.of(camera, damage, other)
        return None if a is None or b is None else sums.excess_ratio(a["error"], b["error"], a["noise"])

    def best(self, camera: str, damage: str) -> str | None:
        """The baseline with the least error."""
        known = [(found["error"], who) for who in self.baselines if (found := self.of(camera, damage, who))]
        return min(known)[1] if known else None

    def to_best(self, camera: str, damage: str, who: str = AUTO) -> float | None:
        """Excess error of a method over that of this camera's best baseline."""
        best = self.best(camera, damage)
        return None if best is None else self.ratio(camera, damage, who, best)

    def nmse(self, damage: str, who: str, energy: str = "energy") -> float | None:
        """NMSE, mean over the cameras; None for a method that does not know all of them."""
        found = [self.of(camera, damage, who) for camera in self.cameras]
        known = [one["error"] / one[energy] for one in found if one is not None]
        return mean(known) if known and len(known) == len(self.cameras) else None

    def psnr(self, damage: str, who: str) -> float | None:
        """PSNR over the bad pixels in dB, mean over the cameras."""
        found = [self.of(camera, damage, who) for camera in self.cameras]
        known = [-10 * np.log10(max(one["error"], 1e-12) / one["span2"]) for one in found if one is not None]
        return mean([float(value) for value in known]) if len(known) == len(self.cameras) else None


def section(rows: list[Row]) -> list[Section]:
    """Repair, holes and crossing, collateral."""
    figures = Figures(rows)
    return [_repair(figures), _holes(figures), _collateral(figures)]


def _scaled(value: float | None) -> str | None:
    return number(None if value is None else 1e3 * value, 2)


def _repair(figures: Figures) -> Section:
    nmse = [[who, *(_scaled(figures.nmse(d, who)) for d in _SHOWN)] for who in figures.methods]
    every = [*figures.cameras, *(c for c in cameras(figures.rows, False) if "X-Trans" in c)]
    ratios = [[camera, *(number(figures.to_best(camera, d), 2) for d in _SHOWN)] for camera in every]
    means = [mean([figures.to_best(camera, d) for camera in figures.cameras]) for d in _SHOWN]
    blind = [[figures.ratio(camera, d, BLIND, AUTO) for camera in figures.cameras] for d in _SHOWN]
    middle = [float(np.median(known)) if (known := [v for v in one if v is not None]) else None for one in blind]
    ratios.append(["mean without X-Trans", *(number(value, 2) for value in means)])
    ratios.append(["blind over auto, median camera", *(number(value, 2) for value in middle)])
    short = "\n\n".join(
        [
            "Repair with the true mask (`blind`: without any), NMSE x 1000 on stored values, mean over cameras without "
            "X-Trans:",
            table(["method", *_SHOWN], nmse),
            "Excess error (above the noise) of `auto` over that of each camera's best baseline:",
            table(["camera", *_SHOWN], ratios),
            "Where it is worst against the best baseline: " + _worst(figures) + ".",
        ]
    )
    return Section("correction", short, _full(figures), tuple(_targets(figures)))


def _worst(figures: Figures, count: int = 6) -> str:
    found = [
        (value, f"{camera}, {d} {value:.2f} ({figures.best(camera, d)})")
        for camera in figures.cameras
        for d in DAMAGE
        if (value := figures.to_best(camera, d)) is not None
    ]
    return "; ".join(text for _, text in sorted(found, reverse=True)[:count])


def _full(figures: Figures) -> str:
    parts = []
    for title, energy in (("stored", "energy"), ("black-subtracted", "energy_black")):
        lines = [[who, *(_scaled(figures.nmse(d, who, energy)) for d in DAMAGE)] for who in figures.methods]
        parts += [f"NMSE x 1000 on {title} values, mean over cameras", table(["method", *DAMAGE], lines)]
    lines = [[who, *(number(figures.psnr(d, who), 1) for d in DAMAGE)] for who in figures.methods]
    parts += ["PSNR over the bad pixels, dB", table(["method", *DAMAGE], lines)]
    every = [camera for camera in cameras(figures.rows, False) if _PLANES not in camera]
    for who, other in ((AUTO, LEAST_SQUARES), (AUTO, MEDIAN), (BLIND, AUTO)):
        lines = [[camera, *(number(figures.ratio(camera, d, who, other), 2) for d in DAMAGE)] for camera in every]
        parts += [f"Excess error, {who} over {other}", table(["camera", *DAMAGE], lines)]
    lines = [[c, *(_with_best(figures, c, d) for d in DAMAGE)] for c in every]
    parts += ["Excess error, auto over the best baseline (its name)", table(["camera", *DAMAGE], lines)]
    lines = [[c, *(_used(figures, c, d) for d in DAMAGE)] for c in every]
    parts += ["What auto used", table(["camera", *DAMAGE], lines)]
    return "\n\n".join(parts)


def _with_best(figures: Figures, camera: str, damage: str) -> str | None:
    value = figures.to_best(camera, damage)
    return None if value is None else f"{value:.2f} ({figures.best(camera, damage)})"


def _used(figures: Figures, camera: str, damage: str) -> str:
    rows = select(figures.rows, camera=camera, damage=damage, who=AUTO)
    return ", ".join(dict.fromkeys(row["used"] for row in rows))


def _targets(figures: Figures) -> list[Target]:
    out = []
    scattered = "correct, true mask, 0.01 to 20 %: excess error"
    for damage in ("0.01%", "0.1%", "1%", "5%", "20%"):
        by_camera = [figures.ratio(camera, damage, AUTO, LEAST_SQUARES) for camera in figures.cameras]
        to_median = [figures.ratio(camera, damage, AUTO, MEDIAN) for camera in figures.cameras]
        worst = max((value for value in by_camera if value is not None), default=None)
        out += [
            at_most(scattered, f"{damage} over least squares", 0.7, mean(by_camera)),
            at_most(scattered, f"{damage} the same, worst camera", 1.0, worst),
            at_most(scattered, f"{damage} over the median", 0.4, mean(to_median)),
        ]
    hard = ("40%", "70%", "85%", *(name for name in HOLES if name != "6x6"), "columns")
    for damage in hard:
        value = mean([figures.to_best(camera, damage) for camera in figures.cameras])
        out.append(at_most("correct, 40 to 85 %, clusters, columns: excess over the best baseline", damage, 0.6, value))
    for damage in hard:
        value = mean([figures.ratio(camera, damage, BLIND, AUTO) for camera in figures.cameras])
        out.append(at_most("the same, blind over with the mask", damage, 1.5, value))
    return out


# ---------------------------------------------------------------- holes, crossing


def holes(figures: Figures, where: Sequence[str], who: str) -> list[float | None]:
    """Mean squared error with white = 1 against the side of the hole, 1 to 6, mean over cameras."""
    out = []
    for damage in ("1%", *HOLES):
        found = [figures.of(camera, damage, who) for camera in where]
        known = [one["error"] / one["span2"] for one in found if one is not None]
        out.append(mean(known) if known and len(known) == len(where) else None)
    return out


def against_rate(figures: Figures, who: str) -> list[float | None]:
    """Excess error over least squares at every scattered rate, geometric mean over cameras."""
    out: list[float | None] = []
    for damage in SCATTERED:
        pairs = [[figures.of(camera, damage, one) for one in (who, LEAST_SQUARES)] for camera in figures.cameras]
        known = [sums.excess(a["error"], a["noise"]) / sums.excess(b["error"], b["noise"]) for a, b in pairs if a and b]
        out.append(float(np.exp(np.mean(np.log(known)))) if known else None)
    return out


def planes(figures: Figures) -> list[str]:
    """The pseudo-cameras of RGB planes."""
    return [camera for camera in cameras(figures.rows, False) if _PLANES in camera]


def _holes(figures: Figures) -> Section:
    sides = [f"{side} x {side}" for side in range(1, 7)]
    parts = []
    for title, where in (("mosaics", figures.cameras), ("RGB planes", planes(figures))):
        lines = [
            [who, *(number(None if v is None else 1e4 * v, 2) for v in holes(figures, where, who))]
            for who in figures.methods
        ]
        parts += [f"Holes of m x m, mean squared error x 10000 (white = 1), {title}:", table(["method", *sides], lines)]
    curves = [(who, against_rate(figures, who)) for who in (*OURS, LEAST_SQUARES) if who in figures.methods]
    lines = [[who, *(number(value, 2) for value in values)] for who, values in curves]
    parts += ["Excess error over least squares against the rate, geometric mean of cameras:"]
    parts += [table(["method", *SCATTERED], lines), "Crossings: " + (_crossings(curves) or "none found") + "."]
    return Section("strategy", "\n\n".join(parts))


def _crossings(curves: Sequence[tuple[str, list[float | None]]]) -> str:
    rates = [rate for rate, *_ in SCATTERED.values()]
    found = []
    for i, (a, mine) in enumerate(curves):
        for b, theirs in curves[i + 1 :]:
            if AUTO in (a, b) or None in mine or None in theirs:
                continue
            for first, second, x, y in ((a, b, mine, theirs), (b, a, theirs, mine)):
                at = sums.crossing(rates, [v for v in x if v is not None], [v for v in y if v is not None])
                if at is not None:
                    found.append(f"{first} is better than {second} below {100 * at:.2g} %")
    return "; ".join(found)


# ---------------------------------------------------------------- collateral


def _collateral(figures: Figures) -> Section:
    lines, shares = [], []
    for camera in cameras(figures.rows, False):
        rows = select(figures.rows, camera=camera, damage="0.01%", who=BLIND)
        if rows:
            changed, pixels = (sum(row[key] for row in rows) for key in ("good_changed", "frame"))
            lines.append([camera, changed, number(1e6 * changed / pixels, 1)])
            if camera in figures.cameras:
                shares.append((changed, pixels))
    total = sum(c for c, _ in shares) / max(1, sum(p for _, p in shares)) if shares else None
    short = "\n\n".join(
        [
            "Good pixels that `correct --auto` changes at 0.01 %, native outliers apart:",
            table(["camera", "pixels", "per megapixel"], lines),
        ]
    )
    measured = "" if total is None else f"{total:.1e}"
    met = None if total is None else total <= 2e-6
    return Section(
        "collateral",
        short,
        "",
        (Target("collateral", "share of good pixels that `correct --auto` changes", "<= 2e-06", measured, met),),
    )
