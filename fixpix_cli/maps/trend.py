"""Floor 2. What maps say: how their evidence spreads, what is new since a month, how two maps differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..defects import TYPES, DefectMap
from ..evidence import Evidence, Tally
from ..mosaic import Array
from ..suspects import STEP
from .fitsmap import CameraMap
from .parts import month_of, within

#: Edges of the histograms: mean probability, and mean excess over the neighbours in sigma.
PROBABILITIES = (0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0)
EXCESSES = (-np.inf, -100.0, -20.0, -5.0, 0.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, np.inf)
#: A pixel is worse when its mean excess has grown by this share and by so many standard errors.
_GROWN, _ERRORS = 0.25, 3.0


def histogram(values: Array, edges: Sequence[float]) -> list[dict[str, Any]]:
    """Counts between edges, the upper one belonging to the next bin but for the last: from, to (None: open), count."""
    counts, _ = np.histogram(values, bins=np.array(edges))
    ends = [float(edge) if np.isfinite(edge) else None for edge in edges]
    return [
        {"from": low, "to": high, "count": int(count)}
        for low, high, count in zip(ends[:-1], ends[1:], counts, strict=True)
    ]


def spread(evidence: Evidence) -> dict[str, list[dict[str, Any]]]:
    """Histograms over all suspects of all bins: mean probability, and mean excess in sigma of those seen as bad once.

    The second counts suspects with a probability of 1/2 or more in at least one frame: the others are noise.
    """
    tallies = list(evidence.tallies.values())
    mean = np.concatenate([tally.mean for tally in tallies]) if tallies else np.empty(0)
    excess = [_excess(tally)[tally.entries["hits"] > 0] for tally in tallies]
    return {
        "probability": histogram(np.clip(mean, 0, 1), PROBABILITIES),
        "excess": histogram(np.concatenate(excess) if excess else np.empty(0), EXCESSES),
    }


def _excess(tally: Tally) -> Array:
    """(N,) float64 mean excess of the suspects over their neighbours, in sigma."""
    return tally.entries["excess"] / np.maximum(tally.entries["suspected"], 1) / STEP


def months(camera: CameraMap) -> dict[str, int]:
    """Frames by month; "" counts those without a time."""
    found: dict[str, int] = {}
    for counted in camera.evidence.frames.values():
        month = month_of(counted.conditions)
        found[month] = found.get(month, 0) + 1
    return dict(sorted(found.items()))


@dataclass(frozen=True, eq=False)
class Trend:
    """What changed between the frames before a month and those since, one (N, 3) array of plane, row, col each.

    Only conditions that both sides know are compared: a pixel that is hot at 300 s is not new when the
    first 300 s dark comes in. `apart` names the conditions that only one side knows.
    """

    since: str
    frames_before: int
    frames_since: int
    undated: int
    new: Array
    gone: Array
    worse: Array
    apart: tuple[str, ...]


def trend(camera: CameraMap, since: str, threshold: float | None = None) -> Trend:
    """New, gone and worse pixels since a month.

    New: bad (confidence at or above the threshold) under some condition in the frames since, and in the frames
    before under none, nor near it (half the threshold). Gone: the other way round. Worse: bad on both
    sides, and under some condition the mean excess has grown by a quarter and by three standard errors.

    Parameters
    ----------
    camera : CameraMap
        Read with its parts.
    since : str
        ``YYYY-MM``; frames of that month count as since.
    threshold : float, optional
        The map's own by default.
    """
    level = camera.threshold if threshold is None else threshold
    before, after = within(camera.apart, before=since), within(camera.apart, first=since)
    shared = [key for key in before.tallies if key in after.tallies]
    found: dict[str, list[Array]] = {"new": [], "gone": [], "worse": []}
    for plane in range(camera.identity.planes):
        keys = [key for key in shared if key[0] == plane]
        size = camera.identity.shape[0] * camera.identity.shape[1]
        was, near, now, close, worse = (np.zeros(size, bool) for _ in range(5))
        for key in keys:
            one, two = before.tallies[key], after.tallies[key]
            for tally, sure, maybe in ((one, was, near), (two, now, close)):
                sure[tally.entries["pixel"][tally.confidence >= level]] = True
                maybe[tally.entries["pixel"][tally.confidence >= level / 2]] = True
            worse[_grown(one, two)] = True
        width = camera.identity.shape[1]
        for name, chosen in (("new", now & ~near), ("gone", was & ~close), ("worse", was & now & worse)):
            places = np.flatnonzero(chosen)
            found[name].append(np.stack([np.full(len(places), plane), places // width, places % width], axis=1))
    bins = [{str(bin_) for _, bin_ in side.tallies} for side in (before, after)]
    undated = sum(not month_of(counted.conditions) for counted in camera.evidence.frames.values())
    arrays = {name: np.concatenate(parts) if parts else np.empty((0, 3), int) for name, parts in found.items()}
    return Trend(
        since, len(before.frames), len(after.frames), undated, **arrays, apart=tuple(sorted(bins[0] ^ bins[1]))
    )


def _grown(one: Tally, two: Tally) -> Array:
    """Pixels whose mean excess has grown away from 0 since."""
    pixels, mine, theirs = np.intersect1d(one.entries["pixel"], two.entries["pixel"], return_indices=True)
    (old, old_error), (new, new_error) = _level(one, mine), _level(two, theirs)
    step = np.where(old < 0, -(new - old), new - old)
    grown = (step > _GROWN * np.abs(old)) & (step > _ERRORS * np.sqrt(old_error**2 + new_error**2))
    return pixels[grown]


def _level(tally: Tally, index: Array) -> tuple[Array, Array]:
    """Mean excess of some entries in sigma, and its standard error; a single frame's is that of its noise."""
    entries = tally.entries[index]
    times = np.maximum(entries["suspected"], 1)
    mean = entries["excess"] / times / STEP
    variance = np.maximum(entries["squares"] / times / STEP**2 - mean**2, 1.0)
    return mean, np.sqrt(variance / times)


def differences_of(one: DefectMap, two: DefectMap) -> dict[str, Array]:
    """Where two maps of one plane differ: flat pixel numbers only in the first, only in the second, of other type."""
    a, b = one.bad_pixels, two.bad_pixels
    types = np.int32(sum(int(flag) for flag in TYPES))
    both = np.intersect1d(a, b, assume_unique=True)
    return {
        "only_first": np.setdiff1d(a, b, assume_unique=True),
        "only_second": np.setdiff1d(b, a, assume_unique=True),
        "other_type": both[(one.at(both) ^ two.at(both)) & types != 0],
    }
