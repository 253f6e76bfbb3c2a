"""Floor 2. The parts of a map's evidence: whose and of which month, so that maps merge exactly, again and again.

Evidence of a single frame cannot be taken out of a sum. Two maps that share
frames could therefore not be merged if each were one sum, and sharing frames is
the normal case: maps of several machines are merged, grow, and are merged again.

So a map keeps its evidence in parts, one per writer and month. The writer is
the map file in which `calibrate` counted the frame (each file has its own mark,
kept beside it in the lock file, so that a copied map gets a new one); the month
is that of the frame's time. A part only grows, and only in one file. Of two
states of a part one holds all frames of the other, and merging takes that one.
The same rule serves any two parts, whoever wrote them: what another part covers
is left out. Two parts that overlap and do not cover each other (one frame
counted by two machines, among others) cannot be added exactly: that is refused,
or the smaller one is left out on request and its frames can be counted anew.

Months make a trend out of evidence that has no time of its own: what the frames
before a month said against what those since then say (`fixpix_cli.maps.trend`).
The memory is that of the suspects, times the writers and months that there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import MismatchError
from ..evidence import Evidence, Tally
from ..mosaic import Conditions


@dataclass(frozen=True, eq=False)
class Part:
    """Some frames' evidence.

    Parameters
    ----------
    writer : str
        Mark of the map file in which they were counted; empty for maps from before there were parts.
    month : str
        ``YYYY-MM`` of the frames' times; empty where they have none.
    evidence : Evidence
    """

    writer: str
    month: str
    evidence: Evidence

    @property
    def digests(self) -> frozenset[str]:
        return frozenset(self.evidence.frames)

    def covers(self, other: Part) -> bool:
        """Whether everything in `other` is in this part, too."""
        if not other.evidence.frames:  # nothing tells its frames: only the same evidence is surely no other
            return self.evidence == other.evidence
        return other.digests <= self.digests


def month_of(conditions: Conditions) -> str:
    """``YYYY-MM`` of a frame: ISO 8601, EXIF (``2026:03:01 ...``) or the FITS of before 2000 (``31/12/99``)."""
    text = (conditions.time or "").strip()
    if match := re.match(r"(\d{4})[-:/](\d\d)\b", text):
        year, month = match[1], match[2]
    elif match := re.match(r"\d\d?/(\d\d)/(\d\d)$", text):
        year, month = f"19{match[2]}", match[1]
    else:
        return ""
    return f"{year}-{month}" if year > "0000" and "01" <= month <= "12" else ""


def months_of(evidence: Evidence) -> str:
    """The month of some frames that were taken together; empty if they have none or several."""
    months = {month_of(counted.conditions) for counted in evidence.frames.values()}
    return months.pop() if len(months) == 1 else ""


def total(parts: Iterable[Part]) -> Evidence:
    """The sum of all parts."""
    whole = Evidence()
    for part in parts:
        whole = whole + part.evidence
    return whole


def grown(parts: Sequence[Part], writer: str, evidence: Evidence) -> tuple[Part, ...]:
    """The parts with the frames of one more file counted by `writer`."""
    month = months_of(evidence)
    for number, part in enumerate(parts):
        if (part.writer, part.month) == (writer, month):
            return (*parts[:number], replace(part, evidence=part.evidence + evidence), *parts[number + 1 :])
    return (*parts, Part(writer, month, evidence))


def joined(parts: Iterable[Part], leave_out: bool = False) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Parts of several maps such that each frame counts once, and those left out although they hold more frames.

    Parameters
    ----------
    parts : iterable of Part
        In any order; the result does not depend on it.
    leave_out : bool
        Of two parts that overlap leave out the smaller one.

    Raises
    ------
    MismatchError
        Two parts overlap, neither covers the other, and `leave_out` is False.
    """
    kept: list[Part] = []
    left: list[Part] = []
    for part in sorted(parts, key=_rank):
        if any(other.covers(part) for other in kept):
            continue
        crossing = [other for other in kept if other.digests & part.digests]
        if crossing and not leave_out:
            raise MismatchError(_overlap(part, crossing))
        (left if crossing else kept).append(part)
    kept.sort(key=lambda part: (part.month, part.writer, _rank(part)))
    return tuple(kept), tuple(left)


def _rank(part: Part) -> tuple[int, int, str, str, str]:
    """Most frames first; of parts with the same frames the one with more suspects (the other was pruned)."""
    suspects = sum(len(tally.entries) for tally in part.evidence.tallies.values())
    return -len(part.evidence.frames), -suspects, part.month, part.writer, min(part.evidence.frames, default="")


def _overlap(part: Part, others: Sequence[Part]) -> str:
    shared = frozenset().union(*(part.digests & other.digests for other in others))
    names = sorted({part.evidence.frames[digest].name or digest[:12] for digest in shared})
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"{len(shared)} frames ({shown}) were counted by two machines, each together with frames that the other "
        f"has not; they would count twice. With --leave-out the smaller part ({len(part.digests)} frames"
        f"{f' of {part.month}' if part.month else ''}) is left out; calibrate its frames again afterwards"
    )


def flipped(evidence: Evidence) -> Evidence:
    """The same evidence for the opposite row order."""
    return replace(evidence, tallies={key: _flipped(tally) for key, tally in evidence.tallies.items()})


def _flipped(tally: Tally) -> Tally:
    height, width = tally.shape
    entries = tally.entries.copy()
    rows, cols = np.divmod(entries["pixel"], width)
    entries["pixel"] = (height - 1 - rows) * width + cols
    return replace(tally, entries=entries[np.argsort(entries["pixel"])])


def within(parts: Iterable[Part], first: str = "", before: str = "9999-99") -> Evidence:
    """The evidence of the months `first` <= month < `before`; parts without a month are in none."""
    return total(part for part in parts if part.month and first <= part.month < before)
