"""What the spot detector sees of a candidate: the window around it, against what its neighbours make of each colour.

The 13 x 13 samples of the window are ordered by colour: the candidate, the others of its colour (nearest first), then
those of the second and of the third colour. Each becomes::

    u / (4 + |u|),   u = (sample - reference of its colour) / sigma there

the reference being the mean, without the least and the greatest, of that colour's nearest neighbours of the candidate
(its own colour: the 8 nearest; others: the 4 nearest, and those equally near). Eight numbers more say what the division
took away: level, the candidate against its reference, signal to noise of the three colours, whether it is at white or
at black, and how coarse the steps of integers are.

Positions of a CFA that are alike but for a turn, a reflection or the names of the other colours are one pattern: mono
has one, Bayer two (green; red and blue), X-Trans and Quad-Bayer a few each. The window is turned to the pattern's own
orientation, and the net has weights for each pattern.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..cfa import MONO, QUAD_RGGB, RGGB, XTRANS, Cfa, Offset
from ..levels import Statistics
from ..mosaic import Array, Float32, Mosaic
from ..planes import same_phase
from ..tiles import whole_windows

#: Name and version of this input contract.
NORMALISATION = "spots-1"
RADIUS = 6
#: Samples of a window, numbers beside them, and both.
WINDOW, BESIDE = (2 * RADIUS + 1) ** 2, 8
LENGTH = WINDOW + BESIDE
#: Least neighbours that make a reference: of the own colour, of another.
_OWN, _OTHER = 8, 4
#: Candidates that are encoded at once: their windows fit into the second cache.
CHUNK = 512


@dataclass(frozen=True, eq=False)
class View:
    """How the window around a tile position is read.

    Parameters
    ----------
    pattern : int
        Which weights; see `patterns`.
    offsets : (WINDOW, 2) int array
        Rows and columns from the candidate, in the order of the features.
    places : (WINDOW,) int array
        The same as places in the window, row by row.
    groups : up to three (start, stop) ranges of the features, one for each colour
    near : how many at the start of each group make its reference
    """

    pattern: int
    offsets: Array
    places: Array
    groups: tuple[tuple[int, int], ...]
    near: tuple[int, ...]


@cache
def views(cfa: Cfa) -> dict[Offset, View] | None:
    """The view of each tile position; None for a CFA with a pattern that no net was trained on."""
    found = {}
    for position in cfa.positions:
        drawn = _drawn(cfa, position)
        best = min(range(len(drawn)), key=lambda number: drawn[number][0])
        pattern, offsets = drawn[best]
        if pattern not in patterns():
            return None
        offsets = offsets[_order(pattern)]
        places = (offsets[:, 0] + RADIUS) * (2 * RADIUS + 1) + offsets[:, 1] + RADIUS
        found[position] = View(patterns()[pattern], offsets, places, *_groups(pattern))
    return found


@cache
def patterns() -> dict[str, int]:
    """Number of each pattern: the colours of the window, row by row, 0 being the candidate's own."""
    known: dict[str, int] = {}
    for cfa in (MONO, RGGB, XTRANS, QUAD_RGGB):
        for position in cfa.positions:
            known.setdefault(min(pattern for pattern, _ in _drawn(cfa, position)), len(known))
    return known


def _drawn(cfa: Cfa, position: Offset) -> list[tuple[str, Array]]:
    """The window around a position in its eight orientations and both orders of the other colours, with its offsets."""
    span, (pr, pc) = np.arange(-RADIUS, RADIUS + 1), cfa.period
    grid = np.stack(np.meshgrid(span, span, indexing="ij"), axis=-1)
    colours = sorted(cfa.colours, key=lambda colour: colour != cfa.colour(*position))  # its own is the first
    table = np.array([[colours.index(cfa.colour(r, c)) for c in range(pc)] for r in range(pr)])
    names = [
        np.array([ord("0"), *(ord("1") + n for n in order)], np.uint8)
        for order in itertools.permutations(range(len(colours) - 1))
    ]
    found = []
    for turns, mirrored in itertools.product(range(4), (False, True)):
        offsets = np.rot90(grid, turns)
        offsets = (offsets[:, ::-1] if mirrored else offsets).reshape(-1, 2)
        seen = table[(position[0] + offsets[:, 0]) % pr, (position[1] + offsets[:, 1]) % pc]
        found += [(name[seen].tobytes().decode(), offsets) for name in names]
    return found


def _distances() -> Array:
    span = np.arange(-RADIUS, RADIUS + 1)
    return (span[:, None] ** 2 + span[None, :] ** 2).reshape(-1)


def _order(pattern: str) -> Array:
    """The window's samples in the order of the features: by colour, nearest first."""
    colours = np.array(list(pattern))
    return np.lexsort((np.arange(WINDOW), _distances(), colours))


def _groups(pattern: str) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    colours, distances = np.array(list(pattern)), _distances()
    groups, near, start = [], [], 0
    for colour in sorted(set(pattern)):
        mine = np.sort(distances[colours == colour])
        first = int(colour == "0")  # the candidate itself is no neighbour
        limit = mine[first + (_OWN if first else _OTHER) - 1]
        groups.append((start + first, start + len(mine)))
        near.append(int(np.count_nonzero(mine <= limit)) - first)
        start += len(mine)
    return tuple(groups), tuple(near)


