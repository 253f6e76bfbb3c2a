"""The detection rows as tables and targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sums
from output import Section, Target, at_least, at_most, mean, number, percent, table
from rows_detection import DAMAGE, OURS, PROMISES, RATES, RULES

from fixpix_cli.score import Detection

Row = dict[str, Any]
#: There is no real frame of X-Trans: shown, but not part of the means.
_APART = "X-Trans"
_SHOWN = (0.0001, 0.01, 0.2, 0.7)
_FIGURES = ("recall", "precision")


def counts(rows: Sequence[Row]) -> Detection:
    """The sum of some rows."""
    return sum((Detection(r["hits"], r["misses"], r["false"], r["pixels"]) for r in rows), Detection())


def select(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """The rows that have all these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def cameras(rows: Sequence[Row], counted: bool = True) -> list[str]:
    """Cameras in order of appearance, without those apart from the means unless `counted` is False."""
    return [camera for camera in dict.fromkeys(row["camera"] for row in rows) if not counted or _APART not in camera]


def figure(rows: Sequence[Row], name: str, **wanted: Any) -> float | None:
    """A ratio of `score.Detection`, mean over cameras."""
    chosen = select(rows, **wanted)
    return mean([counts(select(chosen, camera=camera)).ratios()[name] for camera in cameras(chosen)])


def _cell(chosen: Sequence[Row]) -> str | None:
    ratios = counts(chosen).ratios()
    return _pair(ratios["recall"], ratios["precision"])


def _pair(recall: float | None, precision: float | None) -> str | None:
    return None if recall is None else f"{number(recall)} / {number(precision) or '—'}"


def _mean_cell(rows: Sequence[Row], **wanted: Any) -> str | None:
    return _pair(*(figure(rows, name, **wanted) for name in _FIGURES))


def section(rows: list[Row]) -> list[Section]:
    """Detection, and the calibration of its probabilities."""
    mine = select(rows, who=OURS)
    return [_detection(rows, mine), _probability(mine)]


def _detection(rows: list[Row], mine: list[Row]) -> Section:
    head = [f"{percent(rate)}, d = {delta}" for delta in (0.7, 0.3) for rate in _SHOWN]
    wanted = [{"kind": "relative", "delta": delta, "rate": rate} for delta in (0.7, 0.3) for rate in _SHOWN]
    by_camera = [
        [camera, *(_cell(select(mine, camera=camera, **one)) for one in wanted)] for camera in cameras(mine, False)
    ]
    whos = list(dict.fromkeys(row["who"] for row in rows))
    by_finder = [[who, *(_mean_cell(select(rows, who=who), **one) for one in wanted)] for who in whos]
    short = "\n\n".join(
        [
            "Detection in one frame, recall / precision, by camera:",
            table(["camera", *head], by_camera),
            "The same beside others, mean over cameras without X-Trans (rawpy: Bayer only; L.A.Cosmic: mono only):",
            table(["finder", *head], by_finder),
            "Where it is worst (cameras, and positions of the colour filters, at d = 0.7): " + _worst(mine) + ".",
        ]
    )
    return Section("detection", short, _full(rows, mine), tuple(_targets(rows, mine)))


def _full(rows: list[Row], mine: list[Row]) -> str:
    parts = []
    for kind, delta, rates in DAMAGE:
        chosen = select(mine, kind=kind, delta=delta)
        lines = [
            [camera, *(_long(select(chosen, camera=camera, rate=rate)) for rate in rates)]
            for camera in cameras(chosen, False)
        ]
        title = f"fixpix, {kind} damage, d = {delta}: recall / precision / F1 / false per megapixel"
        parts += [title, table(["camera", *map(percent, rates)], lines)]
    for delta in (0.7, 0.3):
        lines = [
            [who, *(number(figure(rows, "f1", who=who, kind="relative", delta=delta, rate=rate)) for rate in RATES)]
            for who in dict.fromkeys(row["who"] for row in rows)
        ]
        parts += [f"F1, mean over cameras, d = {delta}", table(["finder", *map(percent, RATES)], lines)]
    lines = [
        [camera, name, *(number(_recall(select(mine, camera=camera, delta=0.7, rate=rate), name)) for rate in RATES)]
        for camera in cameras(mine, False)
        for name in dict.fromkeys(n for row in select(mine, camera=camera) for n in row["positions"])
    ]
    parts += ["Recall by position of the colour filter, d = 0.7", table(["camera", "", *map(percent, RATES)], lines)]
    return "\n\n".join(parts)


def _long(chosen: Sequence[Row]) -> str:
    ratios = counts(chosen).ratios()
    figures = [number(ratios[name]) or "—" for name in ("recall", "precision", "f1")]
    return " / ".join([*figures, number(ratios["fp_per_mp"], 1) or "—"])


def _recall(rows: Sequence[Row], name: str) -> float | None:
    hits, misses = (sum(row["positions"][name][i] for row in rows if name in row["positions"]) for i in (0, 1))
    return hits / (hits + misses) if hits + misses else None


