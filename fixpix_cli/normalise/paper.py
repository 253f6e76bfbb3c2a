"""Floor 1. What the FixPix paper's own MLP sees (section 4; Figure 3): the reference row of our tables.

The 24 neighbours of a 5 x 5 window, all colours, as stored: bad ones among them hold what they hold, and nothing
tells the net which. Values are divided by the white level, black included. No CFA phase, no mask, no statistics of
the frame.
"""

from __future__ import annotations

import numpy as np

from ..mosaic import Array, Float32, Mosaic
from ..tiles import windows

#: Version of this input contract.
NORMALISATION = "paper-1"
RADIUS = 2
#: Length of one net input.
NEIGHBOURS = (2 * RADIUS + 1) ** 2 - 1


def encode(mosaic: Mosaic, rows: Array, cols: Array) -> Float32:
    """(N, NEIGHBOURS) float32 stored values over white, row by row without the centre.

    Parameters
    ----------
    mosaic : Mosaic
        Without masked borders and without NaN. Beyond the frame its nearest pixel is repeated.
    rows, cols : (N,) integer arrays
    """
    values, _ = windows(mosaic.samples, np.broadcast_to(True, mosaic.shape), rows, cols, RADIUS)
    flat = values.reshape(len(rows), -1).astype(np.float32) / np.float32(mosaic.white)
    return np.delete(flat, NEIGHBOURS // 2, axis=1)


def decode(mosaic: Mosaic, answer: Array) -> Array:
    """(N,) float64 values in DN from the net's answers, (N,) float32 in units of white."""
    return answer.astype(np.float64) * mosaic.white
