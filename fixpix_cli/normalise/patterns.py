"""What the unets see around a pixel where its colour is no grid: X-Trans and Quad-Bayer.

The neighbours of a pixel's own tile position are four and six pixels away there, those of its own colour mostly one or
two. So the features of `features`, `second` and `modes` are made from the nearest 8, 24 and 48 of the same colour. To
a net they are of one kind: trained on mono and Bayer alone, `unet-dense` found .979 of 40 % damage in X-Trans by them
(precision .965), where the rules found .26.

Rectangles come with a margin in which all neighbours lie (`reach`); what is answered is without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from ..cfa import Cfa, Offset
from ..mosaic import Array, Bool, Float32
from ..planes import Band, bands


@cache
def reach(cfa: Cfa, count: int) -> int:
    """How far the nearest `count` pixels of the same colour are at most, in rows or columns."""
    return max(max(abs(r), abs(c)) for p in cfa.positions for r, c in cfa.nearest(*p, count))


def extremes(samples: Float32, cfa: Cfa) -> tuple[Float32, Float32, Float32]:
    """Mean without the extremes, greatest and least of the nearest 8.

    Parameters
    ----------
    samples : (h + 2 reach, w + 2 reach) float32 array, DN; no NaN
    cfa : Cfa
        As seen from the first of them.

    Returns
    -------
    three (h, w) float32 arrays
    """
    out = np.empty((3, *samples.shape), np.float32)
    for band, position, (near,) in _walk(cfa, 8, samples):
        greatest, least = np.maximum.reduce(near[1:]), np.minimum.reduce(near[1:])
        mean = np.add.reduce(near[1:])
        mean -= greatest
        mean -= least
        mean /= np.float32(6)
        for place, values in zip(out, (mean, greatest, least), strict=True):
            band.put(place, position, values)
    return tuple(_inner(out, reach(cfa, 8)))


def trusted(samples: Float32, ok: Bool, cfa: Cfa) -> tuple[Float32, ...]:
    """Of the trusted ones: the mean of the nearest 8; mean, count, greatest and least of the nearest 24.

    Parameters as in `extremes`, with `ok` of the same shape and the reach of 24.

    Returns
    -------
    five (h, w) float32 arrays; NaN or an infinity where none is trusted
    """
    out = np.empty((5, *samples.shape), np.float32)
    known_only, low, high = (np.where(ok, samples, np.float32(nothing)) for nothing in (0, np.inf, -np.inf))
    for band, position, (values, known, least, most) in _walk(cfa, 24, known_only, ok, low, high):
        total, count = np.add.reduce(values[1:9]), np.add.reduce(known[1:9])
        with np.errstate(invalid="ignore", divide="ignore"):
            band.put(out[0], position, total / count)
            total += np.add.reduce(values[9:])
            count += np.add.reduce(known[9:])
            band.put(out[1], position, total / count)
        band.put(out[2], position, count)
        band.put(out[3], position, np.maximum.reduce(most[1:]))
        band.put(out[4], position, np.minimum.reduce(least[1:]))
    return tuple(_inner(out, reach(cfa, 24)))


def unlike(samples: Float32, cfa: Cfa) -> tuple[Float32, Float32]:
    """The distance to the second most alike of the nearest 8 and to the fourth most alike of 24; as `extremes`."""
    out = np.empty((2, *samples.shape), np.float32)
    for band, position, (near,) in _walk(cfa, 24, samples):
        apart = np.abs(np.stack(near[1:]) - near[0])
        band.put(out[0], position, np.partition(apart[:8], 1, axis=0)[1])
        band.put(out[1], position, np.partition(apart, 3, axis=0)[3])
    return tuple(_inner(out, reach(cfa, 24)))


def agreeing(values: Array, cfa: Cfa, count: int, tolerances: Sequence[int]) -> list[Array]:
    """How many of the nearest `count` are within each tolerance of the pixel; as `extremes`, with the reach of them."""
    out = np.empty((len(tolerances), *values.shape), np.uint8)
    for band, position, (near,) in _walk(cfa, count, values):
        totals = [np.zeros(near[0].shape, np.uint8) for _ in tolerances]
        for other in near[1:]:
            apart = np.abs(other - near[0])
            for total, tolerance in zip(totals, tolerances, strict=True):
                total += apart <= tolerance
        for place, total in zip(out, totals, strict=True):
            band.put(place, position, total)
    return list(_inner(out, reach(cfa, count)))


def greatest(keys: Array, cfa: Cfa, count: int) -> Array:
    """The greatest of each pixel and its nearest `count`, of whole numbers below 2^24; as `extremes`."""
    out = np.empty_like(keys)
    for band, position, (near,) in _walk(cfa, count, keys):
        band.put(out, position, np.maximum.reduce(near))
    return _inner(out, reach(cfa, count))


def _walk(cfa: Cfa, count: int, *arrays: Array) -> Iterator[tuple[Band, Offset, list[list[Float32]]]]:
    """Band by band and tile position by tile position: of each array the pixels and then their nearest `count`."""
    radius = reach(cfa, count)
    for parts in zip(*(bands(array, cfa, radius) for array in arrays), strict=True):
        for position in cfa.positions:
            if min(parts[0].size(position)):
                offsets = ((0, 0), *cfa.nearest(*position, count))
                yield parts[0], position, [[part.view(position, offset) for offset in offsets] for part in parts]


def _inner(array: Array, edge: int) -> Array:
    return array[..., edge:-edge, edge:-edge]
