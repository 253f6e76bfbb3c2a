"""Floor 1. Cutting frames into tiles with a halo, and windows around single pixels.

Both work for any frame from 1 x 1 up. What lies outside the frame is told
apart (`good` is False there), never invented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .mosaic import Area, Array, Bool

T = TypeVar("T")


def each(work: Callable[[T], object], items: Iterable[T], threads: int = 1) -> None:
    """Call `work` with every item, in several threads where that is asked for; the first error is raised.

    NumPy and onnxruntime let other threads run while they compute. Each call must write to places of its own: then
    the result does not depend on how many threads there are.
    """
    if threads <= 1:
        for item in items:
            work(item)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):
            pass


#: Values of a block: a few arrays of so many fit into the second cache.
BLOCK = 1 << 16


def blocks(array: Array) -> Iterator[Array]:
    """Flat pieces of a contiguous array, one after the other; views, where the array is contiguous."""
    flat = array.reshape(-1)
    return (flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK))


@dataclass(frozen=True)
class Tile:
    """One tile: `outer` is what is read (core and halo), `inner` the core within it, `core` in the frame."""

    outer: tuple[slice, slice]
    inner: tuple[slice, slice]
    core: tuple[slice, slice]

    @property
    def area(self) -> Area:
        """What is read, as a part of a mosaic."""
        rows, cols = self.outer
        return Area(rows.start, cols.start, rows.stop, cols.stop)


def tiles(shape: tuple[int, int], size: int, halo: int, multiple: int = 1) -> Iterator[Tile]:
    """Cover an array with tiles whose cores neither overlap nor leave a gap.

    Parameters
    ----------
    shape : (H, W)
    size : int
        Rows and columns of a core, rounded up to `multiple`.
    halo : int
        Extra rows and columns on each side, rounded up to `multiple` so that
        the CFA phase of every tile is that of the frame; cut at the frame's edge.
    multiple : int
        Cores and halos start at multiples of this (the CFA period or the net's stride).
    """
    size = max(multiple, -(-size // multiple) * multiple)
    halo = -(-halo // multiple) * multiple
    height, width = shape
    for top in range(0, height, size):
        for left in range(0, width, size):
            bottom, right = min(top + size, height), min(left + size, width)
            outer_top, outer_left = max(0, top - halo), max(0, left - halo)
            outer = (slice(outer_top, min(height, bottom + halo)), slice(outer_left, min(width, right + halo)))
            inner = (
                slice(top - outer_top, bottom - outer_top),
                slice(left - outer_left, right - outer_left),
            )
            yield Tile(outer, inner, (slice(top, bottom), slice(left, right)))


def marked(mask: Bool) -> Array:
    """`np.flatnonzero` of a C-contiguous mask with few pixels set: it looks at eight at a time."""
    flat = mask.reshape(-1)
    whole = len(flat) // 8 * 8
    words = np.flatnonzero(flat[:whole].view(np.uint64) != 0)
    if len(words) > whole // 64:
        return np.flatnonzero(flat)
    near = (words[:, None] * 8 + np.arange(8)).reshape(-1)
    near = np.concatenate([near, np.arange(whole, len(flat))])
    return near[flat[near]]


def windows(samples: Array, good: Bool | None, rows: Array, cols: Array, radius: int) -> tuple[Array, Bool]:
    """The square windows around some pixels.

    Parameters
    ----------
    samples : (H, W) array, DN
    good : (H, W) bool array or None
        False for pixels that must not be used; None: all may be.
    rows, cols : (N,) integer arrays
        The centres.
    radius : int
        The windows have 2 * radius + 1 rows and columns.

    Returns
    -------
    values : (N, n, n) array of the dtype of `samples`, DN
        Outside the frame the nearest pixel of the frame is repeated.
    usable : (N, n, n) bool array
        False outside the frame and where `good` is False.
    """
    height, width = samples.shape
    span = np.arange(-radius, radius + 1)
    r = rows[:, None, None] + span[None, :, None]
    c = cols[:, None, None] + span[None, None, :]
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    flat = np.clip(r, 0, height - 1) * width + np.clip(c, 0, width - 1)
    return samples.reshape(-1)[flat], inside if good is None else good.reshape(-1)[flat] & inside


def whole_windows(samples: Array, rows: Array, cols: Array, radius: int) -> Array:
    """The square windows around some pixels, none of which may reach beyond the frame.

    Parameters
    ----------
    samples : (H, W) C-contiguous array, DN
    rows, cols : (N,) integer arrays
        The centres, at least `radius` from every edge.
    radius : int
        The windows have n = 2 * radius + 1 rows and columns.

    Returns
    -------
    (N, n * n) array of the dtype of `samples`, DN
        Row by row. A row of a window is copied as one piece, three times as fast as pixel by pixel.
    """
    n, size, width = 2 * radius + 1, samples.itemsize, samples.shape[1]
    pieces = np.ndarray((samples.size - n + 1,), f"V{n * size}", samples, strides=(size,))
    first = (rows - radius) * width + cols - radius
    return pieces[first[:, None] + np.arange(n) * width].view(samples.dtype).reshape(len(rows), n * n)


def neighbours(samples: Array, good: Bool | None, rows: Array, cols: Array, offsets: Array) -> tuple[Array, Bool]:
    """The pixels at `offsets` from each of some pixels.

    Parameters
    ----------
    samples, good, rows, cols
        As in `windows`.
    offsets : (K, 2) integer array
        (drow, dcol) pairs.

    Returns
    -------
    values : (N, K) array, DN
    usable : (N, K) bool array
        False outside the frame and where `good` is False.
    """
    height, width = samples.shape
    r = rows[:, None] + offsets[None, :, 0]
    c = cols[:, None] + offsets[None, :, 1]
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    flat = np.where(inside, r * width + c, 0)
    return samples.reshape(-1)[flat], inside if good is None else good.reshape(-1)[flat] & inside