def _low(mine: list[Row]) -> list[tuple[float, str]]:
    """(figure, where) of recall and precision of every camera and recall of every position at d = 0.7, worst first."""
    found = []
    for camera in cameras(mine):
        for rate in RATES:
            chosen = select(mine, camera=camera, kind="relative", delta=0.7, rate=rate)
            ratios = counts(chosen).ratios()
            found += [(ratios[name], f"{camera}, {name} at {percent(rate)}") for name in _FIGURES]
            names = dict.fromkeys(n for row in chosen for n in row["positions"])
            if len(names) > 1:
                found += [(_recall(chosen, n), f"{camera}, recall of {n} at {percent(rate)}") for n in names]
    return sorted((value, where) for value, where in found if value is not None)


def _worst(mine: list[Row], count: int = 6) -> str:
    return "; ".join(f"{where} {value:.3f}" for value, where in _low(mine)[:count])


def _targets(rows: list[Row], mine: list[Row]) -> list[Target]:
    out = []
    for rate in RATES:
        if rate == 0.4:
            continue
        least = 0.98 if rate == 0.7 else 0.99
        for name in _FIGURES:
            value = figure(mine, name, kind="relative", delta=0.7, rate=rate)
            out.append(at_least("detect, one frame, d = 0.7", f"{name} at {percent(rate)}", least, value))
    low = _low(mine)
    value = low[0][0] if low else None
    what = ("detect, one frame, d = 0.7", "worst camera or position:", ">= 0.95")
    out.append(Target(*what, _worst(mine, 1), None if value is None else value >= 0.95))
    for rate in RATES:
        wanted = {"kind": "relative", "delta": 0.3, "rate": rate}
        # Rivals that know a part of the cameras only are compared on that part.
        rivals = {}
        for who in dict.fromkeys(row["who"] for row in rows if row["who"] not in (OURS, RULES)):
            theirs = select(rows, who=who, **wanted)
            rivals[who] = figure(theirs, "f1") if cameras(theirs) == cameras(mine) else None
        best = max((value, who) for who, value in rivals.items() if value is not None)
        least = 1 - (1 - best[0]) / 2
        value = figure(mine, "f1", **wanted)
        text = f">= {least:.3f}, as {best[1]} has {best[0]:.3f}"
        out.append(
            Target(
                "detect, one frame, d = 0.3",
                f"F1 at {percent(rate)}",
                text,
                number(value) or "",
                value is not None and value >= least,
            )
        )
    return out


# ---------------------------------------------------------------- probability


def calibration(mine: Sequence[Row], **wanted: Any) -> dict[str, Any]:
    """The sums of `sums.calibration` of some rows."""
    return sums.added([row["calibration"] for row in select(mine, **wanted) if _APART not in row["camera"]])


def _of_cameras(mine: Sequence[Row], measure: Callable[[dict[str, Any]], float | None], **wanted: Any) -> list[Any]:
    return [measure(calibration(mine, camera=camera, **wanted)) for camera in cameras(mine)]


def _probability(mine: list[Row]) -> Section:
    lines = []
    for delta in (0.7, 0.3):
        for rate in (0.001, 0.01, 0.2):
            wanted = {"kind": "relative", "delta": delta, "rate": rate}
            errors = _of_cameras(mine, sums.calibration_error, **wanted)
            skills = _of_cameras(mine, sums.brier_skill, **wanted)
            worst = [max((e for e in errors if e is not None), default=None), min(skills, default=None)]
            figures = (mean(errors), worst[0], mean(skills), worst[1])
            lines.append([f"{percent(rate)}, d = {delta}", *map(number, figures)])
    head = ["damage", "calibration error, mean of cameras", "worst camera", "Brier skill, mean", "worst camera"]
    promises, targets = _promises(mine)
    wanted = {"kind": "relative", "delta": 0.7, "rate": 0.01}
    targets = [
        at_most(
            "probability", "calibration error at 1 %", 0.02, mean(_of_cameras(mine, sums.calibration_error, **wanted))
        ),
        at_least("probability", "Brier skill at 1 %", 0.9, mean(_of_cameras(mine, sums.brier_skill, **wanted))),
        *targets,
    ]
    short = "\n\n".join(["Probabilities, as they are before any threshold:", table(head, lines), promises])
    return Section("probability", short, "", tuple(targets))


def _promises(mine: list[Row]) -> tuple[str, list[Target]]:
    """What `--max-false N` promised per frame, what its probabilities expected, and what was false."""
    rates = (0.0001, 0.001, 0.01, 0.2)
    lines, targets = [], []
    for promised in PROMISES:
        chosen = [
            row
            for row in select(mine, kind="relative", delta=0.7)
            if row["rate"] in rates and _APART not in row["camera"]
        ]
        pairs = [row["promises"][str(promised)] for row in chosen]
        expected, false = (sum(pair[i] for pair in pairs) / max(1, len(pairs)) for i in (0, 1))
        over = sum(pair[1] > 2 * promised for pair in pairs)
        lines.append([promised, number(expected, 2), number(false, 2), f"{over} of {len(pairs)}"])
        if expected > 0:
            # The promise is an upper bound: fewer doubtful pixels than promised are no breach.
            kept = false <= 2 * promised and (0.5 <= false / expected <= 2 or false <= promised)
            measured = f"{false:.2f} false per frame, {expected:.2f} expected"
            targets.append(
                Target("probability", f"--max-false {promised}", f"<= {2 * promised} false per frame", measured, kept)
            )
    head = ["--max-false", "expected per frame", "false per frame", "frames with more than twice the promise"]
    return table(head, lines), targets
