"""Floor 1. How far the pixels of a dark or bias stand out of their background.

In a frame without a picture a bad pixel need not stand out of its neighbours: two hot ones that touch hide each other
from any rule that asks for the greatest of eight, and so do clusters and hot columns. The background of such a frame
is smooth, so the median of a block of the pixel's own tile position tells it, and the block's own spread what noise
and the glow of an amplifier do to it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .cfa import Cfa, Offset
from .mosaic import Array, Float32

#: Rows and columns of a block, in pixels of one tile position.
SIDE = 16
#: Deviation in sigma at which standing out is no evidence either way (real darks are full of warm pixels: up to
#: there the comparison with the neighbours decides), and the greatest evidence, nats.
EVEN, MOST = 8.0, 12.0
#: From a median absolute deviation to a standard deviation.
_SIGMA = 1.4826


def evidence(samples: Float32, cfa: Cfa, noise: Mapping[Offset, float]) -> Float32:
    """Evidence of bad against good: a nat for each sigma beyond `EVEN`, up to `MOST`.

    Parameters
    ----------
    samples : (H, W) float32 array, DN above any level; NaN where there is no value
    cfa : Cfa
    noise : mapping of tile position to float, DN
        The least standard deviation that a block is believed to have.

    Returns
    -------
    (H, W) float32 array, nats; -MOST at least, and where there is no value
    """
    out = np.full(samples.shape, -MOST, np.float32)
    (rows, cols), period = samples.shape, cfa.period
    for r, c in cfa.positions:
        plane = samples[r :: period[0], c :: period[1]]
        if plane.size and r < rows and c < cols:
            z = _deviations(plane, noise[r, c])
            out[r :: period[0], c :: period[1]] = np.clip(np.nan_to_num(z, nan=0.0) - EVEN, -MOST, MOST)
    return out


def _deviations(plane: Array, least: float) -> Array:
    """(h, w) distances from the median of the own block, in its sigma; NaN where there is no value."""
    height, width = plane.shape
    side = [min(SIDE, n) for n in plane.shape]
    wide = np.pad(plane, [(0, -n % s) for n, s in zip(plane.shape, side, strict=True)], mode="symmetric")
    known = np.isfinite(wide)
    if not known.all():
        wide = np.where(known, wide, np.median(wide[known]) if known.any() else np.float32(0))
    blocks = wide.reshape(wide.shape[0] // side[0], side[0], -1, side[1])
    off = np.abs(blocks - np.median(blocks, axis=(1, 3), keepdims=True))
    off /= np.maximum(_SIGMA * np.median(off, axis=(1, 3), keepdims=True), np.float32(max(least, 1e-30)))
    z = off.reshape(wide.shape)
    z[~known] = np.nan
    return z[:height, :width]
