"""Floor 1. What the net for doubtful pixels sees: each one's own value beside what its repair would be.

A doubtful pixel is repaired as if it were bad, from pixels that are good beyond doubt. Per pixel, with x its value and
v and s the repair and its sigma, x and v above black::

    odds      log-odds of the detection so far / 8, -1.5 to 1.5
    apart     asinh((x - v) / s) / 3
    unlikely  log(1 + ((x - v) / s)^2 / 3) / 4
    ratio     log of (x + s) / (v + s) / 2, -2 to 2
    sure      log of s / (v + s) / 4
    repair    v as a share of white
    value     x as a share of white
    rate      logit of the frame's damage rate / 4
    mono      1, or 0 behind colour filters
    near      share of the 24 pixels within two steps, of all colours, that are good beyond doubt
    wide      the same of the 80 within four
    beside    mean probability of the 8 that touch it
    usual     log of the share of good pixels of this frame that are at least so unlikely / 8
    held      log of the median and of the 95th percentile of their |x - v| / s / 4
    close     log of the share of bad pixels of this frame, on the same side, that are at most so far off / 8
    damage    how far off bad pixels are: the 5th percentile of |log (x / v)| above and below / 2; 0 where they are few
    crowd     log of how many times as many of the 8 around a bad pixel are bad as chance has it / 4
    same      share of the 8 that touch it that are off by at least a fifth, to the same side
    other     the same to the other side
    least     the least |log (x / v)| of those within two steps that are off by a tenth to the same side / 2; 1 for none

What comes after `beside` and before `same` says what is usual in this frame, so that neither a sigma that does not fit
a camera nor damage of another kind can mislead. Some pixels that are good beyond doubt are held back for that and
repaired, too; of bad ones the first estimate stands for the repair. Where nothing bad is nearer than a factor of 1.7, a
doubtful pixel that is off by 1.2 is texture. `same`, `other` and `least` tell a bad cluster from a star and its skirts,
for which too the first estimates stand, of all that is not good beyond doubt. `modes` trust no detector: where it took
a bright scene's good pixels for the bad ones, repairs by its odds said the same.

A cluster of which all pixels are bright, or all dark, looks like a highlight or its shadow to the detectors, and each
of its pixels has neighbours like itself. So where bad pixels stand together, what stands out of all that is good around
the room that a cluster would take is doubtful, too, if such pixels touch. (What the frame's own linear prediction
misses by far, as well, held all of the 127 pixels that were missed in clusters in a test chart; but so many holes make
worse repairs, and in all cameras together nothing was won.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..classical import logit
from ..crowds import spread
from ..mosaic import Array, Bool, Float32, Mosaic
from ..planes import ring as ring_of
from ..tiles import windows
from . import modes
from .filling import Filled
from .near import Near

#: Repairs and their standard errors, (N,) float64 arrays, DN.
Answers = tuple[Array, Array]

#: Name and version of this input contract.
NORMALISATION = "doubts-3"
LENGTH = 22 + modes.FEATURES
#: Log-odds beyond which nothing is doubtful, and those beyond which a pixel tells what is usual.
DOUBT, CERTAIN = 3.0, 4.0
#: How many times as great as the greatest of the others, or as small as the least, what outlies them is,
#: and the damage rate from which that is looked for anywhere.
_OUTLYING, _DENSE = 1.25, 0.1
#: Logarithms of how far off neighbours are that count for `same` and `other`, and for `least`.
_OFF, _SKIRT = 0.2, 0.1
#: The feature `crowd` from which bad pixels stand together; more than so many of nine enclose the one in the middle.
TOGETHER, _ENCLOSED = 0.25, 4
#: Rings in which all that is good is compared with a pixel, in steps of its colour: around the pixel alone, and around
#: the room of clusters of up to 5 x 5 pixels, on mono and behind colour filters (of 2 x 2, one pixel is of a colour).
_ALONE, _ROOMS = (0, 2), {True: ((1, 3), (2, 4), (4, 6)), False: ((1, 3), (2, 4))}
#: The most good and bad pixels that tell it, and the least bad ones on one side.
_GOOD, _BAD, _FEWEST = 4096, 16_384, 32
#: Pixels whose surroundings are looked at at a time.
_CHUNK = 1 << 14


@dataclass(frozen=True, eq=False)
class Doubts:
    """A plane and how its pixels were judged so far.

    Parameters
    ----------
    light : Mosaic
        Without masked borders.
    odds : (H, W) float32 array
        Log-odds of bad, the damage rate included; -inf where there is no value.
    rate : float
        The damage rate.
    """

    light: Mosaic
    odds: Float32
    rate: float

    @cached_property
    def held(self) -> Array:
        """(M,) int64, ascending: row * W + column of the good pixels that are held back, spread over the plane."""
        good = (self.odds < -CERTAIN) & np.isfinite(self.odds)
        good.reshape(-1)[self.doubtful] = False
        pixels = np.flatnonzero(good)
        return pixels[:: max(1, -(-len(pixels) // _GOOD)) | 1][: len(pixels) // 8]

    @cached_property
    def doubtful(self) -> Array:
        """(N,) int64, ascending: row * W + column of the doubtful pixels."""
        return np.flatnonzero((np.abs(self.odds) < DOUBT) | self._outlying())

    @cached_property
    def _good(self) -> Bool:
        """(H, W) bool: what is good by its odds."""
        return (self.odds <= -DOUBT) & np.isfinite(self.odds)

    @cached_property
    def crowd(self) -> float:
        """The logarithm of how many times as many neighbours of certainly bad pixels are bad as chance has it / 4."""
        bad = self.odds > CERTAIN
        count = np.count_nonzero(bad)
        if not count:
            return 0.0
        beside = int(spread(bad.astype(np.uint8), 1, np.add)[bad].sum()) - count
        by_chance = 8 * count * count / bad.size
        return math.log((beside + 1) / (by_chance + 1)) / 4

    @cached_property
    def holes(self) -> Bool:
        """(H, W) bool: all that is not good beyond doubt, and what is held back."""
        holes = ~self._good
        for pixels in (self.doubtful, self.held):
            holes.reshape(-1)[pixels] = True
        return holes

    def _outlying(self) -> Bool:
        """(H, W) bool: what counts as good but lies far outside the good ones within two steps of its colour.

        Few, but where a dim scene is densely damaged nearly all of the error of a repair was theirs. Where damage is
        rarer they are rather the peaks of stars, unless they touch what is bad: a cluster's last pixels. Where bad
        pixels stand together there may be clusters of which none is known yet, whose pixels hide each other: what lies
        outside the good ones around the room of a cluster, if two such pixels touch, and what these enclose.
        """
        out = self._beyond(_ALONE)
        if self.rate >= _DENSE:
            return out
        bad = self.odds > 0
        if self.crowd < TOGETHER:
            return out & spread(bad, 1, np.logical_or)
        for ring in _ROOMS[self.light.cfa.is_mono]:
            out |= self._beyond(ring)
        beside = spread((out | bad).astype(np.uint8), 1, np.add)
        return (out & (beside > 1)) | ((beside > _ENCLOSED) & self._good)

    def _beyond(self, ring: tuple[int, int]) -> Bool:
        """(H, W) bool: what counts as good but lies far outside all good ones of its colour in a ring around it."""
        out = np.zeros(self.odds.shape, bool)
        pr, pc = self.light.cfa.period
        for r, c in self.light.cfa.positions:
            good = self._good[r::pr, c::pc]
            x = self.light.samples[r::pr, c::pc].astype(np.float32) - self.light.black_at(np.array(r), np.array(c))
            low, high = (np.where(good, x, np.float32(end)) for end in (np.inf, -np.inf))
            least, greatest = ring_of(low, *ring, np.minimum, np.inf), ring_of(high, *ring, np.maximum, -np.inf)
            off = (x > _OUTLYING * greatest) | (x < least / _OUTLYING)
            out[r::pr, c::pc] = good & np.isfinite(greatest) & off
        return out

    def encode(self, filled: Filled | Near, pixels: Array, doubtful: Answers, held: Answers) -> Float32:
        """The net's input for some doubtful pixels.

        Parameters
        ----------
        filled : Filled or Near
            First estimates in the `holes`.
        pixels : (N,) integer array
            Row * W + column.
        doubtful, held : ((N,) float64 array, (N,) float64 array), DN
            What the repairs of these pixels, and of those held back, would be and their standard errors. Where either
            is not a number all that depends on it is 0.

        Returns
        -------
        (N, LENGTH) float32 array
        """
        rows, cols = np.divmod(pixels, self.light.shape[1])
        span = self.light.white - float(np.mean(self.light.black))
        x, v, s, known = self._values(pixels, doubtful)
        z = (x - v) / s
        x, v = np.maximum(x, 0), np.maximum(v, 0)
        apart = np.log((x + s) / (v + s))
        out = np.zeros((len(pixels), LENGTH), np.float32)
        out[:, 0] = np.clip(self.odds[rows, cols] / 8, -1.5, 1.5)
        out[:, 1] = np.arcsinh(z) / 3
        out[:, 2] = np.log1p(z * z / 3) / 4
        out[:, 3] = np.clip(apart / 2, -2, 2)
        out[:, 4] = np.where(known, np.log(s / (v + s)) / 4, 0)
        out[:, 5], out[:, 6] = v / span, x / span
        out[:, 7] = logit(self.rate) / 4
        out[:, 8] = self.light.cfa.is_mono
        usual, scale = self._usual(np.abs(z), held)
        out[:, 12] = np.where(known, usual, 0)
        out[:, 13], out[:, 14] = scale
        everywhere = self._apart(filled)
        close, damage = self._damage(everywhere, apart)
        out[:, 15] = np.where(known, close, 0)
        out[:, 16], out[:, 17] = damage
        out[:, 18] = self.crowd
        for column, feature in enumerate(modes.of_plane(self.light), 22):
            out[:, column] = feature[rows, cols]
        for start in range(0, len(pixels), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._surroundings(rows[part], cols[part], out[part, 9:12])
            out[part, 19:22] = _group(everywhere, rows[part], cols[part], np.sign(apart[part]))
        return out

    def _surroundings(self, rows: Array, cols: Array, out: Float32) -> None:
        """The features `near`, `wide` and `beside` of some pixels, into (N, 3)."""
        for column, radius in ((0, 2), (1, 4)):
            odds, inside = windows(self.odds, None, rows, cols, radius)
            good = inside & (odds <= -DOUBT) & np.isfinite(odds)
            out[:, column] = good.sum(axis=(1, 2)) / ((2 * radius + 1) ** 2 - 1)
        touching, inside = windows(self.odds, None, rows, cols, 1)
        bad = inside / (1 + np.exp(-np.clip(touching, -30, 30)))
        bad[:, 1, 1] = 0
        out[:, 2] = bad.sum(axis=(1, 2)) / 8

    def _values(self, pixels: Array, answers: Answers) -> tuple[Array, Array, Array, Bool]:
        """Value and repair above black, sigma, and where there are any, each (N,); elsewhere value, value and 1."""
        rows, cols = np.divmod(pixels, self.light.shape[1])
        black = self.light.black_at(rows, cols)
        values, sigma = answers
        known = np.isfinite(values) & (sigma > 0)
        x = self.light.samples[rows, cols].astype(np.float64) - black
        return x, np.where(known, values - black, x), np.where(known, sigma, 1.0), known

    def _usual(self, z: Array, held: Answers) -> tuple[Array, tuple[float, float]]:
        """The logarithm of the share of pixels held back that are as far off, (N,), and two of their percentiles."""
        x, v, s, known = self._values(self.held, held)
        usual = np.sort(np.abs(x - v)[known] / s[known])
        if not len(usual):
            return np.zeros(len(z)), (0.0, 0.0)
        above = len(usual) - np.searchsorted(usual, z)
        middle, most = np.maximum(np.quantile(usual, (0.5, 0.95)), 1e-3)
        return np.log((above + 1) / (len(usual) + 2)) / 8, (math.log(middle) / 4, math.log(most) / 4)

    def _apart(self, filled: Filled | Near) -> Float32:
        """(H, W) logarithms of value over first estimate of all that is not good beyond doubt; 0 elsewhere."""
        out = np.zeros(self.odds.shape, np.float32)
        flat = np.flatnonzero(self.holes & np.isfinite(self.odds))
        rows, cols = np.divmod(flat, self.light.shape[1])
        errors, (pr, pc) = np.zeros(len(flat)), self.light.cfa.period
        for r, c in self.light.cfa.positions:
            here = (rows % pr == r) & (cols % pc == c)
            errors[here] = filled.error_at((r, c), rows[here], cols[here])
        x, v, s, _ = self._values(flat, (filled.at(rows, cols), np.maximum(errors, 1e-3)))
        out[rows, cols] = np.log((np.maximum(x, 0) + s) / (np.maximum(v, 0) + s))
        return out

    def _damage(self, everywhere: Float32, apart: Array) -> tuple[Array, list[float]]:
        """The logarithm of the share of bad pixels that are as near, (N,), and how far off bad ones are at least."""
        flat = np.flatnonzero(self.odds > CERTAIN)
        far = everywhere.reshape(-1)[flat[:: max(1, -(-len(flat) // _BAD)) | 1]]
        close, found = np.zeros(len(apart)), []
        for side in (1.0, -1.0):
            known, here = np.sort(side * far[side * far > 0]), side * apart > 0
            if len(known) < _FEWEST:
                found.append(0.0)
                continue
            nearer = np.searchsorted(known, side * apart[here])
            close[here] = np.log((nearer + 1) / (len(known) + 2)) / 8
            found.append(float(np.quantile(known, 0.05)) / 2)
        return close, found


def _group(apart: Float32, rows: Array, cols: Array, side: Array) -> Float32:
    """The features `same`, `other` and `least` of some pixels that are off to one side (+-1), (N, 3)."""
    out = np.zeros((len(rows), 3), np.float32)
    off = windows(apart, None, rows, cols, 2)[0] * side[:, None, None].astype(np.float32)
    off[:, 2, 2] = 0
    touching = off[:, 1:4, 1:4]
    out[:, 0] = (touching > _OFF).sum(axis=(1, 2)) / 8
    out[:, 1] = (touching < -_OFF).sum(axis=(1, 2)) / 8
    out[:, 2] = np.minimum(np.where(off > _SKIRT, off, np.float32(2)).min(axis=(1, 2)), 2) / 2
    return out
