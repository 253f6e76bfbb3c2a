"""How a pixel stands to the value that most of its neighbours agree on: six features that trust no earlier look.

Where a scene is bright, damage is dark alone, and from some damage rate on it is the majority: the good pixels are
fewer there, but they agree with each other, and the bad ones do not. At 70 % damage a net that measured against the
pixels that it trusted took 95 of 100 good pixels of a white card for bad (the surroundings, where bad pixels are the
bright ones, had taught it so), while the value that most agree on told 99 of 100 apart.

Values p, DN above black, are compared by ``log(|p| / scale + 1)`` with the sign of p, with a scale of 1/32 of the
plane's median and half a DN. (Cut off at the frame's own floor, up to two fifths of the pixels of densely damaged
frames agreed that they were 0.) Of the 48 neighbours of the pixel's own tile position within four steps, each of them
and the pixel itself has so many of its own 48 within a tolerance; the one with the most is the mode. For each
tolerance, 0.05 and 0.15::

    share    log of the share that agrees with the pixel / 4
    off      log of the pixel over the mode, -2 to 2
    lead     log of how many agree with the pixel for one that agrees with the mode / 4
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from ..cfa import Cfa
from ..levels import comparable
from ..mosaic import Array, Float32, Mosaic
from ..planes import same_phase
from . import patterns
from .features import step_of

#: Steps that are looked at for the mode, and as far again for what agrees with it.
REACH = 4
FEATURES = 6
#: Parts of a unit in which logarithms are kept, 16 bits each, and the bits of a logarithm beside a count.
_UNIT, _BITS = 2048, 16
#: Greatest differences of logarithms that count as agreement, in such parts.
_TOLERANCES = tuple(int(t * _UNIT) for t in (0.05, 0.15))
_ZERO = 1 << (_BITS - 1)
_NEAR = [(r, c) for r, c in product(range(-REACH, REACH + 1), repeat=2) if 0 < r * r + c * c <= REACH * REACH]
#: The logarithms of (n + 1) / (all + 1) / 4 of 0 to all neighbours.
_SHARES = (np.log(np.arange(1, len(_NEAR) + 2) / (len(_NEAR) + 1)) / 4).astype(np.float32)


def scale_of(samples: Float32) -> float:
    """The scale of a plane's samples (DN above black), from at most some 256 x 256 of them."""
    rows, cols = (np.arange(0, n, max(1, n // 256 | 1)) for n in samples.shape)  # odd steps: pixels of every colour
    return max(0.0, float(np.nanmedian(samples[np.ix_(rows, cols)]))) / 32 + 0.5


def modes(samples: Float32, scale: float, step: int) -> list[Float32]:
    """The features of the inner part of a rectangle.

    Parameters
    ----------
    samples : (h + 4 REACH step, w + 4 REACH step) float32 array, DN above black; no NaN
    scale : float
        As `scale_of` gives it.
    step : int
        How far the nearest neighbours of the same tile position are.

    Returns
    -------
    FEATURES of (h, w) float32 arrays
    """
    logs = _logs(samples, scale)
    edge = REACH * step
    own = _inner(logs, edge)
    agreeing = [np.zeros(own.shape, np.uint8) for _ in _TOLERANCES]
    apart, agrees = np.empty(own.shape, np.int16), np.empty(own.shape, bool)
    for dr, dc in _NEAR:
        np.subtract(_inner(logs, edge, dr * step, dc * step), own, out=apart)
        np.abs(apart, out=apart)
        for count, tolerance in zip(agreeing, _TOLERANCES, strict=True):
            np.less_equal(apart, np.int16(tolerance), out=agrees)
            count += agrees.view(np.uint8)
    out = []
    value = own.astype(np.int32) + _ZERO
    for count in agreeing:
        best = _greatest(_keys(count, value), step)
        out += _three(_inner(count, edge), _inner(value, edge), best)
    return out


def reach(cfa: Cfa) -> int:
    """How far the neighbours are, in pixels."""
    return REACH * step_of(cfa) if cfa.is_grid else patterns.reach(cfa, len(_NEAR))


def among(samples: Float32, scale: float, cfa: Cfa) -> list[Float32]:
    """The features where the colours are no grid: of the 48 nearest of the same colour.

    Parameters
    ----------
    samples : (h + 4 reach, w + 4 reach) float32 array, DN above black; no NaN
    scale : float
    cfa : Cfa
        As seen from the first of them.

    Returns
    -------
    FEATURES of (h, w) float32 arrays
    """
    logs, edge = _logs(samples, scale), reach(cfa)
    value = _inner(logs, edge).astype(np.int32) + _ZERO
    out = []
    for count in patterns.agreeing(logs, cfa, len(_NEAR), _TOLERANCES):
        best = patterns.greatest(_keys(count, value), cfa.shifted(edge, edge), len(_NEAR))
        out += _three(_inner(count, edge), _inner(value, edge), best)
    return out


def _logs(samples: Float32, scale: float) -> Array:
    """Signed logarithms in parts of a unit, int16."""
    logs = np.copysign(np.log1p(np.abs(samples) * np.float32(1 / scale)), samples) * np.float32(_UNIT)
    return np.clip(logs, 1 - _ZERO, _ZERO - 1).astype(np.int16)


def _keys(count: Array, value: Array) -> Array:
    """Numbers of which the greatest is of the mode: the count decides, then the brighter one."""
    return (count.astype(np.int32) << _BITS) + value


def _three(count: Array, value: Array, best: Array) -> list[Float32]:
    """Share, off and lead of one tolerance."""
    off = (value - (best & ((1 << _BITS) - 1))).astype(np.float32) / np.float32(_UNIT)
    share = _SHARES[count]
    return [share, np.clip(off, np.float32(-2), np.float32(2)), share - _SHARES[best >> _BITS]]


def of_plane(light: Mosaic) -> list[Float32]:
    """The features of a whole plane, mono or Bayer, FEATURES of (H, W); what lies outside mirrors it, NaN is black."""
    light = comparable(light)
    (height, width), (pr, pc) = light.shape, light.cfa.period
    step = step_of(light.cfa)
    margin = 2 * REACH * step
    rows, cols = (same_phase(-margin, n + margin, n, period) for n, period in ((height, pr), (width, pc)))
    above = light.samples[np.ix_(rows, cols)].astype(np.float32)
    above -= light.black_at(rows[:, None], cols).astype(np.float32)
    scale = scale_of(above[margin:-margin, margin:-margin])
    return modes(np.nan_to_num(above, copy=False), scale, step)


def _greatest(keys: Array, step: int) -> Array:
    """The greatest within REACH steps, the pixel itself included: of lines that grow wider, those of each row."""
    edge = REACH * step
    height, width = (n - 2 * edge for n in keys.shape)
    best = np.zeros((height, width), keys.dtype)
    line = keys[:, edge : edge + width].copy()
    for half in range(REACH + 1):
        for side in {half, -half}:
            np.maximum(line, keys[:, edge + side * step : edge + side * step + width], out=line)
        for row in range(-REACH, REACH + 1):
            if math.isqrt(REACH * REACH - row * row) == half:
                np.maximum(best, line[edge + row * step : edge + row * step + height], out=best)
    return best


def _inner(array: Array, edge: int, down: int = 0, right: int = 0) -> Array:
    """An array without its edge, moved."""
    height, width = array.shape
    return array[edge + down : height - edge + down, edge + right : width - edge + right]
