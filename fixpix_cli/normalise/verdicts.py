"""Floor 1. What the net sees that has the last word on a doubtful candidate: its value, its repair, and the others.

A candidate is doubtful where the spot detector's net is sure neither that it is good nor that it is bad. It is repaired
as if it were bad, from what is neither doubtful nor clearly bad. With x its value and v and s the repair and its sigma,
x and v above black, and n the noise of the frame at v::

    told      log-likelihood ratio of the spot detector's net / 8, -2 to 3
    rules     the same of the rules / 8, -2 to 2
    apart     asinh((x - v) / s) / 3
    unlikely  log(1 + ((x - v) / s)^2 / 3) / 4
    ratio     log of (x + s) / (v + s) / 2, -2 to 2
    sure      log of s / (v + s) / 4
    trust     log of s / n / 4
    signal    log(1 + v / n) / 4
    level     asinh(10 v / middle of the colour) / 4
    top       1 where x is at white; bottom: 1 where it is at black
    mono      1, or 0 behind colour filters; green: 1 where the pixel is green
    possible  log of the share of the frame's pixels with a ratio above 0 / 8; likely: above 4
    around    the same two shares, the second from a ratio of 2 on, in the 48 x 48 pixels around
    rank      log of the share of the frame's pixels that are doubtful and as far from their repair, in sigma / 8
    place     log of the share of the frame's pixels with as great a ratio / 8
    middle    log of the median |x - v| / s of the doubtful / 4; most: of their 90th percentile
    beside    greatest ratio / 8 among the 8 that touch the pixel, and the 8 two steps away
    company   share of the same with a ratio above 0
    close     log of the share of the doubtful with a ratio above 8, on the same side, that are at most so far off / 8
    damage    how far off these are: the 5th percentile of |log (x / v)| above and below / 2; 0 where they are few

What comes after `green` tells what is usual in this frame. Sharp texture makes many doubtful candidates, near each
other, and their distances run on without a gap from those of noise. What is left out made nets worse on cameras that
trained nothing: the window around the candidate, the noise in DN, and levels as shares of white.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..cfa import Offset
from ..levels import Statistics
from ..mosaic import Array, Bool, Float32, Mosaic

#: Name and version of this input contract.
NORMALISATION = "verdicts-1"
LENGTH = 28
#: Ratios between which a candidate is doubtful. On the validation cameras none below is bad enough to be flagged, and
#: above the mean of both ratios says the same as the net; a hundredth of damage leaves a fifth as many to repair.
LEAST, MOST = 3.0, 14.0
#: Ratios from which candidates are counted in a frame and nearby, and from which doubtful ones tell how far off bad
#: pixels are.
_POSSIBLE, _LIKELY, _NEARBY, _PROBABLE = 0.0, 4.0, 2.0, 8.0
#: Least such pixels on one side.
_FEWEST = 8
#: Rows and columns of the cells whose candidates are counted, each with its eight neighbours.
_CELL = 16
#: Added to shares before their logarithm is taken: of a frame, of some cells.
_FRAME, _AROUND = 1e-5, 1e-4
#: Ratio of a pixel that is no candidate.
_NONE = np.float32(-12.0)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """The candidates of a plane and what the spot detector's net says of them.

    Parameters
    ----------
    light : Mosaic
        Without masked borders; floats as `levels.comparable` makes them.
    seen : Statistics
    pixels : (N,) int64 array
        Row * W + column, ascending.
    told : (N,) float32 array
        Log-likelihood ratios.
    """

    light: Mosaic
    seen: Statistics
    pixels: Array
    told: Float32

    @cached_property
    def index(self) -> Array:
        """(M,) places of the doubtful ones in `pixels`, ascending."""
        return np.flatnonzero((self.told > LEAST) & (self.told <= MOST))

    @cached_property
    def doubtful(self) -> Array:
        """(M,) int64: row * W + column of the doubtful ones."""
        return self.pixels[self.index]

    @property
    def holes(self) -> Bool:
        """(H, W) bool: the doubtful ones, those that are clearly bad, and what has no value."""
        holes = np.zeros(self.light.shape, bool) if self.light.is_integer else ~np.isfinite(self.light.samples)
        holes.reshape(-1)[self.pixels[self.told > LEAST]] = True
        return holes

    def encode(self, rules: Float32, values: Array, sigma: Array) -> Float32:
        """The net's input for the doubtful ones.

        Parameters
        ----------
        rules : (M,) float32 array
            Log-likelihood ratios.
        values, sigma : (M,) float64 arrays, DN
            What their repairs would be, and their standard errors. Where either is not a number the pixel's own
            value stands for it, so that nothing is apart.

        Returns
        -------
        (M, LENGTH) float32 array
        """
        rows, cols = np.divmod(self.doubtful, self.light.shape[1])
        black, told = self.light.black_at(rows, cols), self.told[self.index]
        x = self.light.samples[rows, cols].astype(np.float64) - black
        known = np.isfinite(values) & (sigma > 0)
        v = np.maximum(np.where(known, values - black, x), 0)
        noise = self._noise(v)
        s = np.where(known, sigma, noise)
        z, x = np.where(known, (x - values + black) / s, 0.0), np.maximum(x, 0)
        apart = np.log((x + s) / (v + s))
        span = self.light.white - float(np.mean(self.light.black))
        out = np.zeros((len(rows), LENGTH), np.float32)
        out[:, 0] = np.clip(told / 8, -2, 3)
        out[:, 1] = np.clip(rules / 8, -2, 2)
        out[:, 2] = np.arcsinh(z) / 3
        out[:, 3] = np.log1p(z * z / 3) / 4
        out[:, 4] = np.clip(apart / 2, -2, 2)
        out[:, 5] = np.log(s / (v + s)) / 4
        out[:, 6] = np.log(s / noise) / 4
        out[:, 7] = np.log1p(v / noise) / 4
        out[:, 8] = np.arcsinh(10 * v / self._by_position(rows, cols, self.seen.middle)) / 4
        out[:, 9], out[:, 10] = x >= 0.99 * span, x <= 0.001 * span
        out[:, 11] = self.light.cfa.is_mono
        green = {place: self.light.cfa.colour(*place) == "G" for place in self.light.cfa.positions}
        out[:, 12] = self._by_position(rows, cols, green)
        self._frame(np.abs(z), told, out[:, 13:21])
        self._near(rows, cols, out[:, 15:17])
        self._beside(rows, cols, out[:, 21:25])
        self._damage(apart, told, out[:, 25:28])
        return out

    def _noise(self, v: Array) -> Array:
        return np.maximum(self.seen.noise.sigma(v), 1e-6)

    def _by_position(self, rows: Array, cols: Array, of: Mapping[Offset, float]) -> Array:
        pr, pc = self.light.cfa.period
        table = np.array([[of[r, c] for c in range(pc)] for r in range(pr)], np.float64)
        return table[rows % pr, cols % pc]

    def _frame(self, z: Array, told: Float32, out: Float32) -> None:
        """The features `possible`, `likely`, (two of others), `rank`, `place`, `middle` and `most`, into (M, 8)."""
        size = self.light.samples.size
        ratios, far = np.sort(self.told[self.told > _POSSIBLE]), np.sort(z)
        out[:, 0] = np.log(len(ratios) / size + _FRAME) / 8
        out[:, 1] = np.log(np.count_nonzero(ratios > _LIKELY) / size + _FRAME) / 8
        for column, ranked, mine in ((4, far, z), (5, ratios, told)):
            out[:, column] = np.log((len(ranked) - np.searchsorted(ranked, mine)) / size + _FRAME) / 8
        out[:, 6:8] = np.log(np.quantile(far, (0.5, 0.9)) + 0.1) / 4

    def _near(self, rows: Array, cols: Array, out: Float32) -> None:
        """The features `around`, into (M, 2)."""
        down, across = (-(-n // _CELL) for n in self.light.shape)
        r, c = np.divmod(self.pixels, self.light.shape[1])
        cells, mine = r // _CELL * across + c // _CELL, rows // _CELL * across + cols // _CELL
        for column, least in enumerate((_POSSIBLE, _NEARBY)):
            count = np.bincount(cells[self.told > least], minlength=down * across).reshape(down, across)
            count = np.pad(count, 1)
            count = count[:-2] + count[1:-1] + count[2:]
            count = count[:, :-2] + count[:, 1:-1] + count[:, 2:]
            out[:, column] = np.log(count.reshape(-1)[mine] / (3 * _CELL) ** 2 + _AROUND) / 8

    def _beside(self, rows: Array, cols: Array, out: Float32) -> None:
        """The features `beside` and `company`, into (M, 4)."""
        height, width = self.light.shape
        for column, step in enumerate((1, 2)):
            most, company = np.full(len(rows), _NONE, np.float32), np.zeros(len(rows), np.float32)
            for down, across in ((r, c) for r in (-step, 0, step) for c in (-step, 0, step) if r or c):
                r, c = rows + down, cols + across
                inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
                found = self._told_at(np.where(inside, r * width + c, -1))
                np.maximum(most, found, out=most)
                company += found > 0
            out[:, column], out[:, 2 + column] = np.clip(most / 8, -1.5, 3), company / 8

    def _told_at(self, flat: Array) -> Float32:
        """Ratios of pixels that need not be candidates."""
        place = np.minimum(np.searchsorted(self.pixels, flat), len(self.pixels) - 1)
        return np.where(self.pixels[place] == flat, self.told[place], _NONE)

    def _damage(self, apart: Array, told: Float32, out: Float32) -> None:
        """The features `close` and `damage`, into (M, 3)."""
        probable = apart[told > _PROBABLE]
        for column, side in ((1, 1.0), (2, -1.0)):
            known, here = np.sort(side * probable[side * probable > 0]), side * apart > 0
            if len(known) >= _FEWEST:
                nearer = np.searchsorted(known, side * apart[here], side="right")
                out[here, 0] = np.log((nearer + 1) / (len(known) + 2)) / 8
                out[:, column] = np.quantile(known, 0.05) / 2
