"""Floor 1. How good a detection or a repair was, in the definitions of the FixPix paper and our own.

Native outliers: pixels of an undamaged frame that stand out of their eight
same-colour neighbours by themselves (real hot pixels, specular lights). They
count neither for nor against a detector.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from .cfa import Cfa, Offset
from .mosaic import Array, Bool, Mosaic
from .planes import bands, extremes


@dataclass(frozen=True)
class Detection:
    """Detection counts of one or more frames; ratios are None where they are undefined."""

    hits: int = 0
    misses: int = 0
    false: int = 0
    pixels: int = 0

    def __add__(self, other: Detection) -> Detection:
        return Detection(
            self.hits + other.hits,
            self.misses + other.misses,
            self.false + other.false,
            self.pixels + other.pixels,
        )

    def ratios(self) -> dict[str, float | None]:
        """precision, recall, f1 and false positives per megapixel."""
        flagged, injected = self.hits + self.false, self.hits + self.misses
        precision = self.hits / flagged if flagged else None
        recall = self.hits / injected if injected else None
        total = flagged + injected
        return {
            "precision": precision,
            "recall": recall,
            "f1": 2 * self.hits / total if total else None,
            "fp_per_mp": self.false / self.pixels * 1e6 if self.pixels else None,
        }


def detection(flagged: Bool, truth: Bool, ignore: Bool | None = None) -> Detection:
    """Compare flags with the truth.

    Parameters
    ----------
    flagged, truth : (H, W) bool arrays
    ignore : (H, W) bool array, optional
        Pixels that count for nothing (native outliers), unless they are in the truth.
    """
    false = flagged & ~truth
    pixels = truth.size
    if ignore is not None:
        ignored = ignore & ~truth
        false &= ~ignored
        pixels -= int(np.count_nonzero(ignored))
    hits = int(np.count_nonzero(flagged & truth))
    return Detection(hits, int(np.count_nonzero(truth)) - hits, int(np.count_nonzero(false)), pixels)


@dataclass(frozen=True)
class Correction:
    """Sums over the pixels of one or more frames, from which the ratios follow.

    Errors are in DN squared, energies in DN squared, `scaled` in units of white.
    """

    bad: int = 0
    error: float = 0.0
    energy: float = 0.0
    energy_black: float = 0.0
    scaled: float = 0.0
    scaled_frame: float = 0.0
    pixels: int = 0
    good_changed: int = 0
    good_changed_max: float = 0.0

    def __add__(self, other: Correction) -> Correction:
        sums = {k: v + getattr(other, k) for k, v in asdict(self).items()}
        sums["good_changed_max"] = max(self.good_changed_max, other.good_changed_max)
        return Correction(**sums)

    def ratios(self) -> dict[str, float | int | None]:
        """nmse_stored, nmse_black, psnr_bad, psnr_frame (dB, white = 1), good_changed, good_changed_max (DN)."""
        return {
            "nmse_stored": self.error / self.energy if self.energy else None,
            "nmse_black": self.error / self.energy_black if self.energy_black else None,
            "psnr_bad": _psnr(self.scaled, self.bad),
            "psnr_frame": _psnr(self.scaled_frame, self.pixels),
            "good_changed": self.good_changed,
            "good_changed_max": self.good_changed_max,
        }


def correction(clean: Mosaic, repaired: Array, damaged: Bool) -> Correction:
    """Compare a repaired plane with the undamaged one.

    Parameters
    ----------
    clean : Mosaic
        The undamaged plane; its black and white levels scale the figures.
    repaired : (H, W) array, DN
    damaged : (H, W) bool array
        The pixels that had been damaged.
    """
    a = clean.samples.astype(np.float64)
    difference = repaired.astype(np.float64) - a
    difference[~np.isfinite(difference)] = 0.0
    squares = difference**2
    black = np.broadcast_to(clean.black_frame(), clean.shape)
    span = max(clean.white - float(np.mean(clean.black)), np.finfo(float).tiny)
    good = difference[~damaged]
    finite = np.nan_to_num(a[damaged])
    return Correction(
        bad=int(np.count_nonzero(damaged)),
        error=float(squares[damaged].sum()),
        energy=float((finite**2).sum()),
        energy_black=float(((finite - black[damaged]) ** 2).sum()),
        scaled=float(squares[damaged].sum()) / span**2,
        scaled_frame=float(squares.sum()) / span**2,
        pixels=a.size,
        good_changed=int(np.count_nonzero(good)),
        good_changed_max=float(np.abs(good).max(initial=0.0)),
    )


def _psnr(scaled: float, count: int) -> float | None:
    return -10 * math.log10(scaled / count) if count and scaled > 0 else None


def native_outliers(mosaic: Mosaic, k: float = 0.004) -> Bool:
    """Pixels of an undamaged plane that stand out of their surroundings by themselves.

    With mx, mn the extremes of the 8 same-colour neighbours (black subtracted),
    a pixel p is an outlier if ``p - mx > max(mx - mn, 0.3 |mx| + k (white - black))``
    or ``mn - p > max(mx - mn, 0.3 |mn| + k (white - black))``.

    Returns
    -------
    (H, W) bool array
    """
    span = k * (mosaic.white - float(np.mean(mosaic.black)))
    light = mosaic.samples.astype(np.float32) - mosaic.black_frame()
    out = np.zeros(mosaic.shape, bool)
    for band in bands(light, mosaic.cfa, RADIUS):
        for position in mosaic.cfa.positions:
            plane = band.view(position)
            low, high = extremes([band.view(position, o) for o in plane_neighbours(mosaic.cfa, position)])
            spread = high - low
            bright = plane - high > np.maximum(spread, 0.3 * np.abs(high) + span)
            dark = low - plane > np.maximum(spread, 0.3 * np.abs(low) + span)
            band.put(out, position, bright | dark)
    return out


#: The greatest offset that `plane_neighbours` gives, in pixels (X-Trans red and blue).
RADIUS = 6


def plane_neighbours(cfa: Cfa, position: Offset) -> tuple[Offset, ...]:
    """The 8 neighbours in the pixel's own CFA plane (Bayer: two pixels apart); X-Trans: the nearest 8."""
    pr, pc = cfa.period
    if max(pr, pc) <= 2:
        return tuple((dr * pr, dc * pc) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if dr or dc)
    return cfa.nearest(*position, 8)
