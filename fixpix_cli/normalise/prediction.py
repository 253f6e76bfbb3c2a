"""Floor 1. The linear prediction of a plane that has few holes: weights fitted on some bands of its rows.

Least squares need sums of products over many pixels, not the pixels themselves: the products of all values of a window
with each other, the pixel in its middle among them, hold everything that a fit and its error are made of. The windows
of a row lie in memory as shifted copies of one another, so that they are gathered without any list of places. The
bands are spread evenly over the plane; what lies between them is never read.

A lens is sharper in some places than in others. So the plane is divided into regions, each with weights of its own;
a region's sums are joined with a share of the whole plane's, without which they would be too few: weights of single
regions are up to 70 % worse in star fields, those of the whole plane 14 % worse in a photograph through a fisheye.

Tile positions around which the pattern is the same (in X-Trans two each) share their weights.
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
#: Rows and columns of a region at least, and how many regions a plane has at most, down and across.
_SIDE, _MOST = 512, (4, 6)
#: Of the whole plane's sums, what counts in a region; of its own the rest.
_SHARED = 0.15
#: A region's error counts as so many windows of the whole plane and its own.
_FEW = 200


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
    local : dict of tile position to (R, K) float64 array or None
        The same for each region, row by row.
    errors : dict of tile position to (R,) float64 array, DN
        Root mean square error in each region.
    regions : (int, int)
        How many regions there are, down and across.
    """

    level: dict[Offset, float]
    error: dict[Offset, float]
    weights: dict[Offset, Array | None]
    local: dict[Offset, Array | None]
    errors: dict[Offset, Array]
    regions: tuple[int, int]

    def region(self, shape: tuple[int, int], rows: Array, cols: Array) -> Array:
        """(N,) numbers of the regions in which the pixels (rows, cols) of the plane lie."""
        down, across = self.regions
        return rows * down // shape[0] * across + cols * across // shape[1]


@cache
def around(radius: int) -> Array:
    """((2 radius + 1)^2 - 1, 2) offsets of the neighbours of a pixel, row by row."""
    span = range(-radius, radius + 1)
    return np.array([(r, c) for r in span for c in span if r or c])


def regions_of(shape: tuple[int, int]) -> tuple[int, int]:
    """Into how many regions a plane is divided, down and across."""
    down, across = (min(most, max(1, round(size / _SIDE))) for size, most in zip(shape, _MOST, strict=True))
    return down, across


def fit(mosaic: Mosaic, bad: Bool, threads: int = 1) -> Fit:
    """The linear prediction of a plane, on good pixels without a hole around them.

    Parameters
    ----------
    mosaic : Mosaic
        Without masked borders; NaN is missing data.
    bad : (H, W) bool array
        What is stored there is never looked at.
    threads : int
        So many kinds of tile positions are worked on at a time; the answer does not depend on it.

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
        errors = {position: np.array([error]) for position, error in spread.items()}
        return Fit(level, spread, dict.fromkeys(level), dict.fromkeys(level), errors, (1, 1))
    bands = [_read(mosaic, bad, top - RADIUS, top + pr + RADIUS) for top in tops]
    core = slice(RADIUS, RADIUS + pr)
    samples, good = (np.concatenate([band[which][core] for band in bands]) for which in (0, 1))
    level = means(samples, good, mosaic.cfa)
    table = np.array([[level[(r - RADIUS) % pr, c] for c in range(pc)] for r in range(2 * RADIUS + pr)])
    across = np.tile(table, (1, -(-width // pc)))[:, :width]
    bands = [(values - across, usable) for values, usable in bands]
    regions = regions_of(mosaic.shape)
    rows = [top * regions[0] // height for top in tops]
    found: dict[Offset, _Solved] = {}

    def solve(alike: tuple[Offset, ...]) -> None:
        parts = [_sums(bands, rows, regions, position, pc) for position in alike]
        sums, counts = (sum(part[1:], start=part[0]) for part in zip(*parts, strict=True))
        one = _solved(sums, counts)
        for r, c in alike:
            found[r, c] = one or _unfitted(_deviation(samples[r::pr, c::pc], good[r::pr, c::pc]), len(sums))

    each(solve, mosaic.cfa.alike, min(threads, len(mosaic.cfa.alike)))
    solved = {position: found[position] for position in mosaic.cfa.positions}
    return Fit(
        level,
        {position: one.error for position, one in solved.items()},
        {position: one.weights for position, one in solved.items()},
        {position: one.local for position, one in solved.items()},
        {position: one.errors for position, one in solved.items()},
        regions,
    )


@dataclass(frozen=True, eq=False)
class _Solved:
    """Of one tile position: weights of the whole plane (K,), of its regions (R, K), and their errors, DN."""

    weights: Array | None
    local: Array | None
    error: float
    errors: Array


def _unfitted(error: float, regions: int) -> _Solved:
    return _Solved(None, None, error, np.full(regions, error))


def _sums(
    bands: list[tuple[Array, Bool]], rows: list[int], regions: tuple[int, int], position: Offset, step: int
) -> tuple[Array, Array]:
    """Of each region (R, K, K) sums of the products of all values of a window, and how many windows (R,).

    The windows are those around one tile position; `rows` says in which row of regions a band lies.
    """
    row, col = position
    cells, width = (2 * RADIUS + 1) ** 2, bands[0][0].shape[1]
    sums, counts = np.zeros((*regions, cells, cells)), np.zeros(regions, int)
    scratch = np.empty((cells, -(-width // step)))
    part = slice(row, row + 2 * RADIUS + 1)
    edges = [-(-(number * width // regions[1] - _start(col, step)) // step) for number in range(1, regions[1])]
    for down, (above, usable) in zip(rows, bands, strict=True):
        windows = _windows(above[part], col, step, scratch)
        open_ = _open(usable[part], col, step)
        for across, (left, right) in enumerate(zip([0, *edges], [*edges, windows.shape[1]], strict=True)):
            piece = windows[:, left:right]
            if open_ is not None:
                piece = piece[:, open_[left:right]]
            sums[down, across] += piece @ piece.T
            counts[down, across] += piece.shape[1]
    return sums.reshape(-1, cells, cells), counts.reshape(-1)


def _solved(sums: Array, counts: Array) -> _Solved | None:
    """Least squares from the sums of `_sums`; None where windows are too few, or all values are 0."""
    whole = sums.sum(axis=0)
    middle = len(whole) // 2
    others = np.delete(np.arange(len(whole)), middle)
    if counts.sum() < 4 * len(whole) or not whole[others, others].sum() > 0:
        return None
    joined = np.concatenate([whole[None], (1 - _SHARED) * sums + _SHARED * whole])
    gram, right = joined[:, others[:, None], others], joined[:, others, middle]
    ridge = RIDGE * np.trace(gram, axis1=1, axis2=2) / len(others)
    weights = np.linalg.solve(gram + ridge[:, None, None] * np.eye(len(others)), right[:, :, None])[:, :, 0]
    turned = np.insert(weights[1:], middle, -1.0, axis=1)
    squares = np.maximum(0.0, ((turned[:, None] @ sums)[:, 0] * turned).sum(axis=1))
    mean = squares.sum() / counts.sum()
    errors = np.sqrt((squares + _FEW * mean) / (counts + _FEW))
    return _Solved(weights[0], weights[1:], float(np.sqrt(mean)), errors)


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
