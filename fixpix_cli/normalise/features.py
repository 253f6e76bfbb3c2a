"""What the detector sees of a plane: five features of every pixel, packed two by two.

Per pixel p, with its eight nearest neighbours of its own tile position (Bayer: two pixels apart; mono: one)::

    level   asinh(10 p / median of the colour) / 4
    stands  asinh((p - trimmed mean) / 2 sigma) / 2       trimmed: without the least and the greatest
    above   asinh((p - greatest) / 2 sigma) / 2
    below   asinh((least - p) / 2 sigma) / 2
    rules   the log-likelihood ratio of `classical.ratios_of` / 8, -1.5 to 1.5

in DN above black or the frame's own floor (`classical.levels`), sigma being the frame's noise at the trimmed mean.
So nothing depends on one camera's black, white, gain or bit depth. A Bayer frame is moved to the phase RGGB by
mirroring its edge: one net serves all four phases.

Why the rules' answer is among them: a first net without it was better than the rules up to 5 % damage, where
texture misleads them, and worse from 10 to 30 %, where their second look without the suspects sees what the
extremes of eight neighbours hide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..classical import Levels, levels, ratios_of
from ..mosaic import Array, Float32, Mosaic
from ..planes import same_phase

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
    levels : classical.Levels
    rules : (H, W) float32 array
        Log-likelihood ratios of the rules; -inf where the sample is NaN.
    phase : (int, int)
        Rows and columns to put before the frame so that it begins with red.
    """

    levels: Levels
    rules: Float32
    phase: tuple[int, int]

    @classmethod
    def of(cls, light: Mosaic, kind: str | None = None) -> Seen:
        """The statistics of a plane without masked borders, and what the rules say of it."""
        seen = levels(light)
        phase = (0, 0)
        if light.cfa.is_bayer:
            phase = next(((r, c) for r, c in light.cfa.positions if light.cfa.colour(r, c) == "R"))
        return cls(seen, ratios_of(seen, kind), phase)

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
        cfa, step = self.levels.cfa, 1 if self.levels.cfa.is_mono else 2
        (height, width), (pr, pc) = self.levels.samples.shape, cfa.period
        index = [
            same_phase(start - shift - step, stop - shift + step, size, period)
            for (start, stop), shift, size, period in zip(
                (rows, cols), self.phase, (height, width), (pr, pc), strict=True
            )
        ]
        p = self.levels.samples[np.ix_(*index)]
        inner = [i[step:-step] for i in index]
        tiled = np.ix_(inner[0] % pr, inner[1] % pc)
        floor, middle = (
            np.array([[table[r, c] for c in range(pc)] for r in range(pr)], np.float32)[tiled]
            for table in (self.levels.floor, self.levels.middle)
        )
        if np.isnan(p).any():
            p = np.where(np.isnan(p), np.float32(np.median(list(self.levels.middle.values()))), p)
        rules = np.clip(self.rules[np.ix_(*inner)] / np.float32(8), np.float32(-1.5), np.float32(1.5))
        return pack(*_four(p, step, floor, middle, self.levels), rules)


def _four(p: Float32, step: int, floor: Float32, middle: Float32, seen: Levels) -> list[Float32]:
    """The four features of the pixels inside a margin of `step`."""
    m = slice(step, -step)
    x, left, right = p[m, m], p[m, : -2 * step], p[m, 2 * step :]
    whole = [p[:, : -2 * step], p[:, m], p[:, 2 * step :]]
    high = np.maximum(np.maximum(whole[0], whole[1]), whole[2])
    low = np.minimum(np.minimum(whole[0], whole[1]), whole[2])
    total = whole[0] + whole[1] + whole[2]
    up, down = slice(None, -2 * step), slice(2 * step, None)
    greatest = np.maximum(np.maximum(high[up], high[down]), np.maximum(left, right))
    least = np.minimum(np.minimum(low[up], low[down]), np.minimum(left, right))
    mean = (total[up] + total[down] + left + right - greatest - least) / np.float32(6)
    noise = seen.noise
    variance = np.float32(noise.offset) + np.float32(noise.gain) * np.maximum(mean + floor, 0)
    scale = np.float32(0.5) / np.sqrt(np.maximum(variance, np.float32(noise.floor)))
    half = np.float32(0.5)
    return [
        np.arcsinh(np.float32(10) * x / middle) * np.float32(0.25),
        np.arcsinh((x - mean) * scale) * half,
        np.arcsinh((x - greatest) * scale) * half,
        np.arcsinh((least - x) * scale) * half,
    ]


def pack(*features: Array) -> Array:
    """(H, W) arrays -> (4 per array, H / 2, W / 2): `unpack` backwards."""
    return np.stack([f[r::2, c::2] for f in features for r in (0, 1) for c in (0, 1)])


def unpack(planes: Array) -> Array:
    """(4, h, w) answers of the net -> (2 h, 2 w)."""
    out = np.empty((2 * planes.shape[1], 2 * planes.shape[2]), planes.dtype)
    for number in range(4):
        out[number // 2 :: 2, number % 2 :: 2] = planes[number]
    return out
