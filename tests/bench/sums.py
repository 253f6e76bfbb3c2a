"""Figures from counts: calibration of probabilities, excess error, overlap of maps, crossings of curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fixpix_cli.mosaic import Array, Bool

#: Log-odds between which predictions share a bin; pixels below p = 0.01 are not in the reliability plot.
EDGES = np.concatenate([[np.log(0.01 / 0.99)], np.arange(-4.0, 12.5, 0.5), [np.inf]])


def calibration(probability: Array, truth: Bool, counted: Bool) -> dict[str, Any]:
    """Sums from which calibration error and Brier skill follow.

    Parameters
    ----------
    probability : (H, W) float array, 0 to 1
    truth, counted : (H, W) bool arrays
        `counted` leaves out what counts for nothing.

    Returns
    -------
    dict
        ``n``, ``p`` and ``t`` per bin of `EDGES` (pixels, sum of probability, bad ones); ``pixels``, ``bad`` and
        ``squares`` (sum of (p - t)^2) over all counted pixels.
    """
    p, t = probability[counted].astype(np.float64), truth[counted].astype(np.float64)
    with np.errstate(divide="ignore"):
        place = np.searchsorted(EDGES, np.log(p) - np.log1p(-p), side="right") - 1
    shown = place >= 0
    place = np.minimum(place, len(EDGES) - 2)[shown]
    bins = {
        key: np.bincount(place, weights, minlength=len(EDGES) - 1).tolist()
        for key, weights in (("n", None), ("p", p[shown]), ("t", t[shown]))
    }
    return {**bins, "pixels": len(p), "bad": float(t.sum()), "squares": float(((p - t) ** 2).sum())}


def added(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sum of several results of `calibration`."""
    return {key: np.sum([part[key] for part in parts], axis=0).tolist() for key in parts[0]} if parts else {}


def calibration_error(sums: dict[str, Any]) -> float | None:
    """Expected calibration error: |mean prediction - share of bad| over the bins, weighted by pixels."""
    n, p, t = (np.asarray(sums[key], float) for key in "npt")
    return float(np.abs(p - t).sum() / n.sum()) if n.sum() else None


def brier_skill(sums: dict[str, Any]) -> float | None:
    """1 - Brier score / that of always answering the base rate; None where nothing or everything is bad."""
    rate = sums["bad"] / sums["pixels"] if sums["pixels"] else 0.0
    return 1 - sums["squares"] / (sums["pixels"] * rate * (1 - rate)) if 0 < rate < 1 else None


def jaccard(a: Bool, b: Bool) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


#: A baseline at the noise floor has no excess error to be compared with: at least this share of the noise counts.
LEAST_EXCESS = 0.05


def excess_ratio(error: float, baseline: float, noise: float) -> float:
    """Excess error (squared error minus noise variance, never below 0) over that of a baseline.

    Where the baseline lies at the noise the ratio would be one of two random numbers: its excess counts as at least
    `LEAST_EXCESS` of the noise.
    """
    return max(error - noise, 0.0) / excess(baseline, noise)


def excess(error: float, noise: float) -> float:
    """Excess error, at least `LEAST_EXCESS` of the noise: for ratios of which the logarithm is taken."""
    return max(error - noise, LEAST_EXCESS * noise, 1e-12)


def crossing(x: Sequence[float], a: Sequence[float], b: Sequence[float]) -> float | None:
    """Where curve a, below b at first, comes to lie above it: interpolated in log x; None: nowhere.

    Parameters
    ----------
    x, a, b : sequences of positive numbers of one length, x rising
    """
    difference = np.log(np.asarray(a, float)) - np.log(np.asarray(b, float))
    for i in range(1, len(difference)):
        if difference[i - 1] <= 0 < difference[i]:
            share = -difference[i - 1] / (difference[i] - difference[i - 1])
            return float(np.exp(np.log(x[i - 1]) + share * (np.log(x[i]) - np.log(x[i - 1]))))
    return None
