"""Floor 1. The noise of a frame, estimated from the frame itself.

Model: variance = offset + gain * signal, signal in DN above black (Foi et al.,
"Practical Poissonian-Gaussian noise modeling and fitting", 2008). The estimate
uses differences of same-colour neighbours in small blocks and, at each signal
level, the quieter blocks, since texture only adds to differences.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .mosaic import Array, Mosaic

_BLOCK = 8
#: At most so many signal levels, each of at least `_FEWEST` cases. Fewer cases than both make up are fewer levels: a
#: frame of 60 x 80 pixels with noise of 10 DN once had the noise of rounding, and an eighth of its bad pixels was not
#: found.
_LEVELS, _FEWEST = 16, 8


@dataclass(frozen=True)
class NoiseModel:
    """variance (DN^2) = offset + gain * max(signal, 0), never below `floor`."""

    gain: float
    offset: float
    floor: float = 1e-12

    def sigma(self, signal: Array) -> Array:
        """Standard deviation in DN at a signal in DN above black."""
        variance = self.offset + self.gain * np.maximum(signal, 0)
        return np.sqrt(np.maximum(variance, self.floor))

    @classmethod
    def of(cls, mosaic: Mosaic) -> NoiseModel:
        """Estimate the model of one plane; at most about a million pixels are looked at."""
        light = mosaic.light()
        floor = 1.0 / 12.0 if mosaic.is_integer else 1e-12
        means, sigmas = [], []
        for row, col in light.cfa.positions:
            plane = light.samples[row :: light.cfa.period[0], col :: light.cfa.period[1]]
            black = light.black[row % len(light.black)][col % len(light.black[0])]
            mean, sigma = _blocks(plane, black, mosaic.white)
            means.append(mean)
            sigmas.append(sigma)
        signal, sigma = np.concatenate(means), np.concatenate(sigmas)
        enough = len(signal) >= _FEWEST
        if enough and len(signal) < _LEVELS * _FEWEST and not light.is_integer:
            # Where gaps leave few whole blocks, pairs of all pixels know more than the blocks.
            enough = bool(np.isfinite(light.samples).all())
        level, variance = _by_level(signal, sigma, _quiet_blocks) if enough else _pairs(light)
        x, y = np.array(level), np.array(variance)
        if len(x) < 3 or np.ptp(x) <= 0:
            return cls(0.0, max(float(np.median(y)) if len(y) else floor, floor), floor)
        weight = 1.0 / (y + 0.05 * y.mean() + floor)
        gain, offset = np.polyfit(x, y, 1, w=weight)
        if gain < 0:
            gain, offset = 0.0, float(np.average(y, weights=weight))
        if offset < 0:  # then the line through 0, by the levels above black; dense damage has most below it
            lit = x > 0
            if np.count_nonzero(lit) >= 3:
                gain, offset = float(weight[lit] @ y[lit] / (weight[lit] @ x[lit])), 0.0
            else:
                gain, offset = 0.0, float(np.average(y, weights=weight))
        return cls(float(gain), max(float(offset), floor), floor)


def _by_level(signal: Array, spread: Array, variance_of: Callable[[Array], float]) -> tuple[list[float], list[float]]:
    """Signal levels with enough cases, and the noise variance of each."""
    edges = np.quantile(signal, np.linspace(0, 1, min(_LEVELS, max(1, len(signal) // _FEWEST)) + 1))
    level, variance = [], []
    for low, high in itertools.pairwise(edges):
        chosen = (signal >= low) & (signal <= high)
        if np.count_nonzero(chosen) >= _FEWEST:
            level.append(float(np.median(signal[chosen])))
            variance.append(variance_of(spread[chosen]))
    return level, variance


def _quiet_blocks(sigma: Array) -> float:
    # In pure noise the lower quartile of the block estimates lies 10 % low.
    return float(np.quantile(sigma, 0.25) * 1.105) ** 2


def _pairs(light: Mosaic) -> tuple[list[float], list[float]]:
    """Levels and variances of a frame too small, or with too many gaps, for blocks: from same-colour pairs."""
    means, differences = [np.empty(0)], [np.empty(0)]
    for row, col in light.cfa.positions:
        plane = light.samples[row :: light.cfa.period[0], col :: light.cfa.period[1]].astype(np.float64)
        black = light.black[row % len(light.black)][col % len(light.black[0])]
        for one, two in ((plane[:, :-1], plane[:, 1:]), (plane[:-1], plane[1:])):
            stride = max(1, one.size // 500_000)
            one, two = one.ravel()[::stride], two.ravel()[::stride]
            both = np.isfinite(one) & np.isfinite(two) & (np.maximum(one, two) < light.white)
            means.append((one[both] + two[both]) / 2 - black)
            differences.append(np.abs(one[both] - two[both]))
    return _by_level(np.concatenate(means), np.concatenate(differences), _quiet_pairs) if len(means[-1]) else ([], [])


def _quiet_pairs(differences: Array) -> float:
    # The lesser half of |a - b| has the mean 0.459 sigma for normal a and b; texture is in the greater half.
    lesser = np.sort(differences)[: max(1, len(differences) // 2)]
    return float(lesser.mean() / 0.459) ** 2


def _blocks(plane: Array, black: float, white: float) -> tuple[Array, Array]:
    """Median level above black and noise sigma of 8 x 8 blocks of one colour plane, in DN."""
    height, width = plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK
    if not height or not width:
        return np.empty(0), np.empty(0)
    stride = max(1, round((height * width / 4096) ** 0.5))
    blocks = (
        plane[: height * _BLOCK, : width * _BLOCK]
        .reshape(height, _BLOCK, width, _BLOCK)[::stride, :, ::stride]
        .swapaxes(1, 2)
        .reshape(-1, _BLOCK, _BLOCK)
        .astype(np.float64)
    )
    blocks = blocks[np.isfinite(blocks).all(axis=(1, 2)) & (blocks.max(axis=(1, 2)) < white)]
    if not len(blocks):
        return np.empty(0), np.empty(0)
    horizontal = np.abs(np.diff(blocks, axis=2)).reshape(len(blocks), -1)
    vertical = np.abs(np.diff(blocks, axis=1)).reshape(len(blocks), -1)
    quieter = np.minimum(_spread(horizontal), _spread(vertical))
    ordered = np.sort(blocks.reshape(len(blocks), -1), axis=1)  # a tenth of the time of np.median
    half = ordered.shape[1] // 2
    return (ordered[:, half - 1] + ordered[:, half]) / 2 - black, quieter


def _spread(differences: Array) -> Array:
    """Robust sigma from absolute differences.

    A median of small integers is coarse (0, 1, 2 DN), so this is the mean of
    the differences below their upper quartile. For unit normal noise in 8 x 8
    blocks the lesser of the horizontal and the vertical one is 0.689 on average.
    """
    ordered = np.sort(differences, axis=1)
    return ordered[:, : ordered.shape[1] * 3 // 4].mean(axis=1) / 0.689
