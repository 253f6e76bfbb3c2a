"""Floor 1. What the vit sees: tiles of 64 x 64 pixels, packed two by two.

The frame with estimates in its holes, the surroundings of every pixel taken out::

    value    (v - m) / u             v: the sample, or in a hole the estimate of the mlp
    trust    1 good, 0 a hole        blind: what the detector suspects is a hole
    stored   asinh((s - v) / u) / 2  s: what a suspect holds; 0 where the mask is given
    noise    log(u / e) / 3          e: the error of the frame's linear prediction
    doubt    log(u / d) / 3          d: the sigma that the mlp gives its estimate; 0 on good pixels

m is the mean of the pixel's own colour and u the mean absolute deviation of all colours (plus a quarter of e) in the
13 x 13 pixels around it, holes counting a quarter. The net answers with the residual over v in units of u. So
nothing depends on what a header claims, on gain, or on one bright star in the tile.

Why the mlp's estimates and not linear ones: a net that began with those ended 10 to 40 % behind the mlp, which
solves what lies near; seeing far is what attention adds.

Blind, what a detector suspects becomes a hole, and the net, which in training has seen bad samples that nobody
suspects and good ones that are suspected, may disagree. Why not one net from the corrupted samples to the answer: at
70 % damage the extremes are a hundred times the detail that a repair is about.

A Bayer tile begins with red (RGGB); at the frame's edge the samples are mirrored and not trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..cfa import MONO, RGGB, Cfa
from ..mosaic import Array, Bool, Float32, Mosaic
from ..planes import same_phase
from . import windows
from .features import unpack
from .windows import Filled

#: Name and version of this input contract.
NORMALISATION = "patches-2"
#: Rows and columns of a tile; of the patch that is one token.
SIDE, PATCH = 64, 4
#: Rows and columns that neighbouring tiles share on each side: answers there are not used.
HALO = 8
FEATURES = 5
CHANNELS = 4 * FEATURES

_RADIUS = 6
_MARGIN = 2 * _RADIUS
_LIMIT = 8.0
_HOLE_WEIGHT = 0.25
_ERROR_SHARE = 0.25


#: (filled, rows, cols) of some holes -> (N,) values and (N,) sigmas in DN, NaN where there is no answer
Estimate = Callable[[Filled, Array, Array], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Seen:
    """A plane ready to be cut into tiles.

    Parameters
    ----------
    filled : windows.Filled
        The samples with estimates in the holes.
    sigma : (H, W) float32 array, DN
        How far off the estimates may be; 0 on good pixels and where nothing is known of it.
    stored : (H, W) float32 array, DN above the levels of `filled`
        The samples as they are; where the mask is given, those of `filled`.
    trust : (H, W) float32 array, 0 to 1
    blind : bool
    """

    filled: Filled
    sigma: Float32
    stored: Float32
    trust: Float32
    blind: bool

    @classmethod
    def known(cls, light: Mosaic, bad: Bool, estimate: Estimate) -> Seen:
        """A plane without masked borders whose bad pixels are known; what they hold is never looked at.

        Parameters
        ----------
        light : Mosaic
        bad : (H, W) bool array
        estimate : callable
            What the holes may hold (`nets.correctors.MlpCorrector.refine`).
        """
        filled, sigma = _estimated(light, bad, estimate)
        return cls(filled, sigma, filled.samples, filled.good.astype(np.float32), False)

    @classmethod
    def unknown(cls, light: Mosaic, doubt: Float32, suspect: float, estimate: Estimate) -> Seen:
        """A plane without masked borders of which only the samples are known.

        Parameters
        ----------
        light : Mosaic
        doubt : (H, W) float32 array
            The probability that each sample is bad.
        suspect : float
            From which probability on a sample is replaced by an estimate.
        estimate : callable
            As for `known`.
        """
        filled, sigma = _estimated(light, doubt >= suspect, estimate)
        rows, cols = np.nonzero(~filled.good)
        stored = filled.samples.copy()
        held = (light.samples[rows, cols] - filled.level_at(rows, cols)).astype(np.float32)
        stored[rows, cols] = np.where(np.isfinite(held), held, stored[rows, cols])
        return cls(filled, sigma, stored, filled.good.astype(np.float32), True)

    @property
    def flags(self) -> Float32:
        """(1, 2, 1, 1): mono, blind."""
        return np.array([self.filled.cfa.is_mono, self.blind], np.float32).reshape(1, 2, 1, 1)


def _estimated(light: Mosaic, bad: Bool, estimate: Estimate) -> tuple[Filled, Float32]:
    """The plane with estimates in its holes, and their sigmas; where there is no estimate the linear one stays."""
    filled = windows.fill(light, bad)
    samples, sigma = filled.samples.copy(), np.zeros(bad.shape, np.float32)
    if filled.good.any():
        rows, cols = np.nonzero(~filled.good)
        values, off = estimate(filled, rows, cols)
        values = values - filled.level_at(rows, cols)
        known = np.isfinite(values)
        samples[rows[known], cols[known]] = values[known]
        sigma[rows[known], cols[known]] = off[known]
    return replace(filled, samples=samples), sigma


def phase_of(cfa: Cfa) -> tuple[int, int]:
    """Rows and columns to put before a plane so that it begins with red; none for mono."""
    if not cfa.is_bayer:
        return 0, 0
    return next((r, c) for r, c in cfa.positions if cfa.colour(r, c) == "R")


def tiles_of(bad: Bool, cfa: Cfa) -> tuple[Array, Array]:
    """The first rows and columns of the tiles whose cores (the tile without `HALO`) hold bad pixels.

    Returns
    -------
    tops, lefts : (N,) int64 arrays
        In coordinates of the plane; some lie outside.
    """
    core = SIDE - 2 * HALO
    tall, wide = (range(-first, size, core) for first, size in zip(phase_of(cfa), bad.shape, strict=True))
    held = [
        (top - HALO, left - HALO)
        for top in tall
        for left in wide
        if bad[max(0, top) : top + core, max(0, left) : left + core].any()
    ]
    places = np.array(held, np.int64).reshape(-1, 2)
    return places[:, 0], places[:, 1]


def encode(seen: Seen, tops: Array, lefts: Array) -> tuple[Float32, Float32]:
    """Net input for some tiles.

    Parameters
    ----------
    seen : Seen
    tops, lefts : (N,) integer arrays
        Of pixels that are red (Bayer), inside the plane or not: outside it is mirrored.

    Returns
    -------
    features : (N, CHANNELS, SIDE / 2, SIDE / 2) float32 array
        Channel 4 f + 2 r + c: feature f of the pixel (r, c) of each 2 x 2 block.
    unit : (N, SIDE, SIDE) float32 array, DN
        What one unit of the net's answer is worth; 0 where all is flat: there the first estimate stands.
    """
    filled = seen.filled
    cut, inside = _cut(filled.samples.shape, filled.cfa, tops, lefts, _MARGIN)
    value, stored, trust, off = (a[cut] for a in (filled.samples, seen.stored, seen.trust, seen.sigma))
    trust = trust * inside
    weight = trust + np.float32(_HOLE_WEIGHT) * (1 - trust)
    cfa = MONO if filled.cfa.is_mono else RGGB
    side = value.shape[1]
    mean = np.empty((len(value), side - _MARGIN, side - _MARGIN), np.float32)
    for colour in cfa.colours:
        mine = _where(cfa, colour, side)
        share = weight * mine
        inner = mine[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
        mean[:, inner] = (_box(value * share) / np.maximum(_box(share), np.float32(1e-6)))[:, inner]
    shrink = slice(_RADIUS, -_RADIUS)
    above = value[:, shrink, shrink] - mean
    near = weight[:, shrink, shrink]
    spread = _box(np.abs(above) * near) / _box(near)
    middle = slice(_MARGIN, -_MARGIN)
    error = _error(filled)[cut[0] % filled.cfa.period[0], cut[1] % filled.cfa.period[1]][:, middle, middle]
    unit = spread + np.float32(_ERROR_SHARE) * error
    safe = np.where(unit > 0, unit, np.float32(1))
    value, stored, trust, off = (a[:, middle, middle] for a in (value, stored, trust, off))
    with np.errstate(divide="ignore", invalid="ignore"):
        noise, doubt = (np.where((a > 0) & (unit > 0), np.log(unit / a), np.float32(0)) for a in (error, off))
    planes = (
        np.clip(above[:, shrink, shrink] / safe, -_LIMIT, _LIMIT),
        trust,
        np.arcsinh((stored - value) / safe) / 2,
        np.clip(noise, -1, 6) / 3,
        np.clip(doubt, -3, 6) / 3,
    )
    return pack_all(*planes), unit


def pack_all(*planes: Array) -> Float32:
    """(N, H, W) arrays -> (N, 4 per array, H / 2, W / 2) float32, as `features.pack`."""
    packed = np.stack([p[:, r::2, c::2] for p in planes for r in (0, 1) for c in (0, 1)], axis=1)
    return packed.astype(np.float32)


def _cut(shape: tuple[int, ...], cfa: Cfa, tops: Array, lefts: Array, margin: int) -> tuple[tuple[Array, Array], Bool]:
    """Indices of the pixels of some tiles with a margin, mirrored into the plane; and which need no mirroring."""
    (height, width), (pr, pc) = shape, cfa.period
    index, inside = [], []
    for starts, size, period in ((tops, height, pr), (lefts, width, pc)):
        lines = np.stack([same_phase(s - margin, s + SIDE + margin, size, period) for s in starts])
        plain = starts[:, None] + np.arange(-margin, SIDE + margin)
        index.append(lines)
        inside.append((plain >= 0) & (plain < size))
    return (index[0][:, :, None], index[1][:, None, :]), inside[0][:, :, None] & inside[1][:, None, :]


def _where(cfa: Cfa, colour: str, side: int) -> Bool:
    """(side, side) bool: the pixels of a colour in a tile whose margin is even."""
    tile = np.array([[letter == colour for letter in row] for row in cfa.tile])
    return np.tile(tile, (side // tile.shape[0], side // tile.shape[1]))


def _box(a: Float32) -> Float32:
    """(N, h, w) -> (N, h - 12, w - 12): sums over 13 x 13 pixels."""
    width = 2 * _RADIUS + 1
    for axis in (1, 2):
        total = np.cumsum(a, axis=axis, dtype=np.float64)
        pad = [(0, 0)] * 3
        pad[axis] = (1, 0)
        total = np.pad(total, pad)
        size = total.shape[axis]
        sums = np.take(total, range(width, size), axis) - np.take(total, range(size - width), axis)
        a = sums.astype(np.float32)
    return a


def _error(filled: Filled) -> Float32:
    """(R, C) DN: the error of the linear prediction by tile position."""
    pr, pc = filled.cfa.period
    return np.array([[filled.error.get((r, c), 0.0) for c in range(pc)] for r in range(pr)], np.float32)


def decode(seen: Seen, tops: Array, lefts: Array, residual: Float32, unit: Float32, out: Array) -> None:
    """Write the net's answers for some tiles, in DN, into `out`, (H, W) float64; tiles without `HALO` on each side."""
    for top, left, answer, scale in zip(tops, lefts, residual, unit, strict=True):
        core, part = cores(out.shape, top, left)
        rows, cols = np.meshgrid(np.arange(out.shape[0])[core[0]], np.arange(out.shape[1])[core[1]], indexing="ij")
        out[core] = seen.filled.at(rows, cols) + unpack(answer)[part].astype(np.float64) * scale[part]


def cores(shape: tuple[int, ...], top: int, left: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """A tile without `HALO` as slices of the plane, and the same pixels as slices of the tile."""
    inside, within = [], []
    for start, size in ((top, shape[0]), (left, shape[1])):
        first, last = max(0, start + HALO), min(size, start + SIDE - HALO)
        inside.append(slice(first, last))
        within.append(slice(first - start, last - start))
    return (inside[0], inside[1]), (within[0], within[1])
