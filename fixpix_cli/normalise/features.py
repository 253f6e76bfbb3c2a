"""What the detector sees of a plane: four features of every pixel, packed two by two.

Per pixel p, with its eight nearest neighbours of its own tile position (Bayer: two pixels apart; mono: one)::

    level   asinh(10 p / median of the colour) / 4
    stands  asinh((p - trimmed mean) / 2 sigma) / 2       trimmed: without the least and the greatest
    above   asinh((p - greatest) / 2 sigma) / 2
    below   asinh((least - p) / 2 sigma) / 2

in DN above black or the frame's own floor (`classical.levels`), sigma being the frame's noise at the trimmed mean.
So nothing depends on one camera's black, white, gain or bit depth. A Bayer frame is moved to the phase RGGB by
mirroring its edge: one net serves all four phases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..cfa import Cfa
from ..classical import Levels, levels
from ..mosaic import Array, Float32, Mosaic
from ..planes import same_phase

#: Name and version of this input contract.
NORMALISATION = "features-1"
#: Features of a pixel, and channels of the packed input (2 x 2 pixels).
FEATURES = 4
CHANNELS = 4 * FEATURES


def supports(cfa: Cfa) -> bool:
    """Whether frames of this CFA can be packed: mono and the four Bayer phases."""
    return cfa.is_mono or cfa.is_bayer


@dataclass(frozen=True, eq=False)
class Seen:
    """A plane ready to be looked at.

    Parameters
    ----------
    levels : classical.Levels
    middle : dict of colour to float, DN above the floor
        Median of the colour, positive.
    phase : (int, int)
        Rows and columns to put before the frame so that it begins with red.
    """

    levels: Levels
    middle: dict[str, float]
    phase: tuple[int, int]

    @classmethod
    def of(cls, light: Mosaic) -> Seen:
        """The statistics of a plane without masked borders."""
        seen = levels(light)
        pr, pc = light.cfa.period
        pools: dict[str, list[Array]] = {colour: [] for colour in light.cfa.colours}
        for r, c in light.cfa.positions:
            plane = seen.samples[r::pr, c::pc]
            sparse = plane[:: max(1, plane.shape[0] // 256), :: max(1, plane.shape[1] // 256)]
            pools[light.cfa.colour(r, c)].append(sparse[np.isfinite(sparse)])
        middle = {}
        for colour, parts in pools.items():
            pool = np.concatenate(parts)
            least = float(seen.noise.sigma(np.zeros(1))[0])
            middle[colour] = max(float(np.median(pool)) if pool.size else 0.0, least)
        phase = (0, 0)
        if light.cfa.is_bayer:
            phase = next(((r, c) for r, c in light.cfa.positions if light.cfa.colour(r, c) == "R"))
        return cls(seen, middle, phase)

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
        floor = np.array([[self.levels.floor[r, c] for c in range(pc)] for r in range(pr)], np.float32)
        middle = np.array([[self.middle[cfa.colour(r, c)] for c in range(pc)] for r in range(pr)], np.float32)
        inner = [i[step:-step] for i in index]
        floor, middle = (table[np.ix_(inner[0] % pr, inner[1] % pc)] for table in (floor, middle))
        if np.isnan(p).any():
            p = np.where(np.isnan(p), np.float32(np.median(list(self.middle.values()))), p)
        return _pack(*_four(p, step, floor, middle, self.levels))


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


def _pack(*features: Float32) -> Float32:
    return np.stack([f[r::2, c::2] for f in features for r in (0, 1) for c in (0, 1)])


def unpack(planes: Array) -> Array:
    """(4, h, w) answers of the net -> (2 h, 2 w)."""
    out = np.empty((2 * planes.shape[1], 2 * planes.shape[2]), planes.dtype)
    for number in range(4):
        out[number // 2 :: 2, number % 2 :: 2] = planes[number]
    return out
