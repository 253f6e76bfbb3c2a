"""Floor 1. What the hole net sees: the surroundings of an isolated cluster of bad pixels, up to 6 x 6.

A hole is a connected component (8 neighbours) of what is not good. It can be asked for where its bounding box is at
most `LARGEST` on each side and at least `LEAST_GOOD` of the other pixels of its window are good. The window has
`SIDE` rows and columns with the hole in its middle, and three layers::

    value   the frame with its holes estimated (`solved`), less the window's mean of the colour, in units
    good    1 good; 0 estimated or outside the frame
    hole    1 for the pixels of this hole, 0 elsewhere

A unit is the window's mean absolute deviation plus a quarter of the error that the frame's own linear prediction
makes, as in `windows`: gain, offset and what a header claims cancel. Two numbers go along: whether the frame is mono,
and the logarithm of the unit over that error. The net answers the residual over the first estimate, in units, of
every pixel of the window; `decode` takes those of the hole.

The first estimate is the exact solution of what `windows.fill` approaches pass by pass: every pixel of the hole is
what the frame's linear prediction makes of its neighbours, those in the hole included. The passes stop early in large
holes: on the MicaSense frames the solution has half their excess error in holes of 4 x 4.

Bayer windows begin with red: one phase for the net, which learns the colours from their places. Nothing else tells
red from blue, so a window turned by half a turn is a window, too, and so is its mirror image in the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ..cfa import Cfa
from ..mosaic import Array, Bool, Float32
from ..planes import same_phase
from .windows import Filled, around

#: Name and version of this input contract.
NORMALISATION = "holes-1"
#: Rows and columns of a window; even, so that it holds whole Bayer tiles.
SIDE = 20
#: A hole's bounding box has at most so many rows and columns.
LARGEST = 6
#: Share of good pixels among the window's pixels that lie in the frame and not in the hole.
LEAST_GOOD = 0.75
#: Layers of a window, and numbers that go along with it.
LAYERS, ABOUT = 3, 2

_LIMIT = 8.0
_FILLED_WEIGHT = 0.25
_ERROR_SHARE = 0.25
#: Holes that are solved at a time.
_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Holes:
    """The holes of a frame that the net can be asked for.

    Parameters
    ----------
    rows, cols : (N,) int64 arrays
        Their pixels, hole by hole.
    number : (N,) int64 array
        Which hole a pixel belongs to, 0 to K - 1, ascending.
    top, left : (K,) int64 arrays
        Frame coordinates of the windows' first pixels; may lie outside the frame.
    """

    rows: Array
    cols: Array
    number: Array
    top: Array
    left: Array

    def __len__(self) -> int:
        return len(self.top)

    def part(self, start: int, stop: int) -> Holes:
        """The holes start..stop as holes of their own."""
        mine = slice(*np.searchsorted(self.number, (start, stop)))
        some = slice(start, stop)
        return Holes(self.rows[mine], self.cols[mine], self.number[mine] - start, self.top[some], self.left[some])

    def places(self) -> tuple[Array, Array]:
        """(N,), (N,): row and column of each pixel in its window."""
        return self.rows - self.top[self.number], self.cols - self.left[self.number]


def find(good: Bool, cfa: Cfa) -> Holes:
    """The holes of a plane that are small and isolated enough.

    Parameters
    ----------
    good : (H, W) bool array
    cfa : Cfa
        Mono or Bayer.
    """
    rows, cols = np.nonzero(~good)
    if not len(rows):
        none = np.empty(0, np.int64)
        return Holes(none, none, none, none, none)
    label = components(rows, cols, good.shape[1])
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    size = np.diff(starts, append=len(order))
    low_r, low_c = (np.minimum.reduceat(a[order], starts) for a in (rows, cols))
    high_r, high_c = (np.maximum.reduceat(a[order], starts) for a in (rows, cols))
    begin = first_corner(cfa)
    top, left = _corner(low_r, high_r, begin[0], cfa), _corner(low_c, high_c, begin[1], cfa)
    chosen = (high_r - low_r < LARGEST) & (high_c - low_c < LARGEST)
    chosen[chosen] = _isolated(good, top[chosen], left[chosen], size[chosen])
    mine = order[np.repeat(chosen, size)]
    number = np.repeat(np.arange(np.count_nonzero(chosen)), size[chosen])
    return Holes(rows[mine], cols[mine], number, top[chosen], left[chosen])


def components(rows: Array, cols: Array, width: int) -> Array:
    """(N,) labels, equal for pixels that touch (8 neighbours): the least index among them.

    Parameters
    ----------
    rows, cols : (N,) int64 arrays
        In row order, each pixel once.
    width : int
        Columns of the frame.
    """
    flat, last = rows * width + cols, len(rows) - 1
    a, b = [], []
    for dr, dc in ((0, 1), (1, -1), (1, 0), (1, 1)):
        wanted = flat + dr * width + dc
        at = np.minimum(np.searchsorted(flat, wanted), last)
        touch = (flat[at] == wanted) & (cols + dc >= 0) & (cols + dc < width)
        a.append(np.flatnonzero(touch))
        b.append(at[touch])
    one, other = np.concatenate(a), np.concatenate(b)
    label = np.arange(len(rows))
    while np.any(differ := label[one] != label[other]):
        one, other = one[differ], other[differ]
        low = np.minimum(label[one], label[other])
        np.minimum.at(label, np.maximum(label[one], label[other]), low)
        while np.any(label != label[label]):
            label = label[label]
    return label


def first_corner(cfa: Cfa) -> tuple[int, int]:
    """The tile position with which windows begin: red; (0, 0) in mono."""
    if cfa.is_mono:
        return 0, 0
    return next((r, c) for r, c in cfa.positions if cfa.colour(r, c) == "R")


def _corner(low: Array, high: Array, phase: int, cfa: Cfa) -> Array:
    """First rows (or columns) of windows with the bounding boxes low..high in their middle, of the right phase."""
    first = (low + high + 1 - SIDE) // 2
    return first if cfa.is_mono else first + (first - phase) % 2


def _isolated(good: Bool, top: Array, left: Array, size: Array) -> Bool:
    """(K,) bool: whether the windows hold enough good pixels."""
    if not len(top):
        return np.zeros(0, bool)
    total = np.zeros((good.shape[0] + 1, good.shape[1] + 1), np.int32)
    np.cumsum(np.cumsum(good, axis=0, dtype=np.int32), axis=1, out=total[1:, 1:])
    r0, r1 = (np.clip(top + n, 0, good.shape[0]) for n in (0, SIDE))
    c0, c1 = (np.clip(left + n, 0, good.shape[1]) for n in (0, SIDE))
    found = total[r1, c1] - total[r0, c1] - total[r1, c0] + total[r0, c0]
    others = (r1 - r0) * (c1 - c0) - size
    return (found > 0) & (found >= LEAST_GOOD * others)


def solved(filled: Filled, holes: Holes) -> Filled:
    """The frame with the exact solution of its linear prediction in the holes.

    What lies beyond the good pixels of its colour in the window is cut there: on a night sky, where the prediction
    knows stars from few pixels, that halves the error of 5 x 5 holes. Beyond the frame's edge the frame is mirrored.
    A frame too small for a prediction comes back as it is.
    """
    if not len(holes) or any(weights is None for weights in filled.weights.values()):
        return filled
    samples = filled.samples.copy()
    owner = np.full(filled.good.size, -1, np.int32)
    owner[holes.rows * filled.good.shape[1] + holes.cols] = holes.number
    for start in range(0, len(holes), _BATCH):
        some = holes.part(start, start + _BATCH)
        low, high = _bounds(filled, some)
        samples[some.rows, some.cols] = np.clip(_solution(filled, some, owner, start), low, high)
    return replace(filled, samples=samples)


def _solution(filled: Filled, holes: Holes, owner: Array, start: int) -> Array:
    """(N,) values above the level that satisfy x = W x in the holes; `owner` counts holes from `start` on less."""
    (height, width), (pr, pc) = filled.good.shape, filled.cfa.period
    table = np.array([filled.weights[r, c] for r in range(pr) for c in range(pc)])
    offsets = around((int((table.shape[1] + 1) ** 0.5) - 1) // 2)
    radius = int(offsets.max())
    weights = table[holes.rows % pr * pc + holes.cols % pc]
    rows = same_phase(-radius, height + radius, height, pr)[holes.rows[:, None] + offsets[:, 0] + radius]
    cols = same_phase(-radius, width + radius, width, pc)[holes.cols[:, None] + offsets[:, 1] + radius]
    flat = rows * width + cols
    own = owner[flat] == holes.number[:, None] + start
    known = (weights * np.where(own, 0.0, filled.samples.reshape(-1)[flat])).sum(axis=1)
    first = np.searchsorted(holes.number, np.arange(len(holes)))
    order = np.arange(len(holes.rows)) - first[holes.number]
    size = int(order.max()) + 1
    place = np.zeros((len(holes), SIDE, SIDE), np.int64)
    place[holes.number, *holes.places()] = order
    pixel, neighbour = np.nonzero(own)
    hole = holes.number[pixel]
    partner = place[hole, rows[own] - holes.top[hole], cols[own] - holes.left[hole]]
    matrix = np.tile(np.eye(size), (len(holes), 1, 1))
    np.add.at(matrix, (hole, order[pixel], partner), -weights[pixel, neighbour])
    right = np.zeros((len(holes), size, 1))
    right[holes.number, order, 0] = known
    return np.linalg.solve(matrix, right)[holes.number, order, 0]


def _bounds(filled: Filled, holes: Holes) -> tuple[Array, Array]:
    """(N,), (N,): the least and the greatest value above the level that a hole's pixel may be given."""
    value, good, _ = _cut(filled, holes)
    low, high = np.full(len(holes.rows), -np.inf), np.full(len(holes.rows), np.inf)
    for same in _colours(filled.cfa):
        known = good & (same > 0)
        least = np.where(known, value, np.inf).min(axis=(1, 2))
        greatest = np.where(known, value, -np.inf).max(axis=(1, 2))
        mine = (same[holes.places()] > 0) & np.any(known, axis=(1, 2))[holes.number]
        low[mine], high[mine] = (bound[holes.number][mine] for bound in (least, greatest))
    return low, high


