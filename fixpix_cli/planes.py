"""Floor 1. Dense neighbourhoods: the same-colour neighbours of every pixel, band by band.

A frame is walked in bands of rows small enough for the processor's cache. In
a band the pixels of one tile position of the CFA form a contiguous plane, and
so do their neighbours at any fixed offset: a neighbourhood statistic is then
a few whole-array operations for mono, Bayer, X-Trans and Quad-Bayer alike.

Beyond the frame's edge mono and Bayer planes are mirrored; others repeat the nearest pixel of the same phase.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .cfa import Cfa, Offset
from .mosaic import Array, Float32

#: Pixels of a band: a dozen arrays of a quarter of them fit into the second cache.
BAND_PIXELS = 1 << 17


@dataclass(frozen=True, eq=False)
class Band:
    """Some rows of a frame, split into the planes of the CFA, with a margin all around."""

    top: int
    rows: int
    cols: int
    cfa: Cfa
    margin: tuple[int, int]
    planes: dict[Offset, Float32]

    def size(self, position: Offset) -> tuple[int, int]:
        """Rows and columns that a tile position has in this band."""
        (pr, pc), (r, c) = self.cfa.period, position
        return max(0, -(-(self.rows - r) // pr)), max(0, -(-(self.cols - c) // pc))

    def view(self, position: Offset, offset: Offset = (0, 0)) -> Float32:
        """(h, w) float32 view: the pixels at `offset` from those of a tile position."""
        pr, pc = self.cfa.period
        row, col = position[0] + offset[0] + self.margin[0], position[1] + offset[1] + self.margin[1]
        height, width = self.size(position)
        plane = self.planes[row % pr, col % pc]
        return plane[row // pr : row // pr + height, col // pc : col // pc + width]

    def part(self, array: Array, position: Offset) -> Array:
        """(h, w) view: the places of a tile position in an (H, W) array."""
        (pr, pc), (r, c) = self.cfa.period, position
        return array[self.top + r : self.top + self.rows : pr, c::pc]

    def put(self, out: Array, position: Offset, values: Array) -> None:
        """Write the (h, w) values of a tile position to their places in the (H, W) array `out`."""
        self.part(out, position)[...] = values


def bands(samples: Array, cfa: Cfa, radius: int) -> Iterator[Band]:
    """Walk a frame in bands.

    Parameters
    ----------
    samples : (H, W) array, DN
    cfa : Cfa
    radius : int
        The greatest offset that will be asked for, in pixels.
    """
    for top, rows in spans(samples.shape, cfa):
        yield band_of(samples, cfa, radius, top, rows)


def spans(shape: tuple[int, ...], cfa: Cfa) -> list[tuple[int, int]]:
    """First row and number of rows of the bands of a frame."""
    height, width = shape
    step = max(cfa.period[0], BAND_PIXELS // (width + 12) // cfa.period[0] * cfa.period[0])
    return [(top, min(step, height - top)) for top in range(0, height, step)]


def band_of(samples: Array, cfa: Cfa, radius: int, top: int, rows: int) -> Band:
    """One band of a frame; parameters as in `bands` and `Band`."""
    height, width = samples.shape
    pr, pc = cfa.period
    margin = (-(-radius // pr) * pr, -(-radius // pc) * pc)
    index = same_phase(top - margin[0], top + -(-rows // pr) * pr + margin[0], height, pr)
    cols = same_phase(-margin[1], -(-width // pc) * pc + margin[1], width, pc)
    planes = {(r, c): gathered(samples, index[r::pr], cols[c::pc], pr, pc) for r, c in cfa.positions}
    return Band(top, rows, width, cfa, margin, planes)


def gathered(samples: Array, rows: Array, cols: Array, down: int, across: int) -> Float32:
    """``samples[np.ix_(rows, cols)]`` as float32, several times faster where the indices rise by `down` and `across`.

    Parameters
    ----------
    samples : (H, W) array, DN
    rows, cols : integer arrays
        As `same_phase` gives them, or every so many of them: but for both ends they rise steadily.
    down, across : int, by how much
    """
    r, c = _steady(rows, down), _steady(cols, across)
    if r is None or c is None:
        return samples[np.ix_(rows, cols)].astype(np.float32)
    out = np.empty((len(rows), len(cols)), np.float32)
    whole = samples[rows[r.start] : rows[r.stop - 1] + 1 : down]
    out[r, c] = whole[:, cols[c.start] : cols[c.stop - 1] + 1 : across]
    for end in (slice(0, c.start), slice(c.stop, None)):
        out[r, end] = whole[:, cols[end]]
    for end in (slice(0, r.start), slice(r.stop, None)):
        out[end] = samples[np.ix_(rows[end], cols)]
    return out


def _steady(index: Array, step: int) -> slice | None:
    """Where an index rises steadily; None where that is nowhere or in several places."""
    rises = np.flatnonzero(np.diff(index) == step)
    if not len(rises) or rises[-1] - rises[0] != len(rises) - 1:
        return None
    return slice(int(rises[0]), int(rises[-1]) + 2)


@lru_cache(256)
def same_phase(start: int, stop: int, size: int, period: int) -> Array:
    """Indices start..stop with those outside [0, size) moved inside, to one of the same phase.

    The planes of mono and Bayer are mirrored at their outermost pixel: repeating it would make a pixel at the
    edge its own neighbour, and a hot one could then never stand out. Longer periods repeat the nearest pixel.
    """
    index = np.arange(start, stop)
    if size < period:
        index = np.clip(index, 0, size - 1)
    else:
        phase, step = index % period, index // period
        last = (size - 1 - phase) // period
        if period <= 2:
            step = np.abs(step)
            step = last - np.abs(last - step)
        index = phase + np.clip(step, 0, last) * period
    index.flags.writeable = False  # kept, and given to whoever asks again
    return index


def extremes(views: Sequence[Float32]) -> tuple[Float32, Float32]:
    """Least and greatest of some (h, w) views, pixel by pixel; NaN counts for nothing."""
    low, high = views[0].copy(), views[0].copy()
    for view in views[1:]:
        np.fmin(low, view, out=low)
        np.fmax(high, view, out=high)
    return low, high


def ring(plane: Float32, inner: int, outer: int, join: np.ufunc, nothing: float) -> Float32:
    """The least or the greatest of the pixels in a square ring around each pixel.

    Parameters
    ----------
    plane : (h, w) float32 array
    inner, outer : int
        The ring's pixels are more than `inner` and at most `outer` rows or columns away.
    join : np.minimum or np.maximum
    nothing : float
        What stands beyond the plane, and for what does not count: the greatest or the least number.

    Returns
    -------
    (h, w) float32 array
    """
    height, width = plane.shape
    padded = np.pad(plane, outer, constant_values=nothing)

    def rows(array: Float32, first: int, last: int) -> Float32:
        return _joined([array[outer + k : outer + k + height] for k in range(first, last + 1)], join)

    def cols(array: Float32, first: int, last: int) -> Float32:
        return _joined([array[:, outer + k : outer + k + width] for k in range(first, last + 1)], join)

    wide, tall = cols(padded, -outer, outer), rows(padded, -inner, inner)
    near, far = (inner + 1, outer), (-outer, -inner - 1)
    return _joined([rows(wide, *near), rows(wide, *far), cols(tall, *near), cols(tall, *far)], join)


def _joined(views: Sequence[Float32], join: np.ufunc) -> Float32:
    whole = views[0].copy()
    for view in views[1:]:
        join(whole, view, out=whole)
    return whole


def ranked(views: Sequence[Float32], depth: int) -> tuple[Float32, Float32]:
    """The `depth`-th least and the `depth`-th greatest of some (h, w) views, pixel by pixel.

    NaN counts for nothing; where fewer than `depth` values are left, the answer is NaN.
    """
    if depth == 1:
        return extremes(views)
    shape = views[0].shape
    least = [np.full(shape, np.inf, np.float32) for _ in range(depth)]
    greatest = [np.full(shape, -np.inf, np.float32) for _ in range(depth)]
    carry, spare = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for view in views:
        missing = np.isnan(view)
        gaps = missing.any()
        for ranks, inner, outer, nothing in (
            (least, np.minimum, np.maximum, np.inf),
            (greatest, np.maximum, np.minimum, -np.inf),
        ):
            np.copyto(carry, view)
            if gaps:
                carry[missing] = nothing
            for rank in ranks[:-1]:
                outer(rank, carry, out=spare)
                inner(rank, carry, out=rank)
                carry, spare = spare, carry
            inner(ranks[-1], carry, out=ranks[-1])
    low, high = least[-1], greatest[-1]
    low[low == np.inf] = np.nan
    high[high == -np.inf] = np.nan
    return low, high
