"""Floor 1. Where suspects stand so close together that they hide each other: clusters and lines.

Some of a crowd must be too dark: what is only too bright may be a star or its bleeding, and a look that forgets its
core takes it apart (of fields of stars 1.5 pixels wide a second look took 30 to 60 pixels a frame).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .mosaic import Array, Bool, Mosaic
from .repair import by_position, masked_median
from .tiles import neighbours

#: Of crowds: rows and columns of a block; the greatest probability that so many suspects stand in 3 x 3 blocks by
#: chance; blocks around them that belong to the crowd. Chosen on the validation cameras, as is `LEAST`.
_SQUARES = ((2, 1e-3, 2), (4, 1e-4, 3))
#: The least share of a crowd that is darker than its surroundings.
_DARK_SHARE = 0.2
#: The least suspects in 3 x 3 of the smaller and of the greater blocks.
LEAST = (3, 4)


def below_surroundings(light: Mosaic, pixels: Array) -> Bool:
    """(N,) bool: which pixels (row * W + column) are darker than the median of the 16 nearest of their colour."""
    rows, cols = np.divmod(pixels, light.shape[1])
    below = np.zeros(len(pixels), bool)
    good = None if light.is_integer else np.isfinite(light.samples)
    for position, index in by_position(light, rows, cols):
        offsets = np.array(light.cfa.nearest(*position, 16))
        v, ok = neighbours(light.samples, good, rows[index], cols[index], offsets)
        middle = np.nan_to_num(masked_median(v.astype(np.float64), ok))
        below[index] = light.samples[rows[index], cols[index]] < middle
    return below


def crowds(
    shape: tuple[int, int], suspects: Array, below: Bool, rate: float, fewest: tuple[int, int] = LEAST
) -> Bool | None:
    """In squares of 6 x 6 and of 12 x 12 pixels (of 3 x 3 blocks), more suspects than the frame's rate explains.

    Parameters
    ----------
    shape : (H, W)
    suspects : (N,) integer array
        Row * W + column.
    below : (N,) bool array
        Which of them are darker than their surroundings.
    rate : float
        The frame's damage rate.
    fewest : (int, int)
        The least suspects in each of the squares.

    Returns
    -------
    (H, W) bool array, with what is near the crowds, or None where there is no crowd
    """
    found = None
    for side, crowded, reach in _crowded(shape, suspects, below, rate, fewest):
        wide = spread(crowded, reach, np.logical_or)
        whole = wide.repeat(side, axis=0).repeat(side, axis=1)[: shape[0], : shape[1]]
        found = whole if found is None else found | whole
    return found


def crowded_pixels(
    shape: tuple[int, int], suspects: Array, below: Bool, rate: float, fewest: tuple[int, int] = LEAST
) -> Array:
    """The same as pixels, row * W + column, ascending: for a large frame with few crowds."""
    (height, width), parts = shape, [np.zeros(0, np.int64)]
    for side, crowded, reach in _crowded(shape, suspects, below, rate, fewest):
        first, last = -reach * side, (reach + 1) * side
        square = np.arange(first, last)
        rows, cols = (side * a[:, None, None] for a in np.nonzero(crowded))
        rows, cols = np.broadcast_arrays(rows + square[:, None], cols + square)
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        parts.append(np.unique(rows[inside] * width + cols[inside]))
    return np.unique(np.concatenate(parts))


def _crowded(
    shape: tuple[int, int], suspects: Array, below: Bool, rate: float, fewest: tuple[int, int]
) -> Iterator[tuple[int, Bool, int]]:
    """Side of the blocks, which of them are the middle of a crowd, and how far around them it reaches."""
    for (side, chance, reach), least in zip(_SQUARES, fewest, strict=True):
        count = spread(_counted(shape, suspects, side), 1, np.add)
        crowded = count >= max(least, _beyond_chance(9 * side * side * rate, chance))
        if not crowded.any():
            continue
        places = np.nonzero(crowded)
        dark = spread(_counted(shape, suspects[below], side), 1, np.add)[places]
        crowded[places] = dark >= np.maximum(1, _DARK_SHARE * count[places])
        if crowded.any():
            yield side, crowded, reach


def _counted(shape: tuple[int, int], pixels: Array, side: int) -> Array:
    """(h, w) uint8: how many of some pixels lie in each block of side x side."""
    height, width = (-(-n // side) for n in shape)
    rows, cols = np.divmod(pixels, shape[1])
    blocks, counts = np.unique(rows // side * width + cols // side, return_counts=True)
    out = np.zeros((height, width), np.uint8)
    out.reshape(-1)[blocks] = counts
    return out


def _beyond_chance(mean: float, chance: float) -> int:
    """The least count that a Poisson variable of this mean reaches with at most this probability."""
    count, term, tail = 0, math.exp(-mean), 1.0
    while tail > chance:
        tail -= term
        count += 1
        term *= mean / count
    return count


def spread(blocks: Array, reach: int, join: np.ufunc) -> Array:
    """Every block joined with those up to `reach` rows and columns away."""
    whole = blocks.copy()
    for step in range(1, reach + 1):
        join(whole[step:], blocks[:-step], out=whole[step:])
        join(whole[:-step], blocks[step:], out=whole[:-step])
    rows, whole = whole, whole.copy()
    for step in range(1, reach + 1):
        join(whole[:, step:], rows[:, :-step], out=whole[:, step:])
        join(whole[:, :-step], rows[:, step:], out=whole[:, :-step])
    return whole
