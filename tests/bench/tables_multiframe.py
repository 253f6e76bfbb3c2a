"""The multi-frame row as tables and targets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from output import Section, Target, at_least, number, table
from rows_multiframe import CALIBRATE, DELTAS
from scenes import NIGHT
from tables_detection import select

Row = dict[str, Any]
_SHOWN = (1, 3, 5, 9, 30)
_GROUP = "calibrate, 1 to 9 frames, 0.01 %, d = 0.2"


def recall_precision(rows: Sequence[Row]) -> tuple[float | None, float | None]:
    """Recall and precision of the summed counts."""
    hits, misses, false = (sum(row[key] for row in rows) for key in ("hits", "misses", "false"))
    return hits / (hits + misses) if hits + misses else None, hits / (hits + false) if hits + false else None


def curve(rows: Sequence[Row], delta: float, how: str = CALIBRATE) -> list[tuple[int, float, float]]:
    """(frames, recall, precision) over the moving scenes; a sequence that is shorter counts with its last frame.

    The real night is apart: nobody knows all hot pixels of its camera, and its stars stand still.
    """
    chosen = [row for row in select(rows, delta=delta, how=how) if row["sequence"] != NIGHT]
    longest = {name: max(r["frames"] for r in select(chosen, sequence=name)) for name in _names(chosen)}
    out = []
    for frames in sorted({row["frames"] for row in chosen}):
        mine = [row for row in chosen if row["frames"] == min(frames, longest[row["sequence"]])]
        recall, precision = recall_precision(mine)
        if recall is not None and precision is not None:
            out.append((frames, recall, precision))
    return out


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["sequence"] for row in rows))


def section(rows: list[Row]) -> Section:
    """Recall and precision against the number of frames."""
    deltas = [delta for delta in DELTAS if select(rows, delta=delta)]
    hows = list(dict.fromkeys(row["how"] for row in rows))
    lines = []
    for how in hows:
        for delta in deltas:
            at = {frames: (recall, precision) for frames, recall, precision in curve(rows, delta, how)}
            lines.append([how, delta, *(_pair(*at[n]) if n in at else None for n in _SHOWN)])
    head = ["added up by", "d", *(f"{n} frame{'s' * (n > 1)}" for n in _SHOWN)]
    by_sequence = [
        [name, delta, *(_at(select(rows, sequence=name, delta=delta, how=CALIBRATE), n) for n in _SHOWN)]
        for name in _names(rows)
        for delta in deltas
    ]
    night = [NIGHT, 0.2, *(_at(select(rows, sequence=NIGHT, delta=0.2, how=CALIBRATE), n) for n in _SHOWN)]
    lines.append(night)
    short = (
        "Several frames of one camera, fixed pattern of 0.01 %, recall / precision of all moving scenes together:\n\n"
    )
    full = "By sequence, as calibrate decides:\n\n" + table(["sequence", "d", *head[2:]], by_sequence)
    return Section("multiframe", short + table(head, lines), full, tuple(_targets(rows)))


def _pair(recall: float | None, precision: float | None) -> str | None:
    return None if recall is None else f"{number(recall)} / {number(precision) or '—'}"


def _at(rows: Sequence[Row], frames: int) -> str | None:
    return _pair(*recall_precision(select(rows, frames=frames)))


def _targets(rows: list[Row]) -> list[Target]:
    points = [point for point in curve(rows, 0.2) if point[0] <= 9]
    if not points or points[-1][0] != 9:
        return [at_least(_GROUP, "recall and precision at 9 frames", 0.99, None)]
    out = [
        at_least(_GROUP, f"{name} at 9 frames", 0.99, points[-1][i]) for i, name in ((1, "recall"), (2, "precision"))
    ]
    for i, name in ((1, "recall"), (2, "precision")):
        falls = [(a[i] - b[i], b[0]) for a, b in pairwise(points)]
        fall, frames = max(falls)
        text = f"falls by {fall:.4f} at {frames} frames" if fall > 0 else "never falls"
        out.append(Target(_GROUP, f"{name} with more frames", "never worse", text, fall <= 0))
    night = recall_precision(select(rows, sequence=NIGHT, delta=0.2, how=CALIBRATE, frames=9))
    return out + [
        at_least(_GROUP, f"{name} at 9 frames of the real night", 0.99, value)
        for name, value in zip(("recall", "precision"), night, strict=True)
    ]
