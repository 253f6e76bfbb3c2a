"""Floor 1. The one hand that writes pixels, and the classical correctors.

A corrector answers: ``corrector(mosaic, bad) -> (N,) float values in DN`` for
the bad pixels in row order, NaN where it has no answer. `repair` writes, and
it can only write where the mask is set. Values are rounded and clipped here
and nowhere else.

All correctors leave other bad pixels out of their estimates. A pixel whose
whole neighbourhood is bad is filled from ever wider same-colour rings
(`widen`), so that any corrector repairs any mask that leaves some good pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .cfa import Offset
from .errors import FrameError
from .mosaic import Area, Array, Bool, Edit, Mosaic
from .tiles import Tile, marked, neighbours, tiles

#: corrector(mosaic, bad) -> (N,) float64 values, DN; bad is (H, W) bool with N pixels set
Corrector = Callable[[Mosaic, Bool], Array]

_CHUNK = 1 << 15


def repair(mosaic: Mosaic, bad: Bool, corrector: Corrector) -> Array:
    """A copy of the samples in which the bad pixels are replaced; see `edit`.

    Returns
    -------
    (H, W) array of the samples' dtype, DN
    """
    return edit(mosaic, bad, corrector).applied(mosaic.samples)


def edit(mosaic: Mosaic, bad: Bool, corrector: Corrector) -> Edit:
    """What the repair of the bad pixels changes.

    Parameters
    ----------
    mosaic : Mosaic
    bad : (H, W) bool array
        The pixels to replace; masked borders and NaN samples are left alone.
    corrector : Corrector

    Returns
    -------
    Edit
        Of the samples' dtype.

    Raises
    ------
    FrameError
        No good pixel is left to repair from.
    """
    bad = repairable(mosaic, bad)
    rows, cols = places(bad)
    if not len(rows):
        return Edit(rows, cols, np.empty(0, mosaic.dtype))
    area = mosaic.active
    if len(rows) == (area.bottom - area.top) * (area.right - area.left) or not (
        mosaic.is_integer or usable(mosaic, bad).any()
    ):
        raise FrameError("every pixel is marked bad: there is nothing to repair from; check the map or the mask")
    values = np.asarray(corrector(mosaic, bad), np.float64)
    if values.shape != rows.shape:
        raise ValueError(f"the corrector gave {values.shape} values for {rows.shape} pixels")
    open_ = ~np.isfinite(values)
    if open_.any():
        values[open_] = widen(mosaic, usable(mosaic, bad), rows[open_], cols[open_])
    return Edit.of(mosaic, rows, cols, quantise(values, mosaic))


def places(bad: Bool) -> tuple[Array, Array]:
    """Rows and columns of the pixels that are set, row by row; faster than `np.nonzero` where they are few."""
    rows, cols = np.divmod(marked(bad), max(1, bad.shape[1]))
    return rows, cols


def in_tiles(corrector: Corrector, side: int, halo: int, threads: int = 1) -> Corrector:
    """The same corrector, asked tile by tile: memory follows the tile, and tiles without a bad pixel cost nothing.

    Parameters
    ----------
    corrector : Corrector
    side, halo : int
        Rows and columns of a tile's core, and of what it sees around it.
    threads : int
        So many tiles are worked on at a time; the answers do not depend on it.
    """

    def tiled(mosaic: Mosaic, bad: Bool) -> Array:
        rows, cols = places(bad)
        values = np.full(len(rows), np.nan)
        (top, left), light = (mosaic.active.top, mosaic.active.left), mosaic.light()
        rows, cols = rows - top, cols - left
        inside = bad[mosaic.active.slices]

        def answer(tile: Tile) -> None:
            (r0, r1), (c0, c1) = ((s.start, s.stop) for s in tile.core)
            mine = np.flatnonzero((rows >= r0) & (rows < r1) & (cols >= c0) & (cols < c1))
            if not mine.size:
                return
            around = np.ascontiguousarray(inside[tile.outer])
            area = tile.area
            r, c = places(around)
            r, c = r + area.top, c + area.left
            # Both lists go row by row, so that what is left of one without the halo is the other.
            values[mine] = corrector(light.cropped(area), around)[(r >= r0) & (r < r1) & (c >= c0) & (c < c1)]

        cut = list(tiles(light.shape, side, halo, math.lcm(*light.cfa.period, 2)))
        if threads == 1 or len(cut) == 1:
            for tile in cut:
                answer(tile)
        else:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(answer, cut))
        return values

    return tiled


def repairable(mosaic: Mosaic, bad: Bool) -> Bool:
    """The part of a mask that a repair touches: inside the active area, not NaN."""
    inside = bad
    if mosaic.active != Area(0, 0, *mosaic.shape):
        inside = np.zeros(mosaic.shape, bool)
        inside[mosaic.active.slices] = bad[mosaic.active.slices]
    if not mosaic.is_integer:
        inside = inside & np.isfinite(mosaic.samples)
    return inside


def usable(mosaic: Mosaic, bad: Bool) -> Bool:
    """(H, W) bool: pixels that estimates may use: active, not bad, not NaN."""
    good = np.zeros(mosaic.shape, bool)
    good[mosaic.active.slices] = ~bad[mosaic.active.slices]
    if not mosaic.is_integer:
        good &= np.isfinite(mosaic.samples)
    return good


def quantise(values: Array, mosaic: Mosaic) -> Array:
    """Round and clip values in DN to what the plane can hold."""
    if not mosaic.is_integer:
        return values.astype(mosaic.dtype)
    low, high = mosaic.legal_range
    return np.clip(np.rint(values), low, high).astype(mosaic.dtype)


def by_position(mosaic: Mosaic, rows: Array, cols: Array) -> list[tuple[Offset, Array]]:
    """Indices into (rows, cols) grouped by the tile position of the CFA, in chunks."""
    pr, pc = mosaic.cfa.period
    code = (rows % pr) * pc + cols % pc
    groups = []
    for position in mosaic.cfa.positions:
        index = np.flatnonzero(code == position[0] * pc + position[1])
        groups += [(position, index[i : i + _CHUNK]) for i in range(0, len(index), _CHUNK)]
    return groups


def widen(mosaic: Mosaic, good: Bool, rows: Array, cols: Array) -> Array:
    """Median of the good same-colour pixels in the smallest square that holds at least three.

    The square's radius doubles from 4 pixels on; where even the whole frame
    holds no good pixel of the colour, the median of all good pixels is the answer.
    """
    values = np.full(len(rows), np.nan)
    radius, limit = 4, max(mosaic.shape)
    while radius < 2 * limit and radius <= 64 and (todo := np.flatnonzero(np.isnan(values))).size:
        for index in np.array_split(todo, max(1, len(todo) * (2 * radius + 1) ** 2 // 4_000_000)):
            for position, part in by_position(mosaic, rows[index], cols[index]):
                offsets = np.array(mosaic.cfa.neighbours(*position, radius))
                chosen = index[part]
                v, ok = neighbours(mosaic.samples, good, rows[chosen], cols[chosen], offsets)
                enough = np.count_nonzero(ok, axis=1) >= 3
                values[chosen[enough]] = masked_median(v[enough].astype(np.float64), ok[enough])
        radius *= 2
    for position, part in by_position(mosaic, rows, cols):
        rest = part[np.isnan(values[part])]
        if rest.size:
            plane = (slice(position[0], None, mosaic.cfa.period[0]), slice(position[1], None, mosaic.cfa.period[1]))
            pool = mosaic.samples[plane][good[plane]]
            values[rest] = np.median(pool if pool.size else mosaic.samples[good])
    return values


def masked_median(values: Array, ok: Array) -> Array:
    """(N,) medians along the rows of (N, K) values where `ok`; NaN where a row has none."""
    ordered = np.sort(np.where(ok, values, np.inf), axis=1)
    count = np.count_nonzero(ok, axis=1)
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0)[:, None], 1)[:, 0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, ordered.shape[1] - 1)[:, None], 1)[:, 0]
    with np.errstate(invalid="ignore"):
        middle = (low + high) / 2
    return np.where(count > 0, middle, np.nan)


def masked_mean(values: Array, ok: Array) -> Array:
    """(N,) means along the rows of (N, K) values where `ok`; NaN where a row has none."""
    count = np.count_nonzero(ok, axis=1)
    return np.where(count > 0, np.where(ok, values, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _from_nearest(
    mosaic: Mosaic, bad: Bool, count: int, statistic: Callable[[Array, Array], Array], part: Bool | None = None
) -> Array:
    """A statistic of the good ones among the `count` nearest same-colour pixels.

    (N,) values for the pixels of `part`, a subset of `bad`; for all of `bad` by default.
    """
    good = usable(mosaic, bad)
    rows, cols = np.nonzero(bad if part is None else part)
    values = np.empty(len(rows))
    for position, index in by_position(mosaic, rows, cols):
        offsets = np.array(mosaic.cfa.nearest(*position, count))
        v, ok = neighbours(mosaic.samples, good, rows[index], cols[index], offsets)
        values[index] = statistic(v.astype(np.float64), ok)
    return values


def median(mosaic: Mosaic, bad: Bool) -> Array:
    """Median of the good ones among the 8 nearest same-colour pixels."""
    return _from_nearest(mosaic, bad, 8, masked_median)


def linear(mosaic: Mosaic, bad: Bool) -> Array:
    """Mean of the good ones among the 4 nearest same-colour pixels; of the 8 nearest where none is good."""
    near, wide = (_from_nearest(mosaic, bad, count, masked_mean) for count in (4, 8))
    return np.where(np.isnan(near), wide, near)


def gradient(mosaic: Mosaic, bad: Bool) -> Array:
    """Opposite same-colour pairs, weighted by closeness and agreement (the rule of RawTherapee).

    Each pair (a, b) of good pixels on opposite sides counts with weight
    1 / distance / (|a - b| + 1 DN); without any good pair: the median.
    """
    good = usable(mosaic, bad)
    rows, cols = np.nonzero(bad)
    values = np.full(len(rows), np.nan)
    for position, index in by_position(mosaic, rows, cols):
        pairs = [
            o
            for o in mosaic.cfa.neighbours(*position, max(mosaic.cfa.period))
            if o > (0, 0) and mosaic.cfa.colour(position[0] - o[0], position[1] - o[1]) == mosaic.cfa.colour(*position)
        ][:8]
        if not pairs:
            continue
        offsets = np.array(pairs)
        a, ok_a = neighbours(mosaic.samples, good, rows[index], cols[index], offsets)
        b, ok_b = neighbours(mosaic.samples, good, rows[index], cols[index], -offsets)
        a, b = a.astype(np.float64), b.astype(np.float64)
        weight = np.where(ok_a & ok_b, 1 / np.hypot(*offsets.T)[None, :] / (np.abs(a - b) + 1), 0.0)
        total = weight.sum(axis=1)
        means = np.where(ok_a & ok_b, (a + b) / 2, 0.0)
        found = total > 0
        values[index[found]] = (weight * means).sum(axis=1)[found] / total[found]
    rest = np.isnan(values)
    if rest.any():
        part = np.zeros_like(bad)
        part[rows[rest], cols[rest]] = True
        values[rest] = _from_nearest(mosaic, bad, 8, masked_median, part)
    return values


#: The 24 pixels around the centre of a 5 x 5 window, all colours.
AROUND = np.array([(r, c) for r in range(-2, 3) for c in range(-2, 3) if r or c])
_FIT_PIXELS = 20_000


def least_squares(mosaic: Mosaic, bad: Bool) -> Array:
    """Linear prediction from the 24 neighbours of all colours, fitted on the frame's own good pixels.

    One set of weights per tile position of the CFA, fitted on up to 20,000
    good pixels each, evenly spread. Missing neighbours are filled with the
    same-colour median first. This is the baseline that a net has to beat.
    """
    good = usable(mosaic, bad)
    rows, cols = np.nonzero(bad)
    holes = median(mosaic, bad)
    open_ = np.isnan(holes)
    if open_.any():
        holes[open_] = widen(mosaic, good, rows[open_], cols[open_])
    # In the samples' own type: a copy in floats would double the memory of a large frame.
    filled = mosaic.samples.copy()
    filled[rows, cols] = quantise(holes, mosaic)
    values = holes.copy()
    known = good | bad
    groups = by_position(mosaic, rows, cols)
    for position in dict.fromkeys(place for place, index in groups if len(index)):
        weights = _fit(filled, good, known, position, mosaic)
        if weights is None:
            continue
        for place, index in groups:
            if place == position and len(index):
                v, ok = _around(filled, known, rows[index], cols[index], position, mosaic)
                values[index] = _complete(v, ok, position, mosaic) @ weights + mosaic.black_at(rows[index], cols[index])
    return values


def _around(
    filled: Array, known: Bool, rows: Array, cols: Array, position: Offset, mosaic: Mosaic
) -> tuple[Array, Array]:
    """(N, 24) float64 neighbours in DN above black, and which of them are known."""
    v, ok = neighbours(filled, known, rows, cols, AROUND)
    v = v.astype(np.float64)
    if len(mosaic.black) == len(mosaic.black[0]) == 1:
        v -= mosaic.black[0][0]
    else:
        v -= mosaic.black_at(rows[:, None] + AROUND[:, 0], cols[:, None] + AROUND[:, 1])
    return v, ok


def _fit(filled: Array, good: Bool, known: Bool, position: Offset, mosaic: Mosaic) -> Array | None:
    """(24,) weights for one tile position, or None where too few good pixels are there to fit them."""
    pr, pc = mosaic.cfa.period
    plane = good[position[0] :: pr, position[1] :: pc]
    stride = max(1, int((plane.size / (4 * _FIT_PIXELS)) ** 0.5))
    chosen_r, chosen_c = np.nonzero(plane[::stride, ::stride])
    if len(chosen_r) < 8 * len(AROUND):
        stride = 1
        chosen_r, chosen_c = np.nonzero(plane)
        if len(chosen_r) < 8 * len(AROUND):
            return None
    step = max(1, len(chosen_r) // _FIT_PIXELS)
    rows = chosen_r[::step] * stride * pr + position[0]
    cols = chosen_c[::step] * stride * pc + position[1]
    v, ok = _around(filled, known, rows, cols, position, mosaic)
    x = _complete(v, ok, position, mosaic)
    y = filled[rows, cols] - mosaic.black_at(rows, cols).astype(np.float64)
    gram = x.T @ x
    ridge = 1e-6 * np.trace(gram) / len(AROUND) + 1e-9
    return np.linalg.solve(gram + ridge * np.eye(len(AROUND)), x.T @ y)


def _complete(v: Array, ok: Array, position: Offset, mosaic: Mosaic) -> Array:
    """Fill neighbours beyond the frame or without data: same-colour mean of the window, else its mean."""
    if ok.all():
        return v
    colours = np.array([mosaic.cfa.colour(position[0] + r, position[1] + c) for r, c in AROUND])
    overall = np.nan_to_num(masked_mean(v, ok))
    out = np.where(ok, v, 0.0)
    for colour in np.unique(colours):
        same = colours == colour
        mean = masked_mean(v[:, same], ok[:, same])
        mean = np.where(np.isnan(mean), overall, mean)
        out[:, same] = np.where(ok[:, same], v[:, same], mean[:, None])
    return out


def noise_fill(corrector: Corrector, seed: int) -> Corrector:
    """A corrector whose answers carry noise like that of their surroundings (``--fill noise``)."""
    from .noise import NoiseModel

    def noisy(mosaic: Mosaic, bad: Bool) -> Array:
        values = np.asarray(corrector(mosaic, bad), np.float64)
        sigma = NoiseModel.of(mosaic).sigma(values - mosaic.black_at(*np.nonzero(bad)))
        return values + np.random.default_rng(seed).standard_normal(len(values)) * sigma

    return noisy


def otherwise(first: Corrector, second: Corrector) -> Corrector:
    """A corrector that answers as `first` does, and as `second` where `first` has no answer."""

    def both(mosaic: Mosaic, bad: Bool) -> Array:
        values = np.asarray(first(mosaic, bad), np.float64)
        open_ = ~np.isfinite(values)
        if open_.any():
            values[open_] = second(mosaic, bad)[open_]
        return values

    return both


CLASSICAL: dict[str, Corrector] = {"least-squares": least_squares, "gradient": gradient, "median": median}
