"""Floor 1. What kind of defect a pixel is, from the sums that a tally keeps of it.

Under the conditions of one bin a pixel gets one type, the first that fits:

SATURATED
    brighter than its neighbours, and at the white level in nine of ten frames.
DEAD
    darker, and near the black level while its neighbours have a signal.
OTHER_BAD_PIXEL (stuck)
    its value hardly fluctuates: by less than a seventh of the noise that every
    working pixel has (and by chance less than once in a thousand), whatever
    scene or dark current do. JWST has no bit for it.
TELEGRAPH
    switches between levels (random telegraph signal). Either it is missing in a
    tenth of at least five frames though, where it is seen, it is so far above
    the noise that a steady pixel would be seen in all of them; or, in darks,
    its level fluctuates far more than noise and dark current within one bin.
    In frames with a picture only the first is asked, with a fifth of the frames
    and twice the excess, and only of pixels that are twice as bright as their
    surroundings: bright scenes hide lesser ones.
LOW_QE
    darker in another way.
HOT, WARM
    brighter by at least `HOT_SIGMA` of the noise under these conditions, or by
    less. A pixel that is warm in short exposures is therefore hot in long ones.

Three frames are the least for stuck, five for telegraph noise. Entries of maps
of older formats, whose levels are not known, are typed by their excess alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .defects import DQ
from .mosaic import Array, Bool
from .suspects import QUARTERS, STEP, VARIANCE

#: Mean excess in sigma from which a bright pixel is HOT rather than WARM.
HOT_SIGMA = 20.0
#: Excess in sigma, even in its least moments, from which on a steady pixel would be seen in every dark; in every sky.
_SEEN, _SEEN_IN_PICTURES = 8.0, 16.0
_FEWEST_STUCK, _FEWEST_TELEGRAPH = 3, 5
_CHUNK = 100_000
#: A stuck value's variance relative to that of the noise.
_STILL = 0.02
#: Fluctuation of steady pixels: so many times the noise, and this share of the level (dark current within one bin).
_NOISY, _DRIFT = 3.0, 0.35


def flags(entries: Any, frames: int, pictures: int) -> Array:
    """(N,) int64 DQ bits of some entries.

    Parameters
    ----------
    entries : (N,) structured array of `suspects.DTYPE`
    frames : int
        Frames counted.
    pictures : int
        Those of them that show a picture, not a dark.
    """
    out = np.empty(len(entries), np.int64)
    for start in range(0, len(entries), _CHUNK):  # so that memory does not follow the number of defects
        out[start : start + _CHUNK] = _flags(entries[start : start + _CHUNK], frames, pictures)
    return out


def _flags(entries: Any, frames: int, pictures: int) -> Array:
    excess = entries["excess"] / np.maximum(entries["suspected"], 1) / STEP
    bright = excess >= 0
    is_dark_set = 2 * pictures < frames
    cases = (
        (bright & (10 * entries["full"] >= 9 * np.maximum(entries["measured"], 1)), DQ.SATURATED),
        (~bright & _at_black(entries), DQ.DEAD),
        (frames >= _FEWEST_STUCK and _stuck(entries), DQ.OTHER_BAD_PIXEL),
        (frames >= _FEWEST_TELEGRAPH and bright & _telegraph(entries, excess, frames, is_dark_set), DQ.TELEGRAPH),
        (~bright, DQ.LOW_QE),
        (excess >= HOT_SIGMA, DQ.HOT),
    )
    kind = np.select(
        [np.broadcast_to(case, excess.shape) for case, _ in cases], [int(flag) for _, flag in cases], int(DQ.WARM)
    )
    return kind.astype(np.int64) | int(DQ.DO_NOT_USE)


def level(entries: Any) -> Array:
    """(N,) float64 mean of sample - surroundings in DN over the measured frames; NaN where there is none."""
    return _mean(entries, "level", QUARTERS)


def fluctuation(entries: Any) -> Array:
    """(N,) float64 standard deviation of the level between the measured frames, DN; NaN for fewer than two."""
    return np.sqrt(_variance(entries, "level"))


def response(entries: Any) -> Array:
    """(N,) float64 signal relative to that of the surroundings; NaN where they have none."""
    own, around = _mean(entries, "value", QUARTERS), background(entries)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(around > 0, own / around, np.nan)


def _mean(entries: Any, name: str, steps: int) -> Array:
    times = entries["measured"]
    return np.where(times > 0, entries[name] / (np.maximum(times, 1) * steps), np.nan)


def _variance(entries: Any, name: str) -> Array:
    """(N,) float64 unbiased variance of ``level`` or ``value``, DN^2; NaN for fewer than two frames."""
    times, total = entries["measured"], entries[name].astype(np.float64)
    spread = np.maximum(entries[f"{name}2"] - total**2 / np.maximum(times, 1), 0.0) / QUARTERS**2
    return np.where(times > 1, spread / np.maximum(times - 1, 1), np.nan)


def background(entries: Any) -> Array:
    """(N,) float64 mean of the surroundings above black, DN; NaN where no frame measured them."""
    return _mean(entries, "value", QUARTERS) - level(entries)


def _at_black(entries: Any) -> Bool:
    often: Bool = 2 * entries["low"] >= np.maximum(entries["suspected"], 1)
    with np.errstate(invalid="ignore"):
        return often | (response(entries) < 0.1)


def _stuck(entries: Any) -> Bool:
    """Whether a value fluctuates less than noise can: the lower tail of chi-square, by its leading term."""
    times = entries["measured"]
    expected = np.maximum(_mean(entries, "noise", VARIANCE), 1 / 12)
    variance = np.nan_to_num(_variance(entries, "value"))
    half = (np.maximum(times, 2) - 1) / 2
    known, place = np.unique(half, return_inverse=True)
    factorial = np.array([math.lgamma(k + 1) for k in known])[place] if len(known) else half
    tail = half * np.log(half * (variance + 1 / 12) / expected) - factorial  # 1/12: what rounding hides
    return (times >= _FEWEST_STUCK) & (variance < _STILL * expected) & (tail < math.log(1e-3))


def _telegraph(entries: Any, excess: Array, frames: int, is_dark_set: bool) -> Bool:
    times = np.maximum(entries["suspected"], 1)
    scatter = np.sqrt(np.maximum(entries["squares"] / times / STEP**2 - excess**2, 0.0))
    absent = frames - entries["suspected"]
    missed = (frames >= _FEWEST_TELEGRAPH) & (10 * absent >= frames) & (entries["suspected"] > 1)
    missed &= excess - 2 * scatter >= (_SEEN if is_dark_set else _SEEN_IN_PICTURES)
    own = level(entries)
    if not is_dark_set:
        return missed & (5 * absent >= frames) & (own >= background(entries))
    variance, noise = _variance(entries, "level"), _mean(entries, "noise", VARIANCE)
    restless = (times >= _FEWEST_TELEGRAPH) & (variance > _NOISY**2 * noise + (_DRIFT * own) ** 2)
    return missed | restless
