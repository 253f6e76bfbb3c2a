"""Floor 1. Dark current against exposure and temperature: what darks under some conditions say of others.

Model, per pixel, of the excess over its same-colour neighbours in DN::

    excess(t, T) = offset + rate * t * 2**((T - T0) / Td)

t exposure in s, T temperature in C, T0 the mean temperature of the darks. The doubling temperature Td is one for
the whole camera, from the pixels that shine in two darks of different temperature (the median of their ratios, so
that single odd pixels do not count); without two temperatures it is `DOUBLING`, the 5 to 8 C of the literature
(Widenhorn et al., "Temperature dependence of dark current in a CCD", Proc. SPIE 4669, 2002). Rate and offset follow
by weighted least squares with a prior for the offset (0, with the noise of one frame), so that one dark is enough, if
uncertain. That a pixel was not suspected under a condition counts, too: as an excess of 0 with a sigma of `UNSEEN`
times the noise.

The error of a prediction is made of the rate's and the offset's standard errors, of how far pixels lie off the
straight line (`scatter`, measured where there are three conditions), and of the uncertainty and the spread over pixels
of the doubling temperature times the way from the darks' temperature.

A pixel that does not scale is told apart (`Kind`): those are never predicted, what was measured stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from .darks import BRIGHT, FEW, FULL, UNSEEN, Levels, doubling_of, exponent_of, gain_of, levels_of, robust
from .evidence import DARK, Evidence
from .mosaic import Array

#: Relative scatter about the line where it cannot be measured, and its bounds where it can.
SCATTER, LEAST_SCATTER, MOST_SCATTER = 0.1, 0.02, 0.3
#: Standard error in stops where only the frame, or only the darks, state a temperature.
UNKNOWN = 0.5
_LN2 = math.log(2)


class Kind(IntEnum):
    """What a pixel's excess does with exposure and temperature."""

    SCALING = 0  #: as dark current does, or seen under one condition only
    STUCK = 1  #: the same excess under all conditions
    SATURATED = 2  #: the same, near the greatest of all
    LOW = 3  #: darker than its neighbours: dead or of low response
    UNSTEADY = 4  #: neither: random telegraph signal, or a particle in one frame


@dataclass(frozen=True, eq=False)
class Model:
    """A camera's dark current.

    Parameters
    ----------
    reference : float, C, or None
        T0; None where no dark states a temperature.
    doubling, doubling_error : float, C
    fitted : bool
        Whether the doubling temperature was measured.
    spread : float, 1/C
        Standard deviation over pixels of 1 / Td.
    exponent : (float, float) or None
        Of the exposure, measured, and its standard error: 1 is linear. None with one exposure.
    scatter : float
        Relative, of single pixels about the line.
    gain : float, DN per electron
    limit : float, DN/s
        Rate at T0 from which a pixel shows in the deepest of the darks: weaker ones are not known.
    conditions : tuple of (exposure in s, temperature in C or None, frames)
    pixels : (N,) int64 array
        row * W + col, ascending.
    rate, rate_error : (N,) float64 arrays, DN/s at T0
    offset, offset_error, covariance : (N,) float64 arrays, DN, DN, DN^2/s
    warmth : (N,) float64 array, C
        The temperature at which the pixel was seen, by weight.
    kind : (N,) int8 array of Kind
    """

    reference: float | None
    doubling: float
    doubling_error: float
    fitted: bool
    spread: float
    exponent: tuple[float, float] | None
    scatter: float
    gain: float
    limit: float
    conditions: tuple[tuple[float, float | None, int], ...]
    pixels: Array
    rate: Array
    rate_error: Array
    offset: Array
    offset_error: Array
    covariance: Array
    warmth: Array
    kind: Array

    def dose(self, exposure: float, temperature: float | None) -> float:
        """Exposure in s at T0 that gives the same dark current; a temperature that is not known counts as T0."""
        if temperature is None or self.reference is None:
            return exposure
        return exposure * float(2 ** ((temperature - self.reference) / self.doubling))

    def predict(self, exposure: float, temperature: float | None) -> tuple[Array, Array]:
        """The excess of every pixel of the model under other conditions, and its standard error.

        For pixels that do not scale both are NaN.

        Returns
        -------
        (N,) float64 array, DN
        (N,) float64 array, DN
        """
        dose = self.dose(exposure, temperature)
        current = self.rate * dose
        variance = (self.rate_error * dose) ** 2 + self.offset_error**2 + 2 * self.covariance * dose
        if temperature is None or self.reference is None:
            stops = np.full(len(self.pixels), UNKNOWN if temperature is not self.reference else 0.0)
        else:
            inverse = math.hypot(self.doubling_error / self.doubling**2, self.spread)
            stops = np.abs(temperature - self.warmth) * inverse
        relative = np.hypot(self.scatter, np.expm1(np.minimum(_LN2 * stops, 3.0)))
        scaling = self.kind == Kind.SCALING
        excess = np.where(scaling, self.offset + current, np.nan)
        return excess, np.where(scaling, np.sqrt(np.maximum(variance, 0) + (relative * current) ** 2), np.nan)


