"""The plots: reliability, multi-frame, holes, and error against the damage rate."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from output import percent
from rows_correction import AUTO, BLIND, OURS, SCATTERED
from rows_detection import OURS as FINDER
from rows_multiframe import CALIBRATE, DELTAS, MEAN, SUM
from tables_correction import LEAST_SQUARES, Figures, against_rate, holes, planes
from tables_detection import calibration, select
from tables_multiframe import curve

Row = dict[str, Any]
#: Of the figures' lines: ours drawn through, others dashed.
_DASHED = {"linestyle": "--", "linewidth": 1.0, "alpha": 0.8}


def draw(results: dict[str, list[Row]], folder: Path) -> list[Path]:
    """Every plot that the results allow, as PNG; none without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    if rows := results.get("detection"):
        made.append(_reliability(rows, folder / "reliability.png"))
    if rows := results.get("multiframe"):
        made.append(_multiframe(rows, folder / "multiframe.png"))
    if rows := results.get("correction"):
        figures = Figures(rows)
        made += [_holes(figures, folder / "holes.png"), _against_rate(figures, folder / "rates.png")]
    return made


def _axes(count: int, width: float = 4.6) -> tuple[Any, Any]:
    from matplotlib import pyplot

    return pyplot.subplots(1, count, figsize=(width * count, 3.6), layout="constrained", squeeze=False)


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    return path


def _reliability(rows: Sequence[Row], path: Path) -> Path:
    figure, ((axis,),) = _axes(1)
    for rate in (0.001, 0.01, 0.2):
        found = calibration(select(rows, who=FINDER, kind="relative", delta=0.7), rate=rate)
        n, p, t = (np.asarray(found[key]) for key in "npt")
        seen = n >= 20
        axis.plot(p[seen] / n[seen], t[seen] / n[seen], marker=".", label=percent(rate))
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axis.set(xlabel="probability said", ylabel="share that is bad", title="Reliability, d = 0.7")
    axis.legend(title="damage")
    return _save(figure, path)


def _multiframe(rows: Sequence[Row], path: Path) -> Path:
    figure, (axes,) = _axes(2)
    for number, delta in enumerate(delta for delta in DELTAS if select(rows, delta=delta)):
        for how, style in ((CALIBRATE, {}), (MEAN, _DASHED), (SUM, {**_DASHED, "linestyle": ":"})):
            points = np.array(curve(rows, delta, how))
            for axis, column in zip(axes, (1, 2), strict=True):
                label = f"d = {delta}" if how == CALIBRATE else None
                axis.plot(points[:, 0], points[:, column], color=f"C{number}", label=label, **style)
    for axis, name in zip(axes, ("recall", "precision"), strict=True):
        axis.set(xlabel="frames", ylabel=name, xscale="log", title=f"{name.capitalize()}, fixed pattern of 0.01 %")
        axis.set_xticks([1, 2, 3, 5, 9, 15, 30], ["1", "2", "3", "5", "9", "15", "30"], minor=False)
        axis.minorticks_off()
    axes[0].legend(
        title="through: as calibrate decides\ndashed: mean probability\ndotted: accumulated log-odds", fontsize=8
    )
    return _save(figure, path)


def _holes(figures: Figures, path: Path) -> Path:
    figure, (axes,) = _axes(2)
    for axis, (title, where) in zip(axes, (("mosaics", figures.cameras), ("RGB planes", planes(figures))), strict=True):
        for who in figures.methods:
            values = holes(figures, where, who)
            if who == BLIND or None in values:
                continue
            axis.plot(range(1, 7), values, marker=".", label=who, **({} if who in OURS else _DASHED))
        axis.set(xlabel="m", ylabel="mean squared error (white = 1)", title=f"Holes of m x m, {title}", yscale="log")
    axes[0].legend(fontsize=7, ncols=2)
    return _save(figure, path)


def _against_rate(figures: Figures, path: Path) -> Path:
    figure, ((axis,),) = _axes(1, 6.0)
    rates = [100 * rate for rate, *_ in SCATTERED.values()]
    for who in figures.methods:
        values = against_rate(figures, who)
        if who in (*OURS, LEAST_SQUARES, "linear", "median", BLIND) and None not in values:
            wide = {"linewidth": 2.5, "color": "black", "zorder": 1} if who == AUTO else {}
            axis.plot(rates, values, marker=".", label=who, **(wide if who in OURS else _DASHED))
    axis.set(xlabel="damage, %", ylabel="excess error / least squares", xscale="log", yscale="log")
    axis.set_title("Repair against the damage rate (geometric mean of cameras)", fontsize=10)
    axis.legend(fontsize=8)
    return _save(figure, path)
