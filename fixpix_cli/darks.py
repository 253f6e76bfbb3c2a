"""Floor 1. What darks say of dark current, condition by condition, and of the camera as a whole.

The excess of pixels over their same-colour neighbours in DN, by exposure and temperature, and from it the gain, the
doubling temperature of its dark current and the exponent of the exposure. `darkcurrent` fits pixels with them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .evidence import DARK, Bin, Evidence
from .kinds import fluctuation, level
from .mosaic import Array
from .suspects import STEP
from .tally import Tally

#: Doubling temperature in C and its standard error where only one temperature was seen: uniform in 5 to 8 C.
DOUBLING, DOUBLING_ERROR = 6.5, 0.87
#: Sigma of one frame, in noise sigmas, that a pixel without an entry may have been off zero.
UNSEEN = 3.5
#: DN per electron where no condition has frames enough to measure it: wide rather than narrow.
GAIN = 1.0
#: 1 / Td in 1/C from which on it counts as measured: the least is a doubling in 50 C.
_LEAST = 0.02
#: A reading of the temperature is off by as much, in C.
READING = 0.2
#: Geometric mean of two excesses in noise sigmas from which a pixel tells of exposure and temperature; with fewer
#: pixels than `FEW` a pair of conditions tells nothing.
BRIGHT, FEW = 20.0, 10
#: From this share of the greatest excess a pixel may be saturated.
FULL = 0.8
#: Conditions count as different from these ratios of exposures, and differences in C, on.
_TIMES, _DEGREES = 1.3, 2.0


@dataclass(frozen=True, eq=False)
class Levels:
    """What the frames of one condition say of some pixels.

    Parameters
    ----------
    exposure : float, s
        0 for a bias.
    temperature : float, C, or None
    frames : int
    noise : float, DN
        Sigma of one frame at the background.
    pixels : (N,) int64 array
        row * W + col, ascending.
    excess : (N,) float64 array, DN
        Mean over the frames that suspected the pixel, over its same-colour neighbours.
    variance : (N,) float64 array, DN^2
        Of one frame about that mean; NaN where unknown.
    seen : (N,) int array
        Frames that suspected it.
    """

    exposure: float
    temperature: float | None
    frames: int
    noise: float
    pixels: Array
    excess: Array
    variance: Array
    seen: Array

    @classmethod
    def of(cls, tally: Tally, exposure: float, temperature: float | None) -> Levels | None:
        """What a tally says; entries within 2 sigma of their neighbours count as not suspected.

        None where no entry knows its level (maps of older formats) or the noise cannot be told.
        """
        entries = tally.entries[tally.entries["measured"] > 0]
        sigmas = entries["excess"] / np.maximum(entries["suspected"], 1) / STEP
        dn = level(entries)
        clear = (np.abs(sigmas) >= 3) & (np.abs(sigmas) < 2000) & (dn * sigmas > 0)
        if not clear.any():
            return None
        noise = float(np.median(dn[clear] / sigmas[clear]))
        keep = np.abs(dn) >= 2 * noise
        entries = entries[keep]
        seen = np.minimum(entries["measured"], tally.frames)
        pixels = entries["pixel"]
        return cls(exposure, temperature, tally.frames, noise, pixels, dn[keep], fluctuation(entries) ** 2, seen)

    def taken(self, pixels: Array) -> tuple[Array, Array, Array]:
        """Of any pixels: (N,) mean excess over all frames in DN, its variance without scatter, frames that saw it."""
        at = np.minimum(np.searchsorted(self.pixels, pixels), max(0, len(self.pixels) - 1))
        here = self.pixels[at] == pixels if len(self.pixels) else np.zeros(len(pixels), bool)
        seen = np.where(here, self.seen[at] if len(self.pixels) else 0, 0)
        excess = np.where(here, self.excess[at] if len(self.pixels) else 0.0, 0.0)
        weight = seen / self.noise**2
        weak = (self.frames - seen) / (UNSEEN * self.noise) ** 2
        return excess * weight / (weight + weak), 1 / (weight + weak), seen


def levels_of_bin(evidence: Evidence, plane: int, bin_: Bin) -> Levels | None:
    """What the frames of one bin say; None where they state no exposure or their levels are not known."""
    exposure, temperature = evidence.conditions(bin_)
    if bin_.kind == "bias":
        exposure = 0.0
    return None if exposure is None else Levels.of(evidence.tallies[plane, bin_], exposure, temperature)


def levels_of(evidence: Evidence, plane: int, gain: int | None) -> list[Levels]:
    """What the darks and biases of one gain (of `Bin.gain`) say, condition by condition."""
    bins = [b for n, b in evidence.tallies if n == plane and b.gain == gain and b.family == DARK]
    found = [levels_of_bin(evidence, plane, bin_) for bin_ in bins]
    return [levels for levels in found if levels is not None]


def gain_of(dark: Sequence[Levels]) -> float:
    """DN per electron from the fluctuation of bright pixels, `GAIN` where no condition has five frames."""
    found = [np.empty(0)]
    for one in dark:
        use = (one.seen >= 5) & np.isfinite(one.variance) & (one.excess > BRIGHT * one.noise)
        found.append((one.variance[use] - one.noise**2) / one.excess[use])
    ratios = np.concatenate(found)
    return float(np.clip(np.median(ratios), 1e-3, 1e3)) if len(ratios) >= FEW else GAIN


def _pairs(one: Levels, other: Levels) -> Array:
    """log2 of the ratio of two conditions' excesses for the pixels that shine in both, the choice favouring neither."""
    _, here, there = np.intersect1d(one.pixels, other.pixels, assume_unique=True, return_indices=True)
    a, b = one.excess[here], other.excess[there]
    top = FULL * max(one.excess.max(initial=0), other.excess.max(initial=0))
    bright = (a > 0) & (b > 0) & (np.maximum(a, b) < top) & (a * b > BRIGHT**2 * one.noise * other.noise)
    bright &= (2 * one.seen[here] >= one.frames) & (2 * other.seen[there] >= other.frames)
    ratios: Array = np.log2(b[bright] / a[bright])
    return ratios


