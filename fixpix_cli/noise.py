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
_LEVELS = 16


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
        level, variance = _by_level(signal, sigma, _quiet_blocks) if len(signal) >= 8 else _pairs(light)
        x, y = np.array(level), np.array(variance)
        if len(x) < 3 or np.ptp(x) <= 0:
            return cls(0.0, max(float(np.median(y)) if len(y) else floor, floor), floor)
        weight = 1.0 / (y + 0.05 * y.mean() + floor)
        gain, offset = np.polyfit(x, y, 1, w=weight)
        if gain < 0:
            gain, offset = 0.0, float(np.average(y, weights=weight))
        if offset < 0:
            offset = 0.0
            gain = max(float(np.average(y / np.maximum(x, 1e-9), weights=weight * np.maximum(x, 0) + 1e-12)), 0.0)
        return cls(float(gain), max(float(offset), floor), floor)


def _by_level(signal: Array, spread: Array, variance_of: Callable[[Array], float]) -> tuple[list[float], list[float]]:
    """Signal levels with enough cases, and the noise variance of each."""
    edges = np.quantile(signal, np.linspace(0, 1, _LEVELS + 1))
    level, variance = [], []
    for low, high in itertools.pairwise(edges):
        chosen = (signal >= low) & (signal <= high)
        if np.count_nonzero(chosen) >= 8:
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
