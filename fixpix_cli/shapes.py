"""Floor 1. The geometry of a map: single pixels, clusters, whole and partial rows and columns.

A line is a run of bad pixels along a row or column of at least `SHORTEST`
pixels. Detectors do not find all pixels of a bad column, since they hide each
other; so a run may have gaps, and two fifths of it must be bad where hardly
anything else is, three quarters where a sixth of the plane is. A line of which
so many are bad, in all of its quarters, is whole, even if its runs break. Runs most of whose pixels lie
in runs of the other direction, too, belong to a blob, not to a line. What
touches (sides or corners, of whatever colour) and is part of no line is a
cluster.

Beyond `CROWDED` bad pixels touch by chance everywhere, and nothing is sought.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .mosaic import Array, Bool

#: Pixels of the shortest partial line.
SHORTEST = 16
#: Widest gap in a line and least share of bad ones where hardly anything else is bad, and where more than `_MANY` are.
_GAPS, _SHARES, _MANY = (6, 2), (0.4, 0.75), 0.05
#: Share of bad pixels in the plane above which shapes mean nothing.
CROWDED = 0.2


class Cluster(NamedTuple):
    """Touching bad pixels: (row, col) of the first one, row by row, and how many they are."""

    row: int
    col: int
    size: int


class Line(NamedTuple):
    """A bad row or column: its number, the range [start, stop) along it, bad pixels in that, and whether all of it."""

    number: int
    start: int
    stop: int
    bad: int
    whole: bool


@dataclass(frozen=True)
class Shapes:
    """What the bad pixels of one plane look like.

    Parameters
    ----------
    singles : int
        Bad pixels that touch no other and lie in no line.
    clusters : tuple of Cluster
        Largest first.
    rows, columns : tuple of Line
        By number.
    crowded : bool
        More than `CROWDED` of the pixels are bad: nothing was sought.
    """

    singles: int = 0
    clusters: tuple[Cluster, ...] = ()
    rows: tuple[Line, ...] = ()
    columns: tuple[Line, ...] = ()
    crowded: bool = False

    def counts(self) -> dict[str, int]:
        """How many there are of each shape; only those that occur."""
        found = {"single": self.singles, "cluster": len(self.clusters)}
        for name, lines in (("row", self.rows), ("column", self.columns)):
            whole = sum(line.whole for line in lines)
            found |= {name: whole, f"partial {name}": len(lines) - whole}
        return {name: count for name, count in found.items() if count}

    def sizes(self) -> dict[int, int]:
        """Clusters by size: pixels to number of clusters, smallest size first."""
        sizes, counts = np.unique([cluster.size for cluster in self.clusters], return_counts=True)
        return {int(size): int(count) for size, count in zip(sizes, counts, strict=True)}


def found(bad: Bool) -> Shapes:
    """The shapes of a mask.

    Parameters
    ----------
    bad : (H, W) bool array
    """
    rows, cols = np.nonzero(bad)
    if len(rows) > CROWDED * bad.size:
        return Shapes(crowded=True)
    order = np.lexsort((rows, cols))
    rate = len(rows) / max(1, bad.size)
    along_rows = _runs(rows, cols, bad.shape[1], rate)
    along_columns = _runs(cols[order], rows[order], bad.shape[0], rate)
    in_row, in_column = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    for run in along_rows:
        in_row[run.part] = True
    for run in along_columns:
        in_column[order[run.part]] = True
    lines = [run for run in along_rows if run.line.whole or np.mean(in_column[run.part]) <= 0.5]
    columns = [run for run in along_columns if run.line.whole or np.mean(in_row[order[run.part]]) <= 0.5]
    free = np.ones(len(rows), bool)
    for run in lines:
        free[run.part] = False
    for run in columns:
        free[order[run.part]] = False
    labels = components(rows[free], cols[free], bad.shape[1])
    _, first, size = np.unique(labels, return_index=True, return_counts=True)
    places = sorted(zip(-size, rows[free][first], cols[free][first], strict=True))
    return Shapes(
        singles=int(np.count_nonzero(size == 1)),
        clusters=tuple(Cluster(int(r), int(c), int(-s)) for s, r, c in places if s < -1),
        rows=tuple(run.line for run in lines),
        columns=tuple(run.line for run in columns),
    )


class _Run(NamedTuple):
    line: Line
    part: slice  # of the pixels, which are sorted along the lines


def _runs(lines: Array, places: Array, length: int, rate: float) -> list[_Run]:
    """The whole and partial lines among pixels that are sorted by line, then by place."""
    out = []
    share, gap = min(_SHARES[1], _SHARES[0] + 2 * rate), _GAPS[rate > _MANY]
    bounds = np.r_[0, np.flatnonzero(np.diff(lines)) + 1, len(lines)]
    for start, stop in pairwise(bounds):
        if stop - start < share * min(SHORTEST, length) or start == stop:
            continue
        number, here = int(lines[start]), places[start:stop]
        quarters = np.bincount(here * 4 // length, minlength=4) / (length / 4)
        if stop - start >= share * length and quarters.min() >= share / 2:
            out.append(_Run(Line(number, 0, length, int(stop - start), True), slice(start, stop)))
            continue
        breaks = np.flatnonzero(np.diff(here) > gap + 1) + 1
        for a, b in pairwise(np.r_[0, breaks, len(here)]):
            extent = int(here[b - 1] - here[a] + 1)
            if extent >= SHORTEST and b - a >= share * extent:
                line = Line(number, int(here[a]), int(here[b - 1]) + 1, int(b - a), False)
                out.append(_Run(line, slice(start + a, start + b)))
    return out


def components(rows: Array, cols: Array, width: int) -> Array:
    """(N,) labels of 8-connected components of pixels that are sorted row by row; a label is a pixel's index."""
    flat = rows * width + cols
    label = np.arange(len(flat))
    one, two = [], []
    for dr, dc in ((0, 1), (1, -1), (1, 0), (1, 1)):
        inside = (cols + dc >= 0) & (cols + dc < width)
        mine = np.flatnonzero(inside)
        wanted = flat[mine] + dr * width + dc
        place = np.minimum(np.searchsorted(flat, wanted), max(0, len(flat) - 1))
        touching = flat[place] == wanted if len(flat) else np.empty(0, bool)
        one.append(mine[touching])
        two.append(place[touching])
    a, b = np.concatenate(one), np.concatenate(two)
    while (apart := label[a] != label[b]).any():
        least = np.minimum(label[a], label[b])[apart]
        np.minimum.at(label, label[a][apart], least)
        np.minimum.at(label, label[b][apart], least)
        while (label != label[label]).any():
            label = label[label]
    return label
