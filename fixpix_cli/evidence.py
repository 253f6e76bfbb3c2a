"""Floor 1. All that is known of one camera: tallies by plane and condition, and the frames that were counted.

Evidence is stored; flags are a view of it (`Tally.view`), made with the
threshold or the false-positive promise of the moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .defects import DefectMap
from .mosaic import Conditions
from .tally import DEFAULT_THRESHOLD, ONE, Tally


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

    def distance(self, other: Bin) -> float:
        """How far two bins are apart, in stops; 6 C double a dark current and count as one stop.

        A condition that one side does not state counts half a stop.
        """
        terms = ((self.exposure, other.exposure, 0.5), (self.gain, other.gain, 0.5))
        total = 0.0
        for mine, theirs, scale in (*terms, (self.temperature, other.temperature, 1 / 6)):
            if mine is None or theirs is None:
                total += 0.0 if mine is theirs else 0.5
            else:
                total += abs(mine - theirs) * scale
        return total

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

    def nearest(self, plane: int, wanted: Bin) -> tuple[Bin, Tally] | None:
        """The tally whose conditions are nearest; of equally near ones that with the most frames."""
        mine = [(bin_, tally) for (number, bin_), tally in self.tallies.items() if number == plane]
        if not mine:
            return None
        return min(mine, key=lambda item: (item[0].distance(wanted), -item[1].frames, str(item[0])))

    def view(
        self, plane: int, threshold: float = DEFAULT_THRESHOLD, max_false: float | None = None
    ) -> DefectMap | None:
        """The union of the views of all bins: bad under any of the known conditions."""
        maps = [tally.view(threshold, max_false) for (number, _), tally in self.tallies.items() if number == plane]
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
