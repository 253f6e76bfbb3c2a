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

import numpy as np

from .cfa import Cfa, Offset
from .mosaic import Array, Float32

#: Padded samples of a band, in pixels; about 1 MB of float32.
BAND_PIXELS = 1 << 18


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

    def put(self, out: Array, position: Offset, values: Array) -> None:
        """Write the (h, w) values of a tile position to their places in the (H, W) array `out`."""
        (pr, pc), (r, c) = self.cfa.period, position
        out[self.top + r : self.top + self.rows : pr, c::pc] = values


def bands(samples: Array, cfa: Cfa, radius: int) -> Iterator[Band]:
    """Walk a frame in bands.

    Parameters
    ----------
    samples : (H, W) array, DN
    cfa : Cfa
    radius : int
        The greatest offset that will be asked for, in pixels.
    """
    height, width = samples.shape
    pr, pc = cfa.period
    margin = (-(-radius // pr) * pr, -(-radius // pc) * pc)
    cols = same_phase(-margin[1], -(-width // pc) * pc + margin[1], width, pc)
    step = max(pr, BAND_PIXELS // (len(cols)) // pr * pr)
    for top in range(0, height, step):
        rows = min(step, height - top)
        index = same_phase(top - margin[0], top + -(-rows // pr) * pr + margin[0], height, pr)
        padded = samples[index][:, cols].astype(np.float32)
        planes = {(r, c): np.ascontiguousarray(padded[r::pr, c::pc]) for r, c in cfa.positions}
        yield Band(top, rows, width, cfa, margin, planes)


def same_phase(start: int, stop: int, size: int, period: int) -> Array:
    """Indices start..stop with those outside [0, size) moved inside, to one of the same phase.

    The planes of mono and Bayer are mirrored at their outermost pixel: repeating it would make a pixel at the
    edge its own neighbour, and a hot one could then never stand out. Longer periods repeat the nearest pixel.
    """
    index = np.arange(start, stop)
    if size < period:
        return np.clip(index, 0, size - 1)
    phase, step = index % period, index // period
    last = (size - 1 - phase) // period
    if period <= 2:
        step = np.abs(step)
        step = last - np.abs(last - step)
    return phase + np.clip(step, 0, last) * period


def extremes(views: Sequence[Float32]) -> tuple[Float32, Float32]:
    """Least and greatest of some (h, w) views, pixel by pixel; NaN counts for nothing."""
    low, high = views[0].copy(), views[0].copy()
    for view in views[1:]:
        np.fmin(low, view, out=low)
        np.fmax(high, view, out=high)
    return low, high


def ranked(views: Sequence[Float32], depth: int) -> tuple[list[Float32], list[Float32]]:
    """The `depth` least and the `depth` greatest of some (h, w) views, pixel by pixel.

    NaN counts for nothing; where fewer than `depth` values are left, the ranks
    beyond them are +inf and -inf.

    Returns
    -------
    least : list of (h, w) float32
        Ascending: ``least[0]`` is the minimum.
    greatest : list of (h, w) float32
        Descending: ``greatest[0]`` is the maximum.
    """
    shape = views[0].shape
    least = [np.full(shape, np.inf, np.float32) for _ in range(depth)]
    greatest = [np.full(shape, -np.inf, np.float32) for _ in range(depth)]
    spare = np.empty(shape, np.float32)
    for view in views:
        missing = np.isnan(view)
        carry_low, carry_high = np.where(missing, np.inf, view), np.where(missing, -np.inf, view)
        for rank in range(depth):
            np.maximum(least[rank], carry_low, out=spare)
            np.minimum(least[rank], carry_low, out=least[rank])
            carry_low, spare = spare, carry_low
            np.minimum(greatest[rank], carry_high, out=spare)
            np.maximum(greatest[rank], carry_high, out=greatest[rank])
            carry_high, spare = spare, carry_high
    return least, greatest