def robust(values: Array) -> tuple[float, float]:
    """Median and standard deviation by the median of absolute deviations."""
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(values - middle)))


def doubling_of(dark: Sequence[Levels]) -> tuple[float, float, float, bool]:
    """1 / Td, its standard error, its spread over pixels (all 1/C), and whether they were measured."""
    slopes, weights, spreads = [], [], []
    for one, other in itertools.combinations(dark, 2):
        if one.temperature is None or other.temperature is None:
            continue
        way = other.temperature - one.temperature
        ratios = _pairs(one, other) if abs(way) >= _DEGREES else np.empty(0)
        if len(ratios) < FEW:
            continue
        times = math.log2(other.exposure / one.exposure)
        middle, deviation = robust((ratios - times) / way)
        # What the line leaves open of the exposure counts against a pair that differs in it.
        weights.append(way**2 / (2 * READING**2 + times**2) * math.sqrt(min(one.frames, other.frames)))
        slopes.append(middle)
        spreads.append(deviation)
    if not slopes or (mean := _weighted_median(slopes, weights)) <= _LEAST:
        return 1 / DOUBLING, DOUBLING_ERROR / DOUBLING**2, 0.0, False
    between = float(np.sqrt(np.average((np.array(slopes) - mean) ** 2, weights=weights)))
    known = [one.temperature for one in dark if one.temperature is not None]
    widest = max(known) - min(known)
    error = math.hypot(between, mean * READING * math.sqrt(2) / widest) / math.sqrt(1 + len(slopes) / 4)
    return mean, error, float(np.average(spreads, weights=weights)), True


def _weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The mean of the values about the middle of the weight: one odd pair of conditions moves it little."""
    order = np.argsort(values)
    ordered, share = np.array(values)[order], np.array(weights)[order] / sum(weights)
    ends = np.cumsum(share)
    inner = np.minimum(ends, 0.75) - np.maximum(ends - share, 0.25)
    return float(np.average(ordered, weights=np.maximum(inner, 0)))


def exponent_of(dark: Sequence[Levels]) -> tuple[float, float] | None:
    """The exponent of the exposure and its standard error, from pairs of darks of one temperature."""
    found, weights = [], []
    for one, other in itertools.combinations(dark, 2):
        same = one.temperature is None or other.temperature is None or abs(other.temperature - one.temperature) < 1
        times = math.log2(other.exposure / one.exposure)
        ratios = _pairs(one, other) if same and abs(times) >= math.log2(_TIMES) else np.empty(0)
        if len(ratios) >= FEW:
            found.append(float(np.median(ratios)) / times)
            weights.append(times**2)
    if not found:
        return None
    mean = float(np.average(found, weights=weights))
    between = float(np.sqrt(np.average((np.array(found) - mean) ** 2, weights=weights)))
    return mean, between / math.sqrt(max(1, len(found) - 1)) if len(found) > 1 else 0.02
