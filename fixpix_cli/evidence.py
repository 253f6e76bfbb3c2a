"""Floor 1. All that is known of one camera: tallies by plane and condition, and the frames that were counted.

Evidence is stored; flags are a view of it (`Tally.view`), made with the
threshold or the false-positive promise of the moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import fsum
from operator import add

from .defects import DefectMap
from .mosaic import Conditions
from .tally import DEFAULT_THRESHOLD, ONE, Tally

#: Exposure of a bias in half stops.
BIAS = -20
#: What a frame tells of: dark current (darks, biases), response (flats), or both under a scene (lights).
DARK, FLAT, LIGHT = "dark", "flat", "light"


@dataclass(frozen=True, order=True)
class Bin:
    """A condition bin: what frames must share for their evidence to be summed.

    exposure in half stops (round(2 log2 s)), gain in half stops of the setting
    (for values up to 8 the value itself), temperature in steps of 5 C. None
    where the file does not say.
    """

    kind: str = ""
    exposure: int | None = None
    gain: int | None = None
    temperature: int | None = None

    @classmethod
    def of(cls, conditions: Conditions) -> Bin:
        """The bin of a frame's conditions."""
        exposure, gain, temperature = conditions.exposure, conditions.gain, conditions.temperature
        return cls(
            kind=conditions.kind or "",
            exposure=None if exposure is None or exposure <= 0 else round(2 * math.log2(exposure)),
            gain=None if gain is None or gain < 0 else round(gain if gain <= 8 else 2 * math.log2(gain) + 2),
            temperature=None if temperature is None else round(temperature / 5) * 5,
        )

    def distance(self, other: Bin, unstated: float = 0.5) -> float:
        """How far two bins are apart, in stops; 6 C double a dark current and count as one stop.

        A condition that only one side states counts `unstated` stops. A bias is an exposure of `BIAS` half stops
        (1 ms), not an unstated one. Gain counts like exposure: amplified noise hides as many pixels as a shorter
        exposure does. The kind does not count here: `Evidence.nearest` asks the kinds one by one.
        """
        terms = ((self._seconds, other._seconds, 0.5), (self.gain, other.gain, 0.5))
        total = 0.0
        for mine, theirs, scale in (*terms, (self.temperature, other.temperature, 1 / 6)):
            if mine is None or theirs is None:
                total += 0.0 if mine is theirs else unstated
            else:
                total += abs(mine - theirs) * scale
        return total

    @property
    def family(self) -> str:
        """`DARK`, `FLAT` or `LIGHT`; frames of unknown kind may show stars and count as lights."""
        return DARK if self.kind in (DARK, "bias") else FLAT if self.kind == FLAT else LIGHT

    @property
    def _seconds(self) -> int | None:
        return BIAS if self.kind == "bias" else self.exposure

    def __str__(self) -> str:
        parts = [self.kind or "frame"]
        if self.exposure is not None:
            parts.append(f"{2 ** (self.exposure / 2):.3g} s")
        if self.gain is not None:
            parts.append(f"gain {self.gain}" if self.gain <= 8 else f"gain {2 ** ((self.gain - 2) / 2):.3g}")
        if self.temperature is not None:
            parts.append(f"{self.temperature} C")
        return ", ".join(parts)


@dataclass(frozen=True)
class Counted:
    """One frame that has been counted; exposure in s, temperature in C."""

    digest: str
    name: str = ""
    bin: Bin = Bin()
    conditions: Conditions = field(default_factory=Conditions)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of one camera.

    Parameters
    ----------
    tallies : mapping of (plane number, Bin) to Tally
    frames : mapping of digest to Counted
    """

    tallies: Mapping[tuple[int, Bin], Tally] = field(default_factory=dict)
    frames: Mapping[str, Counted] = field(default_factory=dict)

    def __add__(self, other: Evidence) -> Evidence:
        """The sum of two disjoint sets of frames.

        Raises
        ------
        ValueError
            A frame is in both: it would count twice.
        """
        if shared := self.frames.keys() & other.frames.keys():
            raise ValueError(f"{len(shared)} frames are in both parts and would count twice")
        tallies = dict(self.tallies)
        for key, tally in other.tallies.items():
            tallies[key] = tallies[key] + tally if key in tallies else tally
        frames = {**self.frames, **other.frames}
        return replace(self, tallies=dict(sorted(tallies.items(), key=_order)), frames=dict(sorted(frames.items())))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Evidence)
            and dict(self.frames) == dict(other.frames)
            and self.tallies.keys() == other.tallies.keys()
            and all(tally == other.tallies[key] for key, tally in self.tallies.items())
        )

    @property
    def planes(self) -> tuple[int, ...]:
        return tuple(sorted({plane for plane, _ in self.tallies}))

    def nearest(self, plane: int, wanted: Bin, family: str | None = None) -> tuple[tuple[Bin, ...], Tally] | None:
        """The evidence whose conditions are nearest, of all kinds or of one family.

        Equally near bins of one kind are summed, as 30 s and 60 s are for a frame of 42 s; of equally near ones of
        several kinds those of the kind with the most frames.
        """
        near: dict[float, dict[str, list[Bin]]] = {}
        for number, bin_ in self.tallies:
            if number == plane and (family is None or bin_.family == family):
                near.setdefault(bin_.distance(wanted), {}).setdefault(bin_.kind, []).append(bin_)
        if not near:
            return None
        sums = {kind: (tuple(bins), self._sum(plane, bins)) for kind, bins in near[min(near)].items()}
        return min(sums.values(), key=lambda found: (-found[1].frames, str(found[0])))

    def _sum(self, plane: int, bins: Sequence[Bin]) -> Tally:
        first, *others = (self.tallies[plane, bin_] for bin_ in bins)
        return reduce(add, others, first)

    def conditions(self, bin_: Bin) -> tuple[float | None, float | None]:
        """Mean exposure (s) and temperature (C) of the frames in a bin; None where they do not say."""
        mine = [frame.conditions for frame in self.frames.values() if frame.bin == bin_]
        exposures = [one.exposure for one in mine if one.exposure is not None]
        temperatures = [one.temperature for one in mine if one.temperature is not None]
        return (
            fsum(exposures) / len(exposures) if exposures else None,
            fsum(temperatures) / len(temperatures) if temperatures else None,
        )

    def view(
        self,
        plane: int,
        threshold: float = DEFAULT_THRESHOLD,
        max_false: float | None = None,
        precision: float | None = None,
    ) -> DefectMap | None:
        """The union of the views of all bins: bad under any of the known conditions."""
        mine = [tally for (number, _), tally in self.tallies.items() if number == plane]
        maps = [tally.view(threshold, max_false, precision) for tally in mine]
        if not maps:
            return None
        union = maps[0]
        for more in maps[1:]:
            union = union | more
        return union


def _order(item: tuple[tuple[int, Bin], Tally]) -> tuple[int, str]:
    (plane, bin_), _ = item
    return plane, repr(bin_)


__all__ = ["DEFAULT_THRESHOLD", "ONE", "Bin", "Counted", "Evidence", "Tally"]
