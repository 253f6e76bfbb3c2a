"""Floor 1. First estimates where holes are few: their neighbourhoods alone, as windows.

What a hole's estimate does not take from good pixels it takes from other holes' estimates. The good pixels' part of
every sum is made once; what remains for the passes are the pairs of holes within each other's reach, and most holes
have none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..cfa import Cfa, Offset
from ..mosaic import Array, Bool, Float32, Mosaic
from ..tiles import marked
from .prediction import RADIUS, Fit

#: How often all holes are estimated anew, and in which square of same-coloured pixels they are looked for at first.
_PASSES, _FIRST = 8, 4
#: Windows that are sought at a time.
_CHUNK = 1 << 12


@dataclass(frozen=True, eq=False)
class Near:
    """The windows around the holes of a plane, with first estimates in all holes.

    Parameters
    ----------
    flat : (N,) int64 array
        Row-major numbers of the holes, rising.
    shape : (H, W)
    values : (N, n, n) float32 array, DN above level
        Good pixels as they are, holes estimated; 0 beyond the plane.
    good, inside : (N, n, n) bool arrays
        Which are good pixels, and which lie in the plane.
    cfa : Cfa
    fit : Fit
    """

    flat: Array
    shape: tuple[int, int]
    values: Float32
    good: Bool
    inside: Bool
    cfa: Cfa
    fit: Fit

    @property
    def estimates(self) -> Float32:
        """(N,) DN above level: the first estimates of all holes."""
        middle = self.values.shape[1] // 2
        return self.values[:, middle, middle]

    def windows(self, rows: Array, cols: Array, radius: int) -> tuple[Float32, Bool, Bool]:
        """Values, good and inside, (M, n, n), of windows of at most the own radius around some holes."""
        index = np.searchsorted(self.flat, rows * self.shape[1] + cols)
        rim = self.values.shape[1] // 2 - radius
        part = (index, *(slice(rim, self.values.shape[1] - rim),) * 2)
        return self.values[part], self.good[part], self.inside[part]

    def at(self, rows: Array, cols: Array) -> Array:
        """(M,) float64 DN: the first estimates of the holes (rows, cols)."""
        index = np.searchsorted(self.flat, rows * self.shape[1] + cols)
        return self.estimates[index].astype(np.float64) + level_at(self.fit.level, self.cfa, rows, cols)

    def error_at(self, position: Offset, rows: Array, cols: Array) -> Array:
        """(M,) float64 DN: the error of the prediction around some holes of a tile position."""
        return self.fit.errors[position][self.fit.region(self.shape, rows, cols)]


def level_at(level: dict[Offset, float], cfa: Cfa, rows: Array, cols: Array) -> Array:
    """(...) float64 DN: the level of the tile positions of the pixels (rows, cols)."""
    pr, pc = cfa.period
    table = np.array([[level[r, c] for c in range(pc)] for r in range(pr)])
    return table[rows % pr, cols % pc]


def missing(mosaic: Mosaic, bad: Bool) -> Array:
    """(N,) int64: row-major numbers of the bad pixels and of those without data (NaN), rising."""
    if mosaic.is_integer:
        return marked(bad)
    return marked(bad | ~np.isfinite(mosaic.samples))


def estimate(mosaic: Mosaic, flat: Array, fit: Fit, radius: int) -> Near:
    """First estimates of the holes of a plane.

    Parameters
    ----------
    mosaic : Mosaic
        Without masked borders.
    flat : (N,) int64 array
        From `missing`.
    fit : Fit
        Of the same plane.
    radius : int
        The windows have n = 2 radius + 1 rows and columns, at least 9.

    Returns
    -------
    Near
    """
    radius = max(radius, _FIRST, RADIUS)
    shape, cfa, side = mosaic.shape, mosaic.cfa, 2 * radius + 1
    rows, cols = np.divmod(flat, max(1, shape[1]))
    place = rows % cfa.period[0] * cfa.period[1] + cols % cfa.period[1]
    region = fit.region(shape, rows, cols)
    span = np.arange(-radius, radius + 1)
    levels = np.array([level_at(fit.level, cfa, r + span[:, None], c + span) for r, c in cfa.positions])
    values = np.empty((len(flat), side, side), np.float32)
    inside = np.empty(values.shape, bool)
    for start in range(0, len(flat), _CHUNK):
        part = slice(start, start + _CHUNK)
        r, c = rows[part, None] + span, cols[part, None] + span
        inside[part] = ((r >= 0) & (r < shape[0]))[:, :, None] & ((c >= 0) & (c < shape[1]))[:, None]
        where = np.clip(r, 0, shape[0] - 1)[:, :, None], np.clip(c, 0, shape[1] - 1)[:, None]
        values[part] = np.where(inside[part], mosaic.at(*where) - levels[place[part]], 0.0)
    cell, partner = _pairs(flat, shape, rows, cols, radius)
    good = inside.copy()
    good.reshape(-1)[cell] = False
    values.reshape(-1)[cell] = 0.0  # NaN among them
    values.reshape(-1)[cell] = _passes(values, good, inside, cell, partner, fit, cfa, place, region)[partner]
    return Near(flat, shape, values, good, inside, cfa, fit)


def _pairs(flat: Array, shape: tuple[int, int], rows: Array, cols: Array, radius: int) -> tuple[Array, Array]:
    """The places in the (N, n, n) windows that hold a hole, as row-major numbers; and the numbers of those holes.

    Of a row of a window the holes are a piece of the list of all holes.
    """
    side = 2 * radius + 1
    r = rows[:, None] + np.arange(-radius, radius + 1)
    left, right = np.maximum(cols - radius, 0), np.minimum(cols + radius, shape[1] - 1)
    begin = np.searchsorted(flat, r * shape[1] + left[:, None])
    end = np.searchsorted(flat, r * shape[1] + right[:, None], "right")
    count = (end - begin).sum(axis=1)
    hole = np.repeat(np.arange(len(flat)), count)
    pieces = (end - begin).reshape(-1)
    before = np.cumsum(pieces) - pieces
    partner = np.arange(int(pieces.sum())) + np.repeat(begin.reshape(-1) - before, pieces)
    down, across = rows[partner] - rows[hole] + radius, cols[partner] - cols[hole] + radius
    return (hole * side + down) * side + across, partner


def _passes(
    values: Float32,
    good: Bool,
    inside: Bool,
    cell: Array,
    partner: Array,
    fit: Fit,
    cfa: Cfa,
    place: Array,
    region: Array,
) -> Float32:
    """(N,) estimates of the holes, DN above level; those of a tile position without weights stay means.

    `cell` and `partner` are those of `_pairs`; `place` and `region` are the numbers of the holes' tile positions and
    regions.
    """
    cells = values.shape[1] ** 2
    mean, weights = _means(cfa, values.shape[1] // 2), _weights(fit, cfa, values.shape[1] // 2)
    first, known = np.zeros((2, len(place)))
    for start in range(0, len(place), _CHUNK):
        part = slice(start, start + _CHUNK)
        ok, out = good[part].reshape(-1, cells), ~inside[part].reshape(-1, cells)
        near, share = np.where(ok, values[part].reshape(-1, cells), np.float32(0)), mean[place[part]]
        total = np.einsum("nk,nk->n", ok, share, dtype=np.float32)
        first[part] = np.einsum("nk,nk->n", near, share) / np.maximum(total, np.float32(1e-12))
        mine = weights[place[part], region[part]]
        beyond = np.einsum("nk,nk->n", out, mine, dtype=np.float32)
        known[part] = np.einsum("nk,nk->n", near, mine) + beyond * first[part]
    hole = cell // cells
    bound = weights[place[hole], region[hole], cell % cells]
    linked = bound != 0
    hole, partner, bound = hole[linked], partner[linked], bound[linked]
    fitted = np.array([fit.weights[position] is not None for position in cfa.positions])[place]
    held, moved = first, np.full(len(place), np.inf)
    for _ in range(_PASSES):
        new = known + np.bincount(hole, bound * held[partner], len(place))
        held, moved = _held(held, np.where(fitted, new, first), moved)
    return held.astype(np.float32)


def _means(cfa: Cfa, radius: int) -> Float32:
    """(P, n n) weights of a window's pixels in the mean of the same-coloured ones within 4, 1 / distance^3."""
    side, middle = 2 * radius + 1, radius * (2 * radius + 1) + radius
    mean = np.zeros((len(cfa.positions), side * side), np.float32)
    for number, position in enumerate(cfa.positions):
        offsets = np.array(cfa.neighbours(*position, _FIRST)).reshape(-1, 2)
        mean[number, offsets @ [side, 1] + middle] = (offsets**2).sum(axis=1) ** -1.5
    return mean


def _weights(fit: Fit, cfa: Cfa, radius: int) -> Float32:
    """(P, R, n n) weights of a window's pixels in the prediction, of each tile position and region."""
    side = 2 * radius + 1
    core = np.zeros((side, side), bool)
    core[radius - RADIUS : radius + RADIUS + 1, radius - RADIUS : radius + RADIUS + 1] = True
    core[radius, radius] = False
    places = np.flatnonzero(core)
    weights = np.zeros((len(cfa.positions), fit.regions[0] * fit.regions[1], side * side), np.float32)
    for number, position in enumerate(cfa.positions):
        found = fit.local[position]
        if found is not None:
            weights[number][:, places] = found
    return weights


def _held(old: Array, new: Array, moved: Array) -> tuple[Array, Array]:
    """(N,) estimates for the next pass, and how far they moved: half of the way where `new` moves further than before.

    In smooth pictures many passes alone diverge: 100 times the squared error of least squares in holes of 4 x 4 of
    an RGB photograph.
    """
    now = np.abs(new - old)
    further = now > moved
    return np.where(further, (old + new) / 2, new), np.where(further, now / 2, now)
