"""Floor 1. Pixels that might be bad, of a whole frame: cheap, and with nothing lost that could be found.

A candidate lies outside the second least and the second greatest of its eight nearest neighbours (of its own tile
position where that repeats within two pixels, else of its own colour) by some noise and a small share of the level.
The second, not the first: one bad neighbour so hides no other. Integer samples are ranked as integers, whole rows at a
time: a Bayer pixel's neighbours are two columns away whatever its colour, so nothing need be taken apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .levels import Statistics
from .mosaic import Array, Bool, Float32, Mosaic
from .planes import band_of, ranked, same_phase, spans
from .tiles import each

#: How far outside a candidate lies: so many sigma, and this share of the level.
SIGMAS, SHARE = 2.5, 0.02
#: Pixels of a band: some twenty arrays of so many 16-bit samples fit into the second cache.
BAND = 1 << 15


def candidates(light: Mosaic, seen: Statistics, threads: int = 1) -> Array:
    """The pixels that a closer look is worth.

    Parameters
    ----------
    light : Mosaic
        Without masked borders; floats as `levels.comparable` makes them.
    seen : Statistics
    threads : int
        Bands that are worked on at the same time; the result does not depend on it.

    Returns
    -------
    (N,) int64 array
        Row * W + column, ascending. Samples that are NaN are none.
    """
    steady = light.cfa.is_grid
    bands = _rows(light.shape) if steady else spans(light.shape, light.cfa)
    of: Callable[[Mosaic, Statistics, int, int], Bool] = _in_rows if steady else _in_planes
    found: list[Array] = [np.zeros(0, np.int64)] * len(bands)

    def look(number: int) -> None:
        top, rows = bands[number]
        found[number] = np.flatnonzero(of(light, seen, top, rows)) + top * light.shape[1]

    each(look, range(len(bands)), threads)
    return np.concatenate(found)


def beside(light: Mosaic, suspects: Array) -> tuple[Array, Array]:
    """Where suspects may hide others, or make good pixels stand out.

    Parameters
    ----------
    light : Mosaic
    suspects : (N,) integer array
        Row * W + column.

    Returns
    -------
    hidden, touching : int64 arrays of row * W + column, ascending
        Pixels with two suspects or more among those that they are compared with, which may be no candidates for it;
        pixels with any among those or among their eight direct neighbours.
    """
    rows, cols = np.divmod(suspects, light.shape[1])
    steady, step = light.cfa.is_grid, light.cfa.period[0]
    direct = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c]
    near = [
        [(r * step, c * step) for r, c in direct] if steady else light.cfa.nearest(*place, 8)
        for place in light.cfa.positions
    ]
    own: list[Array] = []
    for place, offsets in zip(light.cfa.positions, near, strict=True):
        mine = (rows % light.cfa.period[0] == place[0]) & (cols % light.cfa.period[1] == place[1])
        own += [_moved(rows[mine], cols[mine], offset, light.shape) for offset in offsets]
    compared, count = np.unique(np.concatenate(own), return_counts=True)
    others = [_moved(rows, cols, offset, light.shape) for offset in direct]
    return compared[count >= 2], np.unique(np.concatenate([compared, *others]))


def _moved(rows: Array, cols: Array, offset: tuple[int, int], shape: tuple[int, int]) -> Array:
    """The pixels at an offset from some that lie inside the frame, row * W + column."""
    r, c = rows + offset[0], cols + offset[1]
    inside = (r >= 0) & (r < shape[0]) & (c >= 0) & (c < shape[1])
    return r[inside] * shape[1] + c[inside]


def _rows(shape: tuple[int, int]) -> list[tuple[int, int]]:
    step = max(2, BAND // shape[1] // 2 * 2)
    return [(top, min(step, shape[0] - top)) for top in range(0, shape[0], step)]


def _in_rows(light: Mosaic, seen: Statistics, top: int, rows: int) -> Bool:
    """The candidates among some rows of a mono or Bayer plane."""
    step = light.cfa.period[0]
    height, width = light.shape
    if top >= step and top + rows + step <= height:
        part = light.samples[top - step : top + rows + step]
    else:
        part = light.samples[same_phase(top - step, top + rows + step, height, step)]
    edges = [part[:, same_phase(a, b, width, step)] for a, b in ((-step, 0), (width, width + step))]
    wide = np.concatenate([edges[0], part, edges[1]], axis=1)
    low, high = seconds(wide, step)
    x = part[step:-step]
    black = light.black_frame(slice(top, top + rows))
    return _outside(x.astype(np.float32), low.astype(np.float32), high.astype(np.float32), black, seen)


def seconds(wide: Array, step: int) -> tuple[Array, Array]:
    """The second least and the second greatest of the eight pixels `step` away, of all but the outermost pixels.

    Parameters
    ----------
    wide : (H + 2 step, W + 2 step) array

    Returns
    -------
    low, high : (H, W) arrays of its dtype
    """
    up, middle, down = wide[: -2 * step], wide[step:-step], wide[2 * step :]
    more, less = np.maximum(up, down), np.minimum(up, down)
    answers = []
    for first, last, greater, lesser in (
        (np.minimum, np.maximum, less, more),
        (np.maximum, np.minimum, more, less),
    ):  # of a column: its most extreme of three and the next; then those of two columns; then with the two between
        ends, nexts = first(greater, middle), first(lesser, last(greater, middle))
        left, right = ends[:, : -2 * step], ends[:, 2 * step :]
        second = last(left, right)
        end = first(left, right)
        first(second, nexts[:, : -2 * step], out=second)
        first(second, nexts[:, 2 * step :], out=second)
        first(second, lesser[:, step:-step], out=second)
        last(end, greater[:, step:-step], out=end)
        answers.append(first(second, end, out=second))
    return answers[0], answers[1]


def _in_planes(light: Mosaic, seen: Statistics, top: int, rows: int) -> Bool:
    """The candidates among some rows of any other plane."""
    near = {p: light.cfa.nearest(*p, 8) for p in light.cfa.positions}
    radius = max(max(abs(r), abs(c)) for offsets in near.values() for r, c in offsets)
    band, out = band_of(light.samples, light.cfa, radius, top, rows), np.zeros((rows, light.shape[1]), bool)
    (pr, pc), black = light.cfa.period, light.black_frame(slice(top, top + rows))
    for row, col in light.cfa.positions:
        x = band.view((row, col))
        if x.size:
            low, high = ranked([band.view((row, col), o) for o in near[row, col]], 2)
            out[row::pr, col::pc] = _outside(x, low, high, black[row::pr, col::pc], seen)
    return out


def _outside(x: Float32, low: Float32, high: Float32, black: Float32, seen: Statistics) -> Bool:
    """Which samples lie outside low..high by enough; all in DN as stored, `low` and `high` are altered."""
    noise = seen.noise
    level = low + high
    level *= np.float32(0.5)
    level -= black
    np.maximum(level, np.float32(0), out=level)
    margin = level * np.float32(noise.gain)
    margin += np.float32(noise.offset)
    np.maximum(margin, np.float32(noise.floor), out=margin)
    np.sqrt(margin, out=margin)
    margin *= np.float32(SIGMAS)
    level *= np.float32(SHARE)
    margin += level
    np.subtract(low, x, out=low)
    np.subtract(x, high, out=high)
    return np.greater(np.fmax(low, high, out=low), margin)
