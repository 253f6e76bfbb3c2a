"""Floor 1. Whether frames are what their headers say: lights among darks, and darks of another temperature.

A light among darks is told by the others of its exposure and temperature: it shows a picture and they do not
(`suspects.shows_picture`), or its background lies above theirs while its hot pixels do not shine brighter, as they
would in a warmer dark. If they all show a picture, it may be an amplifier's glow, and they count as darks. A wrong
temperature is told by the hot pixels alone: their dark current, brought to one temperature, must agree with that of
the other darks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .darks import BRIGHT, FEW, FULL, Levels, doubling_of, levels_of_bin
from .evidence import DARK, LIGHT, Bin, Evidence, Tally
from .kinds import background
from .mosaic import Array

#: A background stands out from this many sigma of one frame's noise on.
SIGMAS = 5.0
#: A temperature is contradicted from this many C on, and this share of how far the frame is from the others.
DEGREES, SHARE = 3.0, 0.3
#: Frames that it takes to contradict one, itself included.
WITNESSES = 3
#: A map's bin speaks for at most so many frames.
_MOST = 16


@dataclass(frozen=True, eq=False)
class Checked:
    """One file's evidence as it shall count, and what was found of it."""

    evidence: Evidence
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Unit:
    """The darks of one file, or of one bin of a map."""

    bin: Bin
    levels: Levels
    background: float
    shows_picture: bool

    @property
    def weight(self) -> int:
        return min(self.levels.frames, _MOST)


def check(known: Evidence, parts: Sequence[Evidence]) -> list[Checked]:
    """Compare files with each other and with what is known of the camera.

    Parameters
    ----------
    known : Evidence
        Of the camera's map; may be empty.
    parts : sequence of Evidence
        One per file.

    Returns
    -------
    list of Checked
        One per part. A light that claims to be a dark or a bias counts as a light, a frame whose temperature is
        contradicted as one of unknown temperature: otherwise it would mislead the model of the dark current.
    """
    own = [_units(part) for part in parts]
    whole = [unit for units in (_units(known), *own) for unit in units]
    checked = []
    for part, units in zip(parts, own, strict=True):
        notes: list[str] = []
        for unit in units:
            if unit.shows_picture:
                alone = _alone(unit, whole)
                cause = ", unlike the others" if alone else " (of a light, or the amplifier's glow)"
                counted = "light" if alone else unit.bin.kind
                notes.append(f"is called a {unit.bin.kind}, but shows a picture{cause}: counted as a {counted}")
                if alone:
                    part = as_light(part)
                    continue
            off = _stops(unit, whole)
            above = _above(unit, whole)
            if above is not None and (off is None or abs(off[0]) < 0.5):
                said = f"{above:.0f} DN above that of the other darks of {unit.bin}, its hot pixels are not brighter"
                notes.append(f"is called a {unit.bin.kind}, but its background lies {said}: counted as a light")
                part = as_light(part)
            elif off is not None and unit.levels.temperature is not None and abs(off[0]) * off[1] > off[2]:
                real = unit.levels.temperature + off[0] * off[1]
                notes.append(
                    f"its hot pixels have the dark current of about {real:.0f} C, its header says "
                    f"{unit.levels.temperature:.0f} C: counted as of unknown temperature; check the header"
                )
                part = _rebinned(part, temperature=None)
        checked.append(Checked(part, tuple(notes)))
    return checked


def as_light(evidence: Evidence) -> Evidence:
    """The same evidence, counted as that of lights."""
    return _rebinned(evidence, kind=LIGHT)


def _rebinned(evidence: Evidence, **facts: Any) -> Evidence:
    """The same evidence with another kind or temperature in its conditions and bins."""
    frames = {
        mark: replace(one, bin=replace(one.bin, **facts), conditions=replace(one.conditions, **facts))
        for mark, one in evidence.frames.items()
    }
    tallies: dict[tuple[int, Bin], Tally] = {}
    for (plane, bin_), tally in evidence.tallies.items():
        key = (plane, replace(bin_, **facts))
        tallies[key] = tallies[key] + tally if key in tallies else tally
    return Evidence(tallies, frames)


def _units(evidence: Evidence) -> list[_Unit]:
    """The darks and biases of the first plane."""
    found = []
    for plane, bin_ in evidence.tallies:
        if plane or bin_.family != DARK:
            continue
        levels = levels_of_bin(evidence, plane, bin_)
        if levels is not None:
            tally = evidence.tallies[plane, bin_]
            around = background(tally.entries)
            found.append(_Unit(bin_, levels, float(np.nanmedian(around)), 2 * tally.pictures > tally.frames))
    return found


def _alone(unit: _Unit, whole: Sequence[_Unit]) -> bool:
    """Whether most of the others of the same conditions show no picture."""
    others = [other for other in whole if other.bin == unit.bin and other is not unit]
    total = sum(other.weight for other in others)
    return total >= WITNESSES - 1 and 2 * sum(other.weight for other in others if not other.shows_picture) > total


def _above(unit: _Unit, whole: Sequence[_Unit]) -> float | None:
    """By how many DN a background lies above those of the same conditions, if that is more than noise."""
    same = [other for other in whole if other.bin == unit.bin]
    values = np.repeat([other.background for other in same], [other.weight for other in same])
    if len(values) < WITNESSES:
        return None
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    above = unit.background - middle
    return above if above > SIGMAS * max(unit.levels.noise, spread) else None


def _stops(unit: _Unit, whole: Sequence[_Unit]) -> tuple[float, float, float] | None:
    """How many stops a unit's dark current lies off the others', the C of a stop, and the C that it may be off."""
    usable = [
        other
        for other in whole
        if other.bin.gain == unit.bin.gain and other.levels.exposure > 0 and other.levels.temperature is not None
    ]
    if sum(other.weight for other in usable) < WITNESSES or not any(other is unit for other in usable):
        return None
    doubling = 1 / doubling_of([other.levels for other in usable])[0]
    degrees = np.array([other.levels.temperature for other in usable], np.float64)
    middle = float(np.median(np.repeat(degrees, [other.weight for other in usable])))
    pixels = unit.levels.pixels[_shining(unit.levels)]
    rates = [_rates(other.levels, pixels, middle, doubling) for other in usable]
    table = np.repeat(np.array(rates), [other.weight for other in usable], axis=0)
    there = np.isfinite(table).sum(axis=0) * 2 > len(table)
    if np.count_nonzero(there) < FEW:
        return None
    own = _rates(unit.levels, pixels, middle, doubling)[there]
    off = float(np.median(own - np.nanmedian(table[:, there], axis=0)))
    return off, doubling, DEGREES + SHARE * abs((unit.levels.temperature or 0.0) - middle)


def _shining(levels: Levels) -> Array:
    """(N,) bool: bright pixels that are not saturated."""
    shining: Array = (levels.excess > BRIGHT * levels.noise) & (levels.excess < FULL * levels.excess.max(initial=0))
    return shining


def _rates(levels: Levels, pixels: Array, reference: float, doubling: float) -> Array:
    """(N,) float64: log2 of the dark current of some pixels at the reference temperature; NaN where not known."""
    out = np.full(len(pixels), np.nan)
    _, here, there = np.intersect1d(pixels, levels.pixels, assume_unique=True, return_indices=True)
    excess = levels.excess[there]
    positive = excess > 0
    stops = ((levels.temperature or reference) - reference) / doubling
    out[here[positive]] = np.log2(excess[positive] / levels.exposure) - stops
    return out