def encode(
    light: Mosaic, seen: Statistics, pixels: Array, own: Array | None = None
) -> Iterator[tuple[int, Array, Float32]]:
    """The features of some pixels, in parts of one pattern each.

    Parameters
    ----------
    light : Mosaic
        Without masked borders; floats as `levels.comparable` makes them.
    seen : Statistics
    pixels : (N,) integer array, row * W + column
    own : (N,) array, optional
        What they hold themselves, where `light` holds something else there.

    Yields
    ------
    pattern, index, features
        Number of the pattern; (n,) places in `pixels`; (LENGTH, n) float32.
    """
    looks = views(light.cfa)
    if looks is None:
        raise ValueError(f"no pattern for {light.cfa.name}")
    light = light.with_samples(np.ascontiguousarray(light.samples))
    rows, cols = np.divmod(pixels, light.shape[1])
    (height, width), (pr, pc) = light.shape, light.cfa.period
    inside = (rows >= RADIUS) & (rows < height - RADIUS) & (cols >= RADIUS) & (cols < width - RADIUS)
    number = rows % pr * pc + cols % pc
    for place, (position, view) in enumerate(looks.items()):
        floors = _floors(seen, position, view)
        for whole in (True, False):
            mine = np.flatnonzero((number == place) & (inside == whole))
            for start in range(0, len(mine), CHUNK):
                index = mine[start : start + CHUNK]
                r, c = rows[index], cols[index]
                window = _inner(light, r, c, view) if whole else _outer(light, r, c, view)
                if own is not None:
                    window[0] = own[index]
                yield view.pattern, index, _features(light, seen, r, c, position, view, window, floors)


def _floors(seen: Statistics, position: Offset, view: View) -> Float32:
    """(WINDOW, 1) floors of the window's samples, DN above black."""
    pr, pc = seen.cfa.period
    table = np.array([[seen.floor[r, c] for c in range(pc)] for r in range(pr)], np.float32)
    rows, cols = (position + view.offsets).T
    return table[rows % pr, cols % pc][:, None]


def _features(
    light: Mosaic,
    seen: Statistics,
    rows: Array,
    cols: Array,
    position: Offset,
    view: View,
    window: Array,
    floors: Float32,
) -> Float32:
    out = np.empty((LENGTH, len(rows)), np.float32)
    v, beside = out[:WINDOW], out[WINDOW:]
    v[...] = window if light.is_integer else _known(window, view)
    centre = v[0] - light.black_at(rows, cols)  # DN above black
    v -= _black(light, rows, cols, position, view.offsets) + floors
    beside[...] = 0
    for group, ((start, stop), near) in enumerate(zip(view.groups, view.near, strict=True)):
        around = v[start : start + near]
        reference = (around.sum(axis=0) - around.max(axis=0) - around.min(axis=0)) / np.float32(near - 2)
        sigma = seen.noise.sigma(reference + floors[start]).astype(np.float32)
        if group == 0:
            beside[0] = np.arcsinh(10 * reference / seen.middle[position]) / 4
            high, low = (np.maximum(a, 0) + sigma for a in (v[0], reference))
            beside[1] = np.clip(np.log(high / low) / 3, -2, 2)
            if light.is_integer:
                beside[7] = np.log(sigma) / 4
            start = 0  # the candidate against its own colour's reference
        beside[2 + group] = np.log1p(np.maximum(reference, 0) / sigma) / 4
        part = v[start:stop]
        part -= reference
        part /= sigma
    span = light.white - float(np.mean(light.black))
    beside[5] = centre >= 0.99 * span
    beside[6] = centre <= 0.001 * span
    size = np.abs(v)
    size += np.float32(4)
    v /= size
    return out


def _inner(light: Mosaic, rows: Array, cols: Array, view: View) -> Array:
    """(WINDOW, n) samples of windows that lie inside the frame."""
    return whole_windows(light.samples, rows, cols, RADIUS).T[view.places]


def _outer(light: Mosaic, rows: Array, cols: Array, view: View) -> Array:
    """(WINDOW, n) samples; what lies outside the frame mirrors it, in the same tile position."""
    down, across = (same_phase(-RADIUS, n + RADIUS, n, p) for n, p in zip(light.shape, light.cfa.period, strict=True))
    r, c = (view.offsets[:, axis, None] + (a + RADIUS) for axis, a in enumerate((rows, cols)))
    return light.samples[down[r], across[c]]


def _known(window: Array, view: View) -> Array:
    """Samples that are missing as the median of the candidate's own colour around it."""
    missing = np.isnan(window)
    if not missing.any():
        return window
    own = np.where(missing, np.nan, window)[slice(*view.groups[0])]
    gaps = np.flatnonzero(missing.any(axis=0))
    middle = np.array([np.median(o[np.isfinite(o)]) if np.isfinite(o).any() else 0.0 for o in own[:, gaps].T])
    window = window.copy()
    window[:, gaps] = np.where(missing[:, gaps], middle, window[:, gaps])
    return window


def _black(light: Mosaic, rows: Array, cols: Array, position: Offset, offsets: Array) -> Array:
    """Black levels of the window's samples, DN: one column for all, where the black level repeats with the CFA."""
    period = len(light.black), len(light.black[0])
    if all(mine % black == 0 for mine, black in zip(light.cfa.period, period, strict=True)):
        rows, cols = (np.array([at]) for at in position)
    return light.black_at(offsets[:, 0, None] + rows, offsets[:, 1, None] + cols)
