"""Floor 1. First estimates of missing pixels: the frame's own linear prediction, fitted on its good pixels.

What `windows` shows to the nets begins with these. Where holes are few, `near` makes them from the holes'
neighbourhoods alone; here they are made from a whole plane with many holes, and all are put into a copy of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..cfa import Cfa, Offset
from ..mosaic import Array, Bool, Float32, Mosaic
from ..repair import by_position, places, repairable, usable
from ..tiles import neighbours, whole_windows, windows
from .near import Near, estimate, level_at, missing
from .prediction import RIDGE, Fit, around, fit, means

#: Share of holes in a plane up to which they are few.
FEW = 0.03
#: Samples that are worked on at once where a pass over a frame would otherwise wait for memory, and windows.
_IN_CACHE, _WINDOWS = 1 << 16, 1 << 11


@dataclass(frozen=True)
class Regime:
    """How `fill` predicts many holes in one range of damage rates.

    Parameters
    ----------
    up_to : float
        Share of holes in the frame up to which it holds.
    radius : int
        The prediction uses the (2 radius + 1)^2 - 1 neighbours of all colours.
    passes : int
        How often all holes are estimated anew from the filled frame.
    fit : str
        ``filled``: on any good pixels, anew in every pass. A hole's estimate has
        then seen the good pixel that it helps to predict; harmless while holes are few.
        ``held out``: a tenth of the good pixels is hidden and fitted on.
    pixels : int
        At most about so many good pixels of each tile position are fitted on.
    """

    up_to: float
    radius: int
    passes: int
    fit: str
    pixels: int


#: Chosen on the validation cameras among the three fits, radii 2 and 3, 2 to 12 passes.
REGIMES = (
    Regime(0.4, 3, 3, "filled", 20_000),
    Regime(1.0, 2, 5, "held out", 20_000),
)
_HELD_OUT = 0.1


@dataclass(frozen=True, eq=False)
class Filled:
    """A frame with first estimates in its holes.

    Parameters
    ----------
    samples : (H, W) float32 array, DN above `level`
        Good pixels as they are, holes estimated.
    good : (H, W) bool array
    cfa : Cfa
    level : dict of tile position to float, DN
        What was subtracted: the mean of the good pixels of that tile position.
    error : dict of tile position to float, DN
        Root mean square error of the linear prediction on this frame.
    weights : dict of tile position to (K,) float64 array or None
        The last linear prediction, of the neighbours in the order of `around`; None where the frame is too small
        to fit it.
    fit : Fit or None
        Where holes are few: the prediction in all regions.
    """

    samples: Float32
    good: Bool
    cfa: Cfa
    level: dict[Offset, float]
    error: dict[Offset, float]
    weights: dict[Offset, Array | None]
    fit: Fit | None = None

    def level_at(self, rows: Array, cols: Array) -> Array:
        """(N,) float64 DN: what was subtracted at the pixels (rows, cols)."""
        return level_at(self.level, self.cfa, rows, cols)

    def at(self, rows: Array, cols: Array) -> Array:
        """(N,) float64 DN: the first estimates (or the samples) at the pixels (rows, cols)."""
        return self.samples[rows, cols].astype(np.float64) + self.level_at(rows, cols)

    def error_at(self, position: Offset, rows: Array, cols: Array) -> Array:
        """(N,) float64 DN: the error of the prediction around some pixels of a tile position."""
        if self.fit is not None:
            return self.fit.errors[position][self.fit.region(self.good.shape, rows, cols)]
        return np.full(len(rows), self.error.get(position, 0.0))

    def windows(self, rows: Array, cols: Array, radius: int) -> tuple[Float32, Bool, Bool]:
        """Values, which are good pixels, and which lie in the plane, (N, n, n), of windows of n = 2 radius + 1."""
        values, inside = windows(self.samples, None, rows, cols, radius)
        return values, windows(self.good, None, rows, cols, radius)[0] & inside, inside


def first(mosaic: Mosaic, bad: Bool, radius: int, threads: int = 1) -> Near | Filled:
    """First estimates for all holes of a plane and the windows of a radius around them; few holes: nothing else.

    Parameters
    ----------
    mosaic, bad
        As for `fill`.
    radius : int
    threads : int
        The answer does not depend on it.
    """
    flat = missing(mosaic, bad)
    if len(flat) <= FEW * bad.size:
        return estimate(mosaic, flat, fit(mosaic, bad, threads), radius)
    return fill(mosaic, bad)


def fill(mosaic: Mosaic, bad: Bool) -> Filled:
    """First estimates for all holes of a plane: bad pixels and missing data (NaN).

    Parameters
    ----------
    mosaic : Mosaic
        Without masked borders (`Mosaic.light`).
    bad : (H, W) bool array
        What is stored there is never looked at.

    Returns
    -------
    Filled
        Without any good pixel everything is 0 above level 0.
    """
    flat, good = missing(mosaic, bad), usable(mosaic, bad)
    if len(flat) <= FEW * bad.size:
        prediction = fit(mosaic, bad)
        above = _above(mosaic, prediction.level)
        near = estimate(mosaic, flat, prediction, 0)
        above.reshape(-1)[flat] = near.estimates
        return Filled(above, good, mosaic.cfa, prediction.level, prediction.error, prediction.weights, prediction)
    level = means(mosaic.samples, good, mosaic.cfa)
    above = _above(mosaic, level)
    above.reshape(-1)[flat] = 0.0
    regime = next(r for r in REGIMES if len(flat) <= r.up_to * good.size)
    known = good
    if regime.fit == "held out":
        known = good & (np.random.default_rng(0).random(good.shape) >= _HELD_OUT)
    holes = _Holes.of(mosaic.cfa, known, flat if known is good else np.flatnonzero(~known))
    truth = above if known is good else above.copy()  # only good pixels of it are looked at
    first = _first(above, known, holes)
    above[holes.rows, holes.cols] = first
    weights: dict[Offset, _Weights] = {}
    for _ in range(regime.passes):
        weights = _fit_all(truth, above, good, known, holes, regime)
        above[holes.rows, holes.cols] = _predict(above, holes, weights, first, regime.radius)
    if known is not good:
        hidden = good & ~known
        above[hidden] = truth[hidden]
        last = _Holes.of(mosaic.cfa, good, flat)
        first = above[last.rows, last.cols]
        for _ in range(2):
            above[last.rows, last.cols] = _predict(above, last, weights, first, regime.radius)
    errors, values = ({p: getattr(w, name) for p, w in weights.items()} for name in ("error", "values"))
    return Filled(above, good, mosaic.cfa, level, errors, values)


def predicted(mosaic: Mosaic, bad: Bool, threads: int = 1) -> Array:
    """The first estimates as a corrector (`repair.Corrector`): for planes that the nets do not know.

    Photographs behind X-Trans, 512 x 512 pixels: 4, 18 and 13 % less squared error than least squares at 1, 20 and
    70 % of damage, half of it in 3 x 3 clusters, but 20 % more at 85 %.
    """
    area, inside = mosaic.active, repairable(mosaic, bad)
    rows, cols = places(bad)
    values, open_ = np.full(len(rows), np.nan), inside[rows, cols]
    filled = first(mosaic.light(), inside[area.slices], 0, threads)
    values[open_] = filled.at(rows[open_] - area.top, cols[open_] - area.left)
    return values


def _above(mosaic: Mosaic, level: dict[Offset, float]) -> Float32:
    """Samples less the level of their tile position, DN."""
    samples, (pr, pc), (height, width) = mosaic.samples, mosaic.cfa.period, mosaic.shape
    # In the type in which an array of this type less a number is computed.
    table = np.array([[level[r, c] for c in range(pc)] for r in range(pr)], np.result_type(samples.dtype, 0.0))
    across = np.tile(table, (1, -(-width // pc)))[:, :width]
    above = np.empty(mosaic.shape, np.float32)
    step = pr * max(1, _IN_CACHE // width)
    for r in range(pr):
        for top in range(r, height, step):
            band = slice(top, top + step - r, pr)
            above[band] = samples[band] - across[r]
    return above


@dataclass(frozen=True, eq=False)
class _Holes:
    """The pixels without data, and their indices by tile position in chunks."""

    rows: Array
    cols: Array
    groups: list[tuple[Offset, Array]]
    cfa: Cfa

    @classmethod
    def of(cls, cfa: Cfa, known: Bool, missing: Array) -> _Holes:
        rows, cols = np.divmod(missing, max(1, known.shape[1]))
        return cls(rows, cols, groups_of(cfa, rows, cols), cfa)


def groups_of(cfa: Cfa, rows: Array, cols: Array) -> list[tuple[Offset, Array]]:
    return by_position(Mosaic(np.zeros((1, 1), np.uint8), cfa), rows, cols)


def _first(above: Float32, known: Bool, holes: _Holes) -> Float32:
    """(N,) means of the known same-colour pixels within 4 pixels, weighted by 1 / distance^3, else 0."""
    out = np.zeros(len(holes.rows), np.float32)
    for position, index in holes.groups:
        if not len(index):
            continue
        offsets = np.array(holes.cfa.neighbours(*position, 4))
        v, ok = neighbours(above, known, holes.rows[index], holes.cols[index], offsets)
        weight = ok * ((offsets**2).sum(axis=1) ** -1.5).astype(np.float32)
        total = weight.sum(axis=1)
        out[index] = np.where(total > 0, (v * weight).sum(axis=1) / np.maximum(total, 1e-12), 0.0)
    return out


@dataclass(frozen=True, eq=False)
class _Weights:
    """(K,) weights of the neighbours, or None where the frame is too small to fit them; error in DN."""

    values: Array | None
    error: float


def _fit_all(
    truth: Float32, above: Float32, good: Bool, known: Bool, holes: _Holes, regime: Regime
) -> dict[Offset, _Weights]:
    """The linear prediction of every tile position, fitted on this frame; one for those that are alike."""
    pixels = {}
    for alike in holes.cfa.alike:
        spread = [_spread(good, known, holes, p, regime) for p in alike]
        pixels[alike] = [np.concatenate(part) for part in zip(*spread, strict=True)]
    radius = regime.radius
    scratch = np.empty((max(len(rows) for rows, _ in pixels.values()), len(around(radius))), np.float64)
    fitted = {alike: _fit(truth, above, rows, cols, radius, scratch) for alike, (rows, cols) in pixels.items()}
    return {p: weights for alike, weights in fitted.items() for p in alike}


def _spread(good: Bool, known: Bool, holes: _Holes, position: Offset, regime: Regime) -> tuple[Array, Array]:
    """Rows and columns of at most about `regime.pixels` pixels of a tile position to fit on, evenly spread."""
    (r, c), (pr, pc) = position, holes.cfa.period
    plane = good[r::pr, c::pc]
    width = max(1, plane.shape[1])
    if regime.fit == "held out":
        flat = np.flatnonzero(plane & ~known[r::pr, c::pc])
        flat = flat[:: max(1, len(flat) // regime.pixels)]
    else:  # the n-th good pixel lies behind n good ones and the holes before it
        here = (holes.rows % pr == r) & (holes.cols % pc == c)
        bad = holes.rows[here] // pr * width + holes.cols[here] // pc
        count = plane.size - len(bad)
        number = np.arange(0, count, max(1, count // regime.pixels))
        flat = number + np.searchsorted(bad - np.arange(len(bad)), number, "right")
    return flat // width * pr + r, flat % width * pc + c


def _fit(truth: Float32, above: Float32, rows: Array, cols: Array, radius: int, scratch: Array) -> _Weights:
    """Least squares of the pixels (rows, cols) on their neighbours.

    `scratch` is room for (N, K) float64 values, used again and again: new memory costs as much as the arithmetic.
    """
    height, width = above.shape
    kept = (rows >= radius) & (rows < height - radius) & (cols >= radius) & (cols < width - radius)
    count = np.count_nonzero(kept)
    if count < 4 * len(around(radius)):
        known = truth[rows, cols].astype(np.float64)
        return _Weights(None, float(np.std(known)) if len(known) else 0.0)
    rows, cols = rows[kept], cols[kept]
    x = scratch[:count]
    for start in range(0, count, _WINDOWS):
        part = slice(start, start + _WINDOWS)
        cells = whole_windows(above, rows[part], cols[part], radius)
        middle = cells.shape[1] // 2
        x[part, :middle], x[part, middle:] = cells[:, :middle], cells[:, middle + 1 :]
    y = truth[rows, cols].astype(np.float64)
    gram = x.T @ x
    ridge = RIDGE * np.trace(gram) / x.shape[1]
    if ridge <= 0:
        return _Weights(None, 0.0)
    weights = np.linalg.solve(gram + ridge * np.eye(x.shape[1]), x.T @ y)
    return _Weights(weights, float(np.sqrt(np.mean((x @ weights - y) ** 2))))


def _predict(above: Float32, holes: _Holes, weights: dict[Offset, _Weights], first: Float32, radius: int) -> Float32:
    """(N,) new estimates of the holes; beyond the frame the hole's own first estimate stands in."""
    out = first.copy()
    offsets = around(radius)
    for position, index in holes.groups:
        w = weights[position].values
        if w is None:
            continue
        v, ok = neighbours(above, None, holes.rows[index], holes.cols[index], offsets)
        out[index] = np.where(ok, v, first[index][:, None]) @ w.astype(np.float32)
    return out
