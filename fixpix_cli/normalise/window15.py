"""Floor 1. What the nets of the FixPix paper's table 2 see: a 15 x 15 window around a cluster of 5 x 5 bad pixels.

For comparison only: no command uses them. The unit is the mean absolute deviation of the window's 200 good samples
from their mean, since the paper's constant of one camera fits no other camera. Windows of a Bayer pattern begin with
red.
"""

from __future__ import annotations

import numpy as np

from ..mosaic import Array

NORMALISATION = "window15-1"
WINDOW, HOLE = 15, 5
#: The cluster's rows and columns in the window.
MIDDLE = slice(5, 10)


def encode(windows: Array) -> tuple[Array, Array, Array]:
    """Windows as net input.

    Parameters
    ----------
    windows : (N, 15, 15) array, DN
        What their middles hold is never looked at.

    Returns
    -------
    given : (N, 1, 15, 15) float32 array, units
        Zeros in the middle.
    level, unit : (N, 1) float64 arrays, DN
        The unit of a flat window is 1 DN.
    """
    seen = np.ones((WINDOW, WINDOW), bool)
    seen[MIDDLE, MIDDLE] = False
    good = windows[:, seen].astype(np.float64)
    level = good.mean(axis=1, keepdims=True)
    unit = np.abs(good - level).mean(axis=1, keepdims=True)
    unit[unit == 0] = 1
    given = np.zeros((len(windows), 1, WINDOW, WINDOW), np.float32)
    given[:, 0, seen] = (good - level) / unit
    return given, level, unit
