"""Floor 1. What a corrector net sees: DN windows to net input, and the answer back to DN.

Training and serving both come through here. Nothing depends on what a header
claims about black and white; gain and offset of the samples cancel:

1. `fill`, or `first`, gives every bad pixel a first estimate from the frame's
   own good pixels (linear prediction, fitted on this frame, in several passes so
   that holes next to holes settle).
2. `encode` cuts windows of the net's own radius from the filled frame,
   subtracts the window's mean colour by colour and divides by the window's mean
   absolute deviation plus a quarter of the error that the linear prediction
   makes in this frame.
3. The net answers with the residual over the first estimate and with its own
   uncertainty, both in that unit; `decode` turns them into DN.

Why filled windows and not zeros in the holes: a first net with zeros beat least
squares up to 20 % damage and lost by half at 70 %. It had to find anew, in
every window, what the fit knows from the whole frame.

Bayer windows are told apart only by what the net can use: mono, a green
centre, another centre. Red and blue are never named, so that one net serves
all phases and every mirror image of a window is a window, too.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..cfa import Cfa, Offset
from ..mosaic import Array, Float32
from .filling import FEW, REGIMES, Filled, Regime, fill, first, groups_of, predicted
from .near import Near
from .prediction import around

#: Version of the input contract below; a model's card names the one it was trained with.
NORMALISATION = 2
#: Windows have 2 * radius + 1 rows and columns; a model's card names its radius, one of these.
RADII = (2, 3, 4, 6)
#: Centre kinds, in the order of their flags in the net's input.
KINDS = ("mono", "green", "other")

_LIMIT = 8.0
_FILLED_WEIGHT = 0.25
_ERROR_SHARE = 0.25


def length(radius: int) -> int:
    """Length of one net input: filled values, good flags, centre kind, log ratio of unit and fit error."""
    return 2 * (2 * radius + 1) ** 2 + len(KINDS) + 1


def encode(filled: Filled | Near, rows: Array, cols: Array, radius: int) -> tuple[Float32, Array]:
    """Net input for some pixels.

    Parameters
    ----------
    filled : Filled or Near
    rows, cols : (N,) integer arrays
        Holes: their own value is an estimate. A good pixel's own value would be seen.
    radius : int
        Of the windows; n = 2 radius + 1.

    Returns
    -------
    features : (N, length(radius)) float32 array, no unit
        n x n values (row by row, the centre holding the first estimate), n x n flags
        (1 good, 0 estimated or outside), 3 flags of the centre's kind (`KINDS`),
        the logarithm of the unit over the frame's prediction error, -1 to 6.
    unit : (N,) float64 array, DN
        What one unit of the values and of the net's answers is worth; 0 in a flat frame, where the
        first estimate stands whatever the net says; NaN where the window holds no good pixel.
    """
    features = np.empty((len(rows), length(radius)), np.float32)
    unit = np.empty(len(rows))
    for position, index in groups_of(filled.cfa, rows, cols):
        features[index], unit[index] = _encode(filled, position, rows[index], cols[index], radius)
    return features, unit


def _encode(filled: Filled | Near, position: Offset, rows: Array, cols: Array, radius: int) -> tuple[Float32, Array]:
    cells = (2 * radius + 1) ** 2
    values, good, inside = (a.reshape(-1, cells) for a in filled.windows(rows, cols, radius))
    weight = np.where(good, 1.0, _FILLED_WEIGHT).astype(np.float32) * inside
    values = values * inside
    for same in _colours(filled.cfa, position, radius):
        share = weight[:, same]
        mean = (values[:, same] * share).sum(axis=1) / np.maximum(share.sum(axis=1), 1e-6)
        values[:, same] -= mean[:, None]
    values *= inside
    spread = (np.abs(values) * weight).sum(axis=1) / weight.sum(axis=1)
    error = filled.error_at(position, rows, cols)
    unit = spread.astype(np.float64) + _ERROR_SHARE * error
    features = np.zeros((len(rows), length(radius)), np.float32)
    features[:, :cells] = np.clip(values / np.where(unit > 0, unit, 1.0)[:, None], -_LIMIT, _LIMIT)
    features[:, cells : 2 * cells] = good
    features[:, 2 * cells + KINDS.index(kind(filled.cfa, position))] = 1.0
    known = error > 0
    features[known, -1] = np.clip(np.log(unit[known] / error[known]), -1.0, 6.0)
    unit[~good.any(axis=1)] = np.nan
    return features, unit


@cache
def _colours(cfa: Cfa, position: Offset, radius: int) -> tuple[Array, ...]:
    """For each colour the indices into the window around a tile position."""
    span = range(-radius, radius + 1)
    names = np.array([cfa.colour(position[0] + r, position[1] + c) for r in span for c in span])
    return tuple(np.flatnonzero(names == name) for name in cfa.colours)


def kind(cfa: Cfa, position: Offset) -> str:
    """Which of `KINDS` a tile position is."""
    if cfa.is_mono:
        return "mono"
    colour = cfa.colour(*position)
    return "green" if sum(row.count(colour) for row in cfa.tile) == 2 else "other"


def decode(
    filled: Filled | Near, rows: Array, cols: Array, residual: Array, sigma: Array, unit: Array
) -> tuple[Array, Array]:
    """The net's answers as sample values and their uncertainty.

    Parameters
    ----------
    filled, rows, cols
        As for `encode`.
    residual : (N,) float32 array
        Over the first estimate, in units.
    sigma : (N,) float32 array
        Standard error of the repaired against the true stored sample, in units.
    unit : (N,) float64 array, DN
        From `encode`.

    Returns
    -------
    values, sigma : (N,) float64 arrays, DN
        NaN where no good pixel lies in the window: there is nothing to answer from.
    """
    return filled.at(rows, cols) + residual.astype(np.float64) * unit, sigma.astype(np.float64) * unit


__all__ = [
    "FEW",
    "KINDS",
    "NORMALISATION",
    "RADII",
    "REGIMES",
    "Filled",
    "Near",
    "Regime",
    "around",
    "decode",
    "encode",
    "fill",
    "first",
    "kind",
    "length",
    "predicted",
]