def summary(evidence: Evidence, plane: int = 0) -> dict[str, Any]:
    """The facts of a camera's dark current, for people and JSON; empty where its darks tell none.

    Of several gains that with the most darks.

    Returns
    -------
    dict
        conditions (list of exposure_s, temperature_c, frames), frames, reference_c, doubling_c, doubling_error_c,
        doubling_measured, exponent, exponent_error (None with one exposure), scatter (relative), faintest (DN/s at
        reference_c that the darks show), median_rate and median_error of the pixels that scale (DN/s at reference_c),
        pixels (count by `Kind`).
    """
    frames: dict[int | None, int] = {}
    for (number, bin_), tally in evidence.tallies.items():
        if number == plane and bin_.family == DARK:
            frames[bin_.gain] = frames.get(bin_.gain, 0) + tally.frames
    model = fit(levels_of(evidence, plane, max(frames, key=lambda gain: frames[gain]))) if frames else None
    if model is None:
        return {}
    scaling = model.kind == Kind.SCALING

    def middle(values: Array) -> float | None:
        return _rounded(float(np.median(values[scaling]))) if scaling.any() else None

    exponent = model.exponent or (None, None)
    return {
        "conditions": [
            {"exposure_s": seconds, "temperature_c": _rounded(degrees), "frames": count}
            for seconds, degrees, count in model.conditions
        ],
        "frames": sum(count for _, _, count in model.conditions),
        "reference_c": _rounded(model.reference),
        "doubling_c": _rounded(model.doubling),
        "doubling_error_c": _rounded(model.doubling_error),
        "doubling_measured": model.fitted,
        "exponent": _rounded(exponent[0]),
        "exponent_error": _rounded(exponent[1]),
        "scatter": _rounded(model.scatter),
        "faintest": _rounded(model.limit),
        "median_rate": middle(model.rate),
        "median_error": middle(model.rate_error),
        "pixels": {kind.name.lower(): int(np.count_nonzero(model.kind == kind)) for kind in Kind},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def probability(excess: Array, error: Array, limit: Array | float) -> Array:
    """(N,) float64: that the true excess lies above a limit in DN, for a normal error of the prediction."""
    z = (excess - limit) / np.maximum(error, 1e-9)
    return 1 / (1 + np.exp(-np.clip(1.5976 * z + 0.070566 * z**3, -60, 60)))  # Bowling et al., 2009: within 0.00014


def fit(levels: Sequence[Levels]) -> Model | None:
    """Fit a camera's dark current; None where no condition has an exposure above 0.

    Conditions without a temperature are left out where others state one.
    """
    if any(one.temperature is not None for one in levels if one.exposure > 0):
        levels = [one for one in levels if one.temperature is not None or one.exposure == 0]
    dark = [one for one in levels if one.exposure > 0]
    if not dark:
        return None
    known = [one.temperature for one in dark if one.temperature is not None]
    reference = float(np.average(known, weights=[one.frames for one in dark])) if known else None
    gain = gain_of(dark)
    inverse, error, spread, fitted = doubling_of(dark)
    exponent = exponent_of(dark)
    pixels = _worth(levels)
    table = [one.taken(pixels) for one in levels]
    excess, variance, seen = (np.array([row[n] for row in table], np.float64) for n in range(3))
    frames = np.array([one.frames for one in levels], np.float64)[:, None]
    variance += gain * np.maximum(excess, 0) / frames
    warm = np.array([reference or 0.0 if one.temperature is None else one.temperature for one in levels])
    dose = np.array([one.exposure for one in levels]) * 2 ** ((warm - (reference or 0.0)) * inverse)
    noise = float(np.median([one.noise for one in dark]))
    full = FULL * float(max((one.excess.max() for one in levels if len(one.excess)), default=np.inf))
    scatter = SCATTER
    for _ in range(2):  # the scatter that the first line shows weighs the second
        line = _line(dose, excess, variance + (scatter * excess) ** 2, excess < full, noise)
        scatter = _scatter(dose, excess, variance, line, seen)
    kind = _kinds(dose, excess, variance, line, seen, full, scatter)
    kind[_blinks(levels, pixels, gain)] = Kind.UNSTEADY
    weight = dose[:, None] ** 2 / (variance + (scatter * excess) ** 2)
    deepest = min(UNSEEN * one.noise / own for one, own in zip(levels, dose, strict=True) if own > 0)
    rate, rate_error, offset, offset_error, covariance = line
    return Model(
        reference=reference,
        doubling=1 / inverse,
        doubling_error=error / inverse**2,
        fitted=fitted,
        spread=spread,
        exponent=exponent,
        scatter=scatter,
        gain=gain,
        limit=deepest,
        conditions=tuple((one.exposure, one.temperature, one.frames) for one in levels),
        pixels=pixels,
        rate=rate,
        rate_error=rate_error,
        offset=offset,
        offset_error=offset_error,
        covariance=covariance,
        warmth=(weight * warm[:, None]).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300),
        kind=kind,
    )


