"""Floor 1. Stars that stand still: what many frames of a tracked field show of a suspect's neighbours.

A star that stays on its pixels is as constant as a hot pixel, so more frames
make nobody surer. But optics spread its light over the direct neighbours, of
whatever colour, while a hot pixel stands alone, and the mean over the frames
shows shares that one frame's noise hides. On simulated fields of 1.5 to 3
pixels FWHM, tracked and dithered, the neighbours of the stars that became
defects had 8 to 47 % of their excess, those of hot pixels (beside stars, too)
at most 6 %.

In clusters of bad pixels neighbours are bright as well. So touching suspects
are judged together: up to `LARGEST` of them are a star if at least half of them
share their light in this way. In a bad cluster of 3 x 2 it is a third, and more
are more than the sharp peak that a detector takes from a star.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .mosaic import Bool
from .shapes import components
from .suspects import QUARTERS, VARIANCE

#: Share of a star's light that its second least direct neighbour has, and by how many sigma of the mean it shows.
_SHARE, _SIGMA = 0.08, 4.0
#: Touching suspects that may be one star.
LARGEST = 6
#: Confidence from which on a suspect is asked, and counts as touching others.
SUSPICIOUS = 0.1
#: Damage rate from which on neighbours are damaged, too, and say nothing.
SPARSE = 0.03


def of_stars(entries: Any, chosen: Bool, shape: tuple[int, int]) -> Bool:
    """(N,) bool: which of the chosen entries are parts of stars.

    Parameters
    ----------
    entries : (N,) structured array of `suspects.DTYPE`
        In pixel order.
    chosen : (N,) bool array
        Those whose evidence may make them defects.
    shape : (H, W)
    """
    shared = chosen & _shared(entries)
    if not shared.any():
        return shared
    index = np.flatnonzero(chosen)
    rows, cols = np.divmod(entries["pixel"][index], shape[1])
    _, group, size = np.unique(components(rows, cols, shape[1]), return_inverse=True, return_counts=True)
    sharing = np.bincount(group, shared[index])
    stars = np.zeros(len(entries), bool)
    stars[index] = ((size <= LARGEST) & (2 * sharing >= size))[group]
    return stars


def _shared(entries: Any) -> Bool:
    """(N,) bool: bright entries whose neighbours have a part of their excess."""
    times = np.maximum(entries["measured"], 1)
    beside = entries["beside"] / (QUARTERS * times)
    sigma = np.sqrt(np.maximum(entries["noise"] / VARIANCE, 0)) / times  # of the mean over the frames
    bright = (entries["measured"] > 0) & (entries["level"] > 0)
    shared: Bool = bright & (entries["beside"] > _SHARE * entries["level"]) & (beside > _SIGMA * sigma)
    return shared
