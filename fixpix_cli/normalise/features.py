"""What the detector sees of a plane: five features of every pixel, packed two by two.

Per pixel p, with its eight nearest neighbours of its own tile position (Bayer: two pixels apart; mono: one)::

    level   asinh(10 p / median of the colour) / 4
    stands  asinh((p - trimmed mean) / 2 sigma) / 2       trimmed: without the least and the greatest
    above   asinh((p - greatest) / 2 sigma) / 2
    below   asinh((least - p) / 2 sigma) / 2
    rules   the log-likelihood ratio of `classical.ratios_of` / 8, -1.5 to 1.5

in DN above black or the frame's own floor (`levels.levels`), sigma being the frame's noise at the trimmed mean.
So nothing depends on one camera's black, white, gain or bit depth. A Bayer frame is moved to the phase RGGB by
mirroring its edge: one net serves all four phases. Where the colours are no grid the nearest of the same colour are
the neighbours (`patterns`), and nothing is moved.

Why the rules' answer is among them: a first net without it was better than the rules up to 5 % damage, where
texture misleads them, and worse from 10 to 30 %, where their second look without the suspects sees what the
extremes of eight neighbours hide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cfa import Cfa, Offset
from ..classical import ratios_of
from ..levels import Levels, levels
from ..mosaic import Array, Float32, Mosaic
from ..planes import gathered, same_phase
from . import patterns

#: Name and version of this input contract.
NORMALISATION = "features-2"
#: Features of a pixel, and channels of the packed input (2 x 2 pixels).
FEATURES = 5
CHANNELS = 4 * FEATURES


@dataclass(frozen=True, eq=False)
class Seen:
    """A plane ready to be looked at.

    Parameters
    ----------
    levels : Levels
    rules : (H, W) float32 array
        Log-likelihood ratios of the rules; -inf where the sample is NaN.
    phase : (int, int)
        Rows and columns to put before the frame so that it begins with red.
    """

    levels: Levels
    rules: Float32
    phase: tuple[int, int]

    @classmethod
    def of(cls, light: Mosaic, kind: str | None = None, threads: int = 1) -> Seen:
        """The statistics of a plane without masked borders, and what the rules say of it."""
        seen = levels(light)
        return cls(seen, ratios_of(seen, kind, threads), phase_of(light.cfa))

    def quieter(self, most: float, threads: int = 1) -> Seen:
        """The same with less noise as of `Levels.quieter`, and what the rules say then; itself where it has no more."""
        quiet = self.levels.quieter(most)
        return self if quiet is self.levels else Seen(quiet, ratios_of(quiet, threads=threads), self.phase)

    def features(self, rows: tuple[int, int], cols: tuple[int, int]) -> Float32:
        """The packed features of a rectangle.

        Parameters
        ----------
        rows, cols : (start, stop), even differences
            In coordinates of the frame moved to phase RGGB; what lies outside mirrors the frame.

        Returns
        -------
        (CHANNELS, h, w) float32 array
            Channel 4 f + 2 r + c: feature f of the pixel (r, c) of each 2 x 2 block.
        """
        if not self.levels.cfa.is_grid:
            return self._scattered(rows, cols)
        (top, bottom), (left, right) = rows, cols
        out = np.empty((CHANNELS, (bottom - top) // 2, (right - left) // 2), np.float32)
        if self.levels.cfa.is_mono:
            five = np.empty((FEATURES, bottom - top, right - left), np.float32)
            self._fill(five, rows, cols, 1)
            for channel in range(CHANNELS):
                out[channel] = five[channel // 4, channel % 4 // 2 :: 2, channel % 2 :: 2]
        else:  # the pixels of a tile position and their neighbours are a plane, and a channel
            for plane in range(4):
                r, c = divmod(plane, 2)
                self._fill(out[plane::4], (top + r, bottom + r), (left + c, right + c), 2)
        return out

    def _scattered(self, rows: tuple[int, int], cols: tuple[int, int]) -> Float32:
        """The packed features where the colours are no grid."""
        part = Part.of(self.levels, self.phase, rows, cols, patterns.reach(self.levels.cfa, 8))
        four = np.empty((4, *part.floor.shape), np.float32)
        _told(four, part.own, *patterns.extremes(part.samples, part.cfa), self.levels, part.floor, part.middle)
        return pack(*four, ratio_feature(self.rules[part.inner]))

    def _fill(self, out: Float32, rows: tuple[int, int], cols: tuple[int, int], step: int) -> None:
        """The features of the pixels ``rows[0]::step, cols[0]::step``, neighbours `step` pixels away, into `out`."""
        seen, samples = self.levels, self.levels.samples
        down, across = (
            same_phase(start - shift - step, stop - shift + step, size, period)[::step]
            for (start, stop), shift, size, period in zip(
                (rows, cols), self.phase, samples.shape, seen.cfa.period, strict=True
            )
        )
        position = int(down[1] % seen.cfa.period[0]), int(across[1] % seen.cfa.period[1])
        height, width = out.shape[1:]
        tall = max(1, CHUNK // width)
        for top in range(0, height, tall):
            part = slice(top, min(top + tall, height))
            p = gathered(samples, down[part.start : part.stop + 2], across, step, step)
            if np.isnan(p.min()):
                p[np.isnan(p)] = np.float32(np.median(list(seen.middle.values())))
            rules = gathered(self.rules, down[part.start + 1 : part.stop + 1], across[1:-1], step, step)
            _four(out[:4, part], p, seen, position)
            np.multiply(rules, np.float32(1 / 8), out=rules)
            np.clip(rules, np.float32(-1.5), np.float32(1.5), out=out[4, part])


#: Pixels that are worked on at once: the ten arrays of so many fit into the second cache.
CHUNK = 1 << 16


def phase_of(cfa: Cfa) -> tuple[int, int]:
    if not cfa.is_bayer:
        return (0, 0)
    return next((r, c) for r, c in cfa.positions if cfa.colour(r, c) == "R")


def step_of(cfa: Cfa) -> int:
    """How far the nearest neighbours of the same tile position are."""
    return 1 if cfa.is_mono else 2


def ratio_feature(ratios: Float32) -> Float32:
    return np.clip(ratios / np.float32(8), np.float32(-1.5), np.float32(1.5))


@dataclass(frozen=True, eq=False)
class Part:
    """A rectangle of a plane, in coordinates of the frame moved to phase RGGB, with a margin around it.

    Parameters
    ----------
    samples : (h + 2 margin, w + 2 margin) float32 array, DN above the floor; no NaN
    floor, middle : (h, w) float32 arrays, DN
    floor_around : (h + 2 margin, w + 2 margin) float32 array, DN
        The floor with the margin.
    cfa : Cfa
        As seen from the first pixel of the margin.
    outer, inner : indices into the frame, with the margin and without
    """

    samples: Float32
    floor: Float32
    middle: Float32
    floor_around: Float32
    cfa: Cfa
    outer: Any
    inner: Any

    @property
    def own(self) -> Float32:
        """(h, w): the samples without the margin."""
        margin = (len(self.samples) - len(self.floor)) // 2
        return self.samples[margin:-margin, margin:-margin]

    @classmethod
    def of(
        cls, seen: Levels, phase: tuple[int, int], rows: tuple[int, int], cols: tuple[int, int], margin: int
    ) -> Part:
        """What lies outside the frame mirrors it, in the same tile position."""
        (height, width), (pr, pc) = seen.samples.shape, seen.cfa.period
        index = [
            same_phase(start - shift - margin, stop - shift + margin, size, period)
            for (start, stop), shift, size, period in zip((rows, cols), phase, (height, width), (pr, pc), strict=True)
        ]
        samples = seen.samples[np.ix_(*index)]
        if np.isnan(samples).any():
            samples = np.where(np.isnan(samples), np.float32(np.median(list(seen.middle.values()))), samples)
        inner = [i[margin:-margin] for i in index]
        tiled = np.ix_(index[0] % pr, index[1] % pc)
        floor, middle = (
            np.array([[table[r, c] for c in range(pc)] for r in range(pr)], np.float32)[tiled]
            for table in (seen.floor, seen.middle)
        )
        core = (slice(margin, -margin), slice(margin, -margin))
        cfa = seen.cfa.shifted(int(index[0][0]), int(index[1][0]))
        return cls(samples, floor[core], middle[core], floor, cfa, np.ix_(*index), np.ix_(*inner))


def _four(out: Float32, p: Float32, seen: Levels, position: Offset) -> None:
    """The four features that the samples alone give, from (h + 2, w + 2) samples of a tile position into (4, h, w)."""
    x, left, right = p[1:-1, 1:-1], p[1:-1, :-2], p[1:-1, 2:]
    high, low = np.maximum(p[:, :-2], p[:, 1:-1]), np.minimum(p[:, :-2], p[:, 1:-1])
    np.maximum(high, p[:, 2:], out=high)
    np.minimum(low, p[:, 2:], out=low)
    total = p[:, :-2] + p[:, 1:-1]
    total += p[:, 2:]
    greatest, least = np.maximum(high[:-2], high[2:]), np.minimum(low[:-2], low[2:])
    for side in (left, right):
        np.maximum(greatest, side, out=greatest)
        np.minimum(least, side, out=least)
    mean = total[:-2] + total[2:]
    for term, sign in ((left, np.add), (right, np.add), (greatest, np.subtract), (least, np.subtract)):
        sign(mean, term, out=mean)
    mean /= np.float32(6)
    _told(out, x, mean, greatest, least, seen, np.float32(seen.floor[position]), np.float32(seen.middle[position]))


def _told(
    out: Float32,
    x: Float32,
    mean: Float32,
    greatest: Float32,
    least: Float32,
    seen: Levels,
    floor: Float32 | np.float32,
    middle: Float32 | np.float32,
) -> None:
    """The four features of samples x from what is known of their neighbours, into (4, h, w)."""
    scale = half_sigma(seen, mean + floor)
    np.multiply(x, np.float32(10), out=out[0])
    out[0] /= middle
    for stands, one, two in ((out[1], x, mean), (out[2], x, greatest), (out[3], least, x)):
        np.subtract(one, two, out=stands)
        stands *= scale
    for feature, factor in zip(out, (0.25, 0.5, 0.5, 0.5), strict=True):
        np.arcsinh(feature, out=feature)
        feature *= np.float32(factor)


def level_feature(samples: Float32, middle: Float32) -> Float32:
    return np.arcsinh(np.float32(10) * samples / middle) * np.float32(0.25)


def half_sigma(seen: Levels, signal: Float32) -> Float32:
    """1 / (2 sigma) at a signal in DN above black, single precision."""
    noise = seen.noise
    variance = np.maximum(signal, 0)
    variance *= np.float32(noise.gain)
    variance += np.float32(noise.offset)
    np.maximum(variance, np.float32(noise.floor), out=variance)
    np.sqrt(variance, out=variance)
    return np.divide(np.float32(0.5), variance, out=variance)


def pack(*features: Array) -> Array:
    """(H, W) arrays -> (4 per array, H / 2, W / 2): `unpack` backwards."""
    return np.stack([f[r::2, c::2] for f in features for r in (0, 1) for c in (0, 1)])


def unpack(planes: Array) -> Array:
    """(4, h, w) answers of the net -> (2 h, 2 w)."""
    out = np.empty((2 * planes.shape[1], 2 * planes.shape[2]), planes.dtype)
    for number in range(4):
        out[number // 2 :: 2, number % 2 :: 2] = planes[number]
    return out