def _worth(levels: Sequence[Levels]) -> Array:
    """The pixels that stand out under some condition."""
    some = [one.pixels[(np.abs(one.excess) > UNSEEN * one.noise) & (2 * one.seen >= one.frames)] for one in levels]
    return np.unique(np.concatenate(some))


def _line(dose: Array, excess: Array, variance: Array, free: Array, noise: float) -> tuple[Array, ...]:
    """Rate, its error, offset, its error, and their covariance, of every pixel; (B,) doses, (B, N) measurements."""
    free = free | ~free.any(axis=0)  # of a pixel that is full everywhere all counts
    weight = free / variance
    s, x, xx = weight.sum(axis=0) + noise**-2, (dose @ weight), (dose**2 @ weight)
    y, xy = (weight * excess).sum(axis=0), dose @ (weight * excess)
    determinant = np.maximum(s * xx - x**2, 1e-300)
    rate, offset = (s * xy - x * y) / determinant, (xx * y - x * xy) / determinant
    return rate, np.sqrt(s / determinant), offset, np.sqrt(xx / determinant), -x / determinant


def _scatter(dose: Array, excess: Array, variance: Array, line: tuple[Array, ...], seen: Array) -> float:
    """Relative scatter of bright pixels about their lines, beyond their noise."""
    there = ((seen > 0) & (dose > 0)[:, None]).sum(axis=0)
    rate, offset = line[0], line[2]
    predicted = offset + np.multiply.outer(dose, rate)
    use = (there >= 3) & (seen > 0) & (predicted > BRIGHT * np.sqrt(variance))
    if np.count_nonzero(use) < 3 * FEW:
        return SCATTER
    degrees = math.sqrt(1.5)  # three points leave little of the scatter to a line of two parameters
    _, deviation = robust((excess / np.where(use, predicted, 1) - 1)[use])
    return float(np.clip(deviation * degrees, LEAST_SCATTER, MOST_SCATTER))


def _kinds(
    dose: Array, excess: Array, variance: Array, line: tuple[Array, ...], seen: Array, full: float, scatter: float
) -> Array:
    """(N,) int8: which law each pixel keeps, the simplest that fits within 4 sigma under all conditions."""
    rate, offset = line[0], line[2]
    there = seen > 0
    predicted = offset + np.multiply.outer(dose, rate)
    kind = np.full(len(rate), int(Kind.SCALING), np.int8)

    def strays(law: Array) -> Array:
        size = np.sqrt(variance + (3 * scatter * np.maximum(np.abs(law), np.abs(excess))) ** 2)
        return ((np.abs(excess - law) > 4 * size) & ~((law >= full) & (excess >= full))).any(axis=0)

    weight = there / (variance + (scatter * excess) ** 2)
    constant = (weight * excess).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
    doses = np.where(there, np.maximum(dose[:, None], 1e-3), np.nan)
    with np.errstate(all="ignore"):
        wide = np.nanmax(doses, axis=0) >= 2 * np.nanmin(doses, axis=0)
    low = np.where(there, excess, 0).min(axis=0) < -(there * excess).max(axis=0)
    stray = strays(predicted)
    steady = ~strays(np.broadcast_to(constant, excess.shape)) & wide
    # Full from the first dark on, or constant where a line does not fit: neither says what a shorter one shows.
    topped = steady & (constant >= full)
    kind[stray & ~steady] = Kind.UNSTEADY
    kind[stray & steady] = Kind.STUCK
    kind[topped] = Kind.SATURATED
    kind[low] = Kind.LOW
    return kind


def _blinks(levels: Sequence[Levels], pixels: Array, gain: float) -> Array:
    """(N,) bool: pixels that fluctuate from frame to frame far beyond their noise, where five frames or more tell."""
    blinking = np.zeros(len(pixels), bool)
    for one in levels:
        own = np.sqrt(one.noise**2 + gain * np.maximum(one.excess, 0))
        with np.errstate(invalid="ignore"):
            wild = (one.seen >= 5) & (np.sqrt(one.variance) > np.maximum(3 * own, 0.15 * np.abs(one.excess)))
        blinking |= np.isin(pixels, one.pixels[wild], assume_unique=True)
    return blinking
