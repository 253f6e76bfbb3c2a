"""Floor 1. Stars in a single frame: light that a pixel shares with its neighbours.

Optics spread a point of light over neighbouring pixels of all colours; a hot pixel stands alone. Looking at its own
colour only, a sharp star on a Bayer sensor is a hot pixel like any other. Not for crowded frames, where damage stands
beside damage.
"""

from __future__ import annotations

import numpy as np

from .cfa import Offset
from .levels import Statistics
from .mosaic import Array, Bool, Mosaic
from .repair import by_position, masked_median
from .tiles import neighbours

#: A bright pixel is part of a star if at least so many of its eight direct neighbours, of whatever colour, stand
#: out of their own colour's surroundings by at least this share of the pixel's excess and by so many sigma, and the
#: four beside it, above it and below it by this share on average. Without the last, the texture around bad pixels and
#: other bad pixels made stars of half a percent of them in photographs; stars 1.5 pixels wide and wider all have it.
_NEIGHBOURS, _SHARE, _SIGMA, _BESIDE_SHARE = 2, 0.15, 4.0, 0.1
_BESIDE = tuple((r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c)


def share_their_light(light: Mosaic, seen: Statistics, pixels: Array, own: Array | None = None) -> Bool:
    """Which of some pixels are parts of stars.

    Parameters
    ----------
    light : Mosaic
        Without masked borders; floats as `levels.comparable` makes them.
    seen : Statistics
    pixels : (N,) integer array
        Row * W + column.
    own : (N,) array, optional
        What they hold themselves, where `light` holds something else there.

    Returns
    -------
    (N,) bool array
    """
    samples, (pr, pc) = light.samples, light.cfa.period
    good = None if light.is_integer else np.isfinite(samples)
    rows, cols = np.divmod(pixels, light.shape[1])
    out = np.zeros(len(pixels), bool)
    for position, index in by_position(light, rows, cols):
        if not index.size:
            continue
        r, c = rows[index], cols[index]
        excess = (samples[r, c] if own is None else own[index]) - _surroundings(light, good, r, c, position)
        sharing, beside, count = np.zeros(len(index), int), np.zeros(len(index)), np.zeros(len(index), int)
        for dr, dc in _BESIDE:
            place = (position[0] + dr) % pr, (position[1] + dc) % pc
            nr, nc = r + dr, c + dc
            inside = (nr >= 0) & (nr < light.shape[0]) & (nc >= 0) & (nc < light.shape[1])
            nr, nc = np.where(inside, nr, r), np.where(inside, nc, c)
            around = _surroundings(light, good, nr, nc, place)
            sigma = seen.sigma(around - light.black_at(nr, nc) - seen.floor[place], place)
            light_there = samples[nr, nc] - around
            sharing += inside & (light_there > np.maximum(_SHARE * excess, _SIGMA * sigma))
            if not (dr and dc):
                beside += np.where(inside, light_there, 0.0)
                count += inside
        out[index] = (excess > 0) & (sharing >= _NEIGHBOURS) & (beside > _BESIDE_SHARE * excess * count)
    return out


def _surroundings(light: Mosaic, good: Bool | None, rows: Array, cols: Array, position: Offset) -> Array:
    """(N,) float64 medians of the 16 nearest same-colour pixels, DN as stored."""
    offsets = np.array(light.cfa.nearest(*position, 16))
    v, ok = neighbours(light.samples, good, rows, cols, offsets)
    return np.nan_to_num(masked_median(v.astype(np.float64), ok))
