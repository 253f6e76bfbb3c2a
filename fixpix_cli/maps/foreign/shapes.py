"""Floor 2. Bad pixels as points, runs and rectangles."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...defects import DefectMap
from ...mosaic import Array, Bool
from .places import Flags


def runs(bad: Bool) -> tuple[Array, Array, Array]:
    """(row, first column, width) of each horizontal run of True, in row order."""
    edges = np.zeros((bad.shape[0], bad.shape[1] + 1), np.int8)
    edges[:, :-1] = bad
    edges[:, 1:] -= bad
    rows, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    return rows, starts, stops - starts


def boxes(flags: Flags) -> list[tuple[int, int, int, int, int]]:
    """Disjoint rectangles (row, col, height, width, flags) that hold exactly the nonzero pixels.

    Equal runs of neighbouring rows become one rectangle, so that a whole column is one.
    """
    found: list[tuple[int, int, int, int, int]] = []
    for value in np.unique(flags[flags != 0]):
        rows, cols, widths = runs(flags == value)
        order = np.lexsort((rows, widths, cols))
        rows, cols, widths = rows[order], cols[order], widths[order]
        new = np.ones(len(rows), bool)
        new[1:] = (np.diff(rows) != 1) | (np.diff(cols) != 0) | (np.diff(widths) != 0)
        starts = np.flatnonzero(new)
        heights = np.diff(np.append(starts, len(rows)))
        found += zip(
            rows[starts].tolist(),
            cols[starts].tolist(),
            heights.tolist(),
            widths[starts].tolist(),
            [int(value)] * len(starts),
            strict=True,
        )
    return sorted(found)


def points(plane: DefectMap) -> Iterator[tuple[int, int, int]]:
    """(row, col, flags) of each bad pixel, in row order."""
    rows, cols = np.nonzero(plane.bad)
    yield from zip(rows.tolist(), cols.tolist(), plane.dq[rows, cols].tolist(), strict=True)