def _cut(filled: Filled, holes: Holes) -> tuple[Float32, Bool, Bool]:
    """(K, SIDE, SIDE) samples, good flags, and what lies inside the frame; 0 and False outside."""
    height, width = filled.good.shape
    span = np.arange(SIDE)
    r, c = holes.top[:, None, None] + span[:, None], holes.left[:, None, None] + span
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    flat = np.clip(r, 0, height - 1) * width + np.clip(c, 0, width - 1)
    return filled.samples.reshape(-1)[flat] * inside, filled.good.reshape(-1)[flat] & inside, inside


def encode(filled: Filled, holes: Holes) -> tuple[Float32, Float32, Array]:
    """Net input for some holes.

    Parameters
    ----------
    filled : windows.Filled
        With the holes' first estimates: from `solved`.
    holes : Holes
        K of them.

    Returns
    -------
    window : (K, LAYERS, SIDE, SIDE) float32 array, no unit
    about : (K, ABOUT) float32 array
    unit : (K,) float64 array, DN
        0 in a flat frame, where the first estimate stands whatever the net says.
    """
    value, good, inside = _cut(filled, holes)
    weight = np.where(good, 1.0, _FILLED_WEIGHT).astype(np.float32) * inside
    for same in _colours(filled.cfa):
        share = weight * same
        mean = (value * share).sum(axis=(1, 2)) / np.maximum(share.sum(axis=(1, 2)), 1e-6)
        value -= mean[:, None, None] * same
    value *= inside
    spread = (np.abs(value) * weight).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))
    error = float(np.sqrt(np.mean([e**2 for e in filled.error.values()]))) if filled.error else 0.0
    unit = spread.astype(np.float64) + _ERROR_SHARE * error
    window = np.zeros((len(holes), LAYERS, SIDE, SIDE), np.float32)
    window[:, 0] = np.clip(value / np.where(unit > 0, unit, 1.0)[:, None, None], -_LIMIT, _LIMIT)
    window[:, 1] = good
    window[holes.number, 2, *holes.places()] = 1.0
    about = np.zeros((len(holes), ABOUT), np.float32)
    about[:, 0] = filled.cfa.is_mono
    if error > 0:
        about[:, 1] = np.clip(np.log(unit / error), -1.0, 6.0)
    return window, about, unit


@cache
def _colours(cfa: Cfa) -> tuple[Float32, ...]:
    """For each colour the (SIDE, SIDE) places of a window that have it, as 0 and 1."""
    top, left = first_corner(cfa)
    names = np.array([[cfa.colour(top + r, left + c) for c in range(SIDE)] for r in range(SIDE)])
    return tuple((names == name).astype(np.float32) for name in cfa.colours)


def decode(filled: Filled, holes: Holes, answer: Float32, unit: Array) -> Array:
    """The net's answers as sample values.

    Parameters
    ----------
    filled, holes
        As for `encode`.
    answer : (K, SIDE, SIDE) float32 array
        Residuals over the first estimate, in units.
    unit : (K,) float64 array, DN
        From `encode`.

    Returns
    -------
    (N,) float64 array, DN, of the holes' pixels
    """
    residual = answer[holes.number, *holes.places()].astype(np.float64)
    return filled.at(holes.rows, holes.cols) + residual * unit[holes.number]
