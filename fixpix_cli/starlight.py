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
share their light in this way, the brightest among them. In a bad cluster of 3 x 2 it is a third, and more
are more than the sharp peak that a detector takes from a star. Dark ones are no light: where one touches them, all of
the bright ones must share.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .kinds import background
from .mosaic import Bool
from .shapes import components
from .suspects import QUARTERS, VARIANCE

#: Share of a star's light that its second least direct neighbour has, and by how many sigma of the mean it shows.
_SHARE, _SIGMA = 0.08, 2.5
#: Defects from which the sky's level is known; the greatest spread of it, and the least light above it, in sigma.
_FEWEST, _CALM, _LIT = 10, 8.0, 10.0
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
    index, bright = np.flatnonzero(chosen), (entries["level"] > 0)[chosen]
    rows, cols = np.divmod(entries["pixel"][index], shape[1])
    _, group, size = np.unique(components(rows, cols, shape[1]), return_inverse=True, return_counts=True)
    sharing, shining = (np.bincount(group, which) for which in (shared[index], bright))
    level = (entries["level"] / np.maximum(entries["measured"], 1))[index]
    peaks = np.full(len(size), -np.inf)
    np.maximum.at(peaks, group, level)
    lit = np.bincount(group, shared[index] & (level == peaks[group])) > 0
    enough = np.where(shining < size, sharing == shining, 2 * sharing >= size)
    stars = np.zeros(len(entries), bool)
    stars[index] = (lit & enough & (size <= LARGEST))[group] & bright
    return stars


def _shared(entries: Any) -> Bool:
    """(N,) bool: bright entries whose neighbours have a part of their excess."""
    times = np.maximum(entries["measured"], 1)
    beside = entries["beside"] / (QUARTERS * times)
    sigma = np.sqrt(np.maximum(entries["noise"] / VARIANCE, 0)) / times  # of the mean over the frames
    bright = (entries["measured"] > 0) & (entries["level"] > 0)
    shared: Bool = bright & (entries["beside"] > _SHARE * entries["level"]) & (beside > _SIGMA * sigma)
    return shared


def on_light(entries: Any, chosen: Bool, shape: tuple[int, int]) -> Bool:
    """(N,) bool: which suspects of a calm sky lie on the light of something brighter.

    The surroundings of the chosen defects, which lie anywhere, tell the sky's level; where they differ much, the scene
    is no sky, and nothing is said. What single frames suspect on such light, and the frames together do not, is no
    more than the light: tips of saturated stars, and what trails.

    Parameters
    ----------
    entries : (N,) structured array of `suspects.DTYPE`
    chosen : (N,) bool array
        The defects.
    shape : (H, W)
    """
    lit = np.zeros(len(entries), bool)
    around, known = background(entries), entries["measured"] > 0
    rows, cols = np.divmod(entries["pixel"], shape[1])
    for colour in range(4):  # the places of a Bayer tile, whose filters let different shares of the sky pass
        mine = known & (2 * (rows % 2) + cols % 2 == colour)
        steady = mine & chosen & (entries["level"] > 0)
        if np.count_nonzero(steady) < _FEWEST:
            continue
        low, half, high = np.quantile(around[steady], (0.25, 0.5, 0.75))
        sigma = np.sqrt(np.median(entries["noise"][steady] / entries["measured"][steady]) / VARIANCE)
        if high - low <= _CALM * sigma:
            lit |= mine & (around > half + _LIT * sigma + (high - low))
    return lit
