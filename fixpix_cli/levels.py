"""Floor 1. What a detector must know of a whole frame to judge its pixels: floor, middle and noise of each colour."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .cfa import Cfa, Offset
from .mosaic import Array, Bool, Float32, Mosaic
from .noise import NoiseModel

#: Least noise of integer samples, DN. Where the noise is less than a step, most samples are alike and each that is one
#: off stands out of all its neighbours: with the 0.29 DN of rounding alone a fifth of a quiet frame's pixels were bad.
STEP_SIGMA = 0.6


@dataclass(frozen=True, eq=False)
class Statistics:
    """Floor, middle and noise of a plane.

    Parameters
    ----------
    floor : dict of tile position to float, DN above black
        0, or the frame's own floor where that is higher.
    middle : dict of tile position to float, DN above the floor
        Median of the colour; at least the noise at the floor, so above 0.
    cfa : Cfa
    noise : NoiseModel
    """

    floor: dict[Offset, float]
    middle: dict[Offset, float]
    cfa: Cfa
    noise: NoiseModel

    @classmethod
    def of(cls, light: Mosaic, without: Bool | None = None) -> Statistics:
        """From the frame itself, or at most some 256 x 256 pixels of each tile position.

        Parameters
        ----------
        light : Mosaic
            Without masked borders; floats as `comparable` makes them.
        without : (H, W) bool array, optional
            Pixels that floor, middle and noise are not taken from.
        """
        counted = light.is_integer
        if without is not None:
            light = light.with_samples(np.where(without, np.nan, light.samples))
        pr, pc = light.cfa.period
        pools: dict[str, list[Array]] = {colour: [] for colour in light.cfa.colours}
        for r, c in light.cfa.positions:
            rows, cols = (
                np.arange(first, size, period * max(1, len(range(first, size, period)) // 256))
                for first, size, period in zip((r, c), light.shape, (pr, pc), strict=True)
            )
            sparse = light.samples[np.ix_(rows, cols)].astype(np.float32)
            sparse -= light.black_at(rows[:, None], cols[None, :])
            pools[light.cfa.colour(r, c)].append(sparse[np.isfinite(sparse)])
        noise = NoiseModel.of(light)
        if counted:
            noise = replace(noise, floor=max(noise.floor, STEP_SIGMA**2))
        least = float(noise.sigma(np.zeros(1))[0])
        # One floor per colour: neighbours at other tile positions must stay comparable.
        lowest, median = {}, {}
        for colour, parts in pools.items():
            low, half = np.quantile(np.concatenate([*parts, [0.0] * (not any(map(len, parts)))]), (0.005, 0.5))
            lowest[colour] = max(0.0, float(low))
            median[colour] = max(float(half) - lowest[colour], least)
        floor, middle = (
            {p: by_colour[light.cfa.colour(*p)] for p in light.cfa.positions} for by_colour in (lowest, median)
        )
        return cls(floor, middle, light.cfa, noise)

    def sigma(self, values: Array, position: Offset) -> Float32:
        """Noise in DN at values (DN above the floor) of a tile position. The noise counts from black."""
        noise, sigma = self.noise, values + self.floor[position]
        np.maximum(sigma, 0, out=sigma)
        sigma *= noise.gain
        sigma += noise.offset
        np.maximum(sigma, noise.floor, out=sigma)
        return np.sqrt(sigma, out=sigma).astype(np.float32, copy=False)

    @property
    def noise_share(self) -> float:
        """Noise at the middle as a share of the level there, of the colour where it is least."""
        return min(
            float(self.sigma(np.array([middle], np.float32), p)[0] / (middle + self.floor[p]))
            for p, middle in self.middle.items()
        )


@dataclass(frozen=True, eq=False)
class Levels(Statistics):
    """A plane's samples above its floor, and what the noise needs to know of them.

    Parameters
    ----------
    samples : (H, W) float32 array, DN above `floor`
    """

    samples: Float32

    def quieter(self, most: float) -> Levels:
        """The same with less noise, where `noise_share` is more than `most`.

        Dense damage is taken for noise: at 40 % of damage the estimate is 0.5 to 3 times the middle, more than any
        sensor's where there is light, and rules see nothing that stands out of it.
        """
        if (share := self.noise_share) <= most:
            return self
        factor = (most / share) ** 2
        noise = replace(self.noise, gain=self.noise.gain * factor, offset=self.noise.offset * factor)
        return replace(self, noise=noise)


def levels(light: Mosaic, without: Bool | None = None) -> Levels:
    """The samples above the black level or the frame's floor; floats are scaled, see `comparable`.

    Parameters
    ----------
    light : Mosaic
    without : (H, W) bool array, optional
        Pixels that floor, middle and noise are not taken from.
    """
    light = comparable(light)
    seen = Statistics.of(light, without)
    samples = light.samples.astype(np.float32) - light.black_frame()
    pr, pc = light.cfa.period
    for r, c in light.cfa.positions:
        samples[r::pr, c::pc] -= seen.floor[r, c]
    return Levels(seen.floor, seen.middle, seen.cfa, seen.noise, samples)


def comparable(light: Mosaic) -> Mosaic:
    """Floats as numbers whose squares single precision can hold; what is not finite becomes NaN.

    Radiances of 1e-30 or 1e30 occur. A power of two changes no ratio.
    """
    if light.is_integer:
        return light
    samples = np.where(np.isfinite(light.samples), light.samples, np.nan).astype(np.float64)
    known = np.abs(samples[np.isfinite(samples)][::7])
    size = float(np.quantile(known, 0.99)) if known.size else 0.0
    factor = 2.0 ** (12 - np.floor(np.log2(size))) if size > 0 else 1.0
    black = tuple(tuple(b * factor for b in row) for row in light.black)
    scaled = np.clip(samples * factor, -1e12, 1e12).astype(np.float32)
    return Mosaic(scaled, light.cfa, black, light.white * factor)
