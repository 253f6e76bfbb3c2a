"""Floor 1. The linear prediction of a plane that has few holes: weights fitted on some bands of its rows.

Least squares need sums of products over many pixels, not the pixels themselves: the products of all values of a window
with each other, the pixel in its middle among them, hold everything that a fit and its error are made of. The windows
of a row lie in memory as shifted copies of one another, so that they are gathered without any list of places. The
bands are spread evenly over the plane; what lies between them is never read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from ..cfa import Cfa, Offset
from ..mosaic import Area, Array, Bool, Mosaic
from ..tiles import each

#: The prediction uses the (2 RADIUS + 1)^2 - 1 neighbours of all colours.
RADIUS = 3
#: At least about so many pixels of each tile position are looked at, where the plane has them.
PIXELS = 60_000
#: Relative to the mean of the diagonal, what is added to it.
RIDGE = 1e-7


@dataclass(frozen=True, eq=False)
class Fit:
    """What a linear prediction of a plane is.

    Parameters
    ----------
    level : dict of tile position to float, DN
        What is subtracted: the mean of the good pixels of that tile position.
    error : dict of tile position to float, DN
        Root mean square error of the prediction on this plane.
    weights : dict of tile position to (K,) float64 array or None
        Of the neighbours in the order of `around`; None where the plane is too small to fit them.
    """

    level: dict[Offset, float]
    error: dict[Offset, float]
    weights: dict[Offset, Array | None]


@cache
def around(radius: int) -> Array:
    """((2 radius + 1)^2 - 1, 2) offsets of the neighbours of a pixel, row by row."""
    span = range(-radius, radius + 1)
    return np.array([(r, c) for r in span for c in span if r or c])


def fit(mosaic: Mosaic, bad: Bool, threads: int = 1) -> Fit:
    """The linear prediction of a plane, on good pixels without a hole around them.

    Parameters
    ----------
    mosaic : Mosaic
        Without masked borders; NaN is missing data.
    bad : (H, W) bool array
        What is stored there is never looked at.
    threads : int
        So many tile positions are worked on at a time; the answer does not depend on it.

    Returns
    -------
    Fit
        Without any good pixel the levels are 0.
    """
    (pr, pc), (height, width) = mosaic.cfa.period, mosaic.shape
    first = -(-RADIUS // pr)
    groups = max(0, (height - RADIUS) // pr - first)
    wanted = min(groups, -(-PIXELS * pc // max(1, width)))
    tops = [(first + number * groups // wanted) * pr for number in range(wanted)]
    if not tops or width <= 2 * RADIUS:
        samples, good = _read(mosaic, bad, 0, height)
        level = means(samples, good, mosaic.cfa)
        spread = {(r, c): _deviation(samples[r::pr, c::pc], good[r::pr, c::pc]) for r, c in mosaic.cfa.positions}
        return Fit(level, spread, dict.fromkeys(level))
    bands = [_read(mosaic, bad, top - RADIUS, top + pr + RADIUS) for top in tops]
    core = slice(RADIUS, RADIUS + pr)
    samples, good = (np.concatenate([band[which][core] for band in bands]) for which in (0, 1))
    level = means(samples, good, mosaic.cfa)
    table = np.array([[level[(r - RADIUS) % pr, c] for c in range(pc)] for r in range(2 * RADIUS + pr)])
    across = np.tile(table, (1, -(-width // pc)))[:, :width]
    bands = [(values - across, usable) for values, usable in bands]
    weights: dict[Offset, Array | None] = {}
    errors: dict[Offset, float] = {}

    def solve(position: Offset) -> None:
        sums, count = _sums(bands, position, pc)
        solved = _solved(sums) if count >= 4 * len(sums) else None
        if solved is None:
            place = (slice(position[0], None, pr), slice(position[1], None, pc))
            weights[position], errors[position] = None, _deviation(samples[place], good[place])
        else:
            weights[position], errors[position] = solved[0], float(np.sqrt(solved[1] / count))

    each(solve, mosaic.cfa.positions, threads)
    order = mosaic.cfa.positions
    return Fit(level, {p: errors[p] for p in order}, {p: weights[p] for p in order})


def _sums(bands: list[tuple[Array, Bool]], position: Offset, step: int) -> tuple[Array, int]:
    """(K, K) sums of the products of all values of the windows around one tile position; and how many windows."""
    row, col = position
    cells = (2 * RADIUS + 1) ** 2
    sums, count = np.zeros((cells, cells)), 0
    scratch = np.empty((cells, -(-bands[0][0].shape[1] // step)))
    part = slice(row, row + 2 * RADIUS + 1)
    for above, usable in bands:
        windows = _windows(above[part], col, step, scratch)
        open_ = _open(usable[part], col, step)
        if open_ is not None:
            windows = windows[:, open_]
        sums += windows @ windows.T
        count += windows.shape[1]
    return sums, count


def _read(mosaic: Mosaic, bad: Bool, top: int, bottom: int) -> tuple[Array, Bool]:
    """Samples of whole rows, 0 where they are not good; and which are."""
    samples = mosaic.cropped(Area(top, 0, bottom, mosaic.shape[1])).samples
    good = ~bad[top:bottom]
    if samples.dtype.kind == "f":
        good &= np.isfinite(samples)
    return (samples if good.all() else np.where(good, samples, samples.dtype.type(0))), good


def means(samples: Array, good: Bool, cfa: Cfa) -> dict[Offset, float]:
    """Mean of the good pixels of each tile position, DN; where one has none that of all, else 0."""
    pr, pc = cfa.period
    found = {}
    for r, c in cfa.positions:
        ok = good[r::pr, c::pc]
        if ok.any():
            found[r, c] = float(samples[r::pr, c::pc].mean(dtype=np.float64, where=ok))
    overall = 0.0
    if len(found) < pr * pc and good.any():
        overall = float(samples.mean(dtype=np.float64, where=good))
    return {position: found.get(position, overall) for position in cfa.positions}


def _deviation(samples: Array, good: Bool) -> float:
    return float(samples.std(dtype=np.float64, where=good)) if good.any() else 0.0


def _windows(rows: Array, first: int, step: int, scratch: Array) -> Array:
    """(K, N) float64: the windows around every `step`-th pixel of the middle row, from column `first` on.

    `scratch` is room for them: new memory costs as much as the arithmetic.
    """
    side, size = len(rows), rows.itemsize
    start = _start(first, step) - RADIUS
    count = max(0, -(-(rows.shape[1] - 2 * RADIUS - start) // step))
    down, across = rows.strides
    shifted = np.ndarray((side, side, count), rows.dtype, rows, start * size, (down, across, step * across))
    out = scratch[:, :count]
    out.reshape(side, side, count)[...] = shifted
    return out


def _start(first: int, step: int) -> int:
    """The first column of a tile position whose windows lie in the plane."""
    return first + -(-max(0, RADIUS - first) // step) * step


def _open(good: Bool, first: int, step: int) -> Bool | None:
    """(N,) bool: which of the windows of `_windows` hold good pixels only; None: all."""
    closed = ~good.all(axis=0)
    if not closed.any():
        return None
    total = np.concatenate([[0], np.cumsum(closed)])
    side = 2 * RADIUS + 1
    return (total[side:] == total[:-side])[_start(first, step) - RADIUS :: step]


def _solved(sums: Array) -> tuple[Array, float] | None:
    """The weights and the sum of squared errors, from the products of the windows' values; None: all are 0."""
    middle = len(sums) // 2
    others = np.delete(np.arange(len(sums)), middle)
    gram, right = sums[np.ix_(others, others)], sums[others, middle]
    ridge = RIDGE * np.trace(gram) / len(gram)
    if ridge <= 0:
        return None
    weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), right)
    return weights, max(0.0, float(sums[middle, middle] - 2 * weights @ right + weights @ gram @ weights))
