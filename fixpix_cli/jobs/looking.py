"""The first pass of ``correct --auto``: what a camera's frames show together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import maps, workers
from ..defects import DefectMap
from ..errors import FixpixError
from ..evidence import Tally
from ..mosaic import Frame
from .frames import load, tallies_of, threshold_of
from .inputs import Source
from .outcomes import Common

#: Marks, in memory alone, what is no defect: JWST's OUTLIER without DO_NOT_USE.
LIGHT = 1 << 4
#: Suspects per frame that the first pass of `correct --auto` remembers for the second.
_REMEMBERED = 500_000


@dataclass(frozen=True, eq=False)
class Looked:
    """What the first pass of ``correct --auto`` keeps of a frame.

    tallies: of every plane of every moment, or () where they are too many to remember; sums: over the moments.
    """

    key: str
    tallies: tuple[Tally, ...]
    complete: bool
    sums: tuple[Tally, ...] = ()

    @classmethod
    def of(cls, frame: Frame) -> Looked:
        """Look at a frame, moment by moment."""
        sums: list[Tally] = []
        each: list[Tally] = []
        remembered, complete = 0, True
        for number in range(frame.moments):
            told = tallies_of(frame.moment(number), frame.conditions)
            sums = [a + b for a, b in zip(sums, told, strict=True)] if sums else told
            remembered += sum(len(t.entries) for t in told)
            complete = remembered <= _REMEMBERED
            each = [*each, *told] if complete else []
        return cls(maps.key_of(frame.identity), tuple(each), complete, tuple(sums))

    def weak(self, common: Common) -> list[DefectMap] | None:
        """The pixels that at least three moments together find bad; None where there are fewer."""
        return agreed(self.sums, common)


def agreed(sums: Sequence[Tally], common: Common) -> list[DefectMap] | None:
    """The pixels that some frames together find bad, and with `LIGHT` alone those that they show to be light."""
    if sums[0].frames < 3:
        return None
    views = [tally.view(threshold_of(common), common.max_false) for tally in sums]
    for tally, view in zip(sums, views, strict=True):
        view.dq[tally.light(threshold_of(common), common.max_false)] = LIGHT
    return views


def bad_of(together: DefectMap) -> DefectMap:
    """What some frames together find bad."""
    return DefectMap(np.where(together.bad, together.dq, np.int32(0)))


def spare(single: DefectMap, together: DefectMap) -> DefectMap:
    """What one frame finds bad, without what is light to the frames together."""
    return DefectMap(np.where(together.dq == LIGHT, np.int32(0), single.dq))


def camera_key(looked: Looked | None) -> str:
    return looked.key if looked else ""


def look(sources: Sequence[Source], common: Common) -> tuple[dict[Path, Looked], dict[str, list[DefectMap]]]:
    """The first pass: what every frame shows, and the pixels that a camera's frames together find bad.

    At least three frames of one camera must agree; moving scenes are taken for
    granted no further than the mean probability goes.
    """
    remembered: dict[Path, Looked] = {}
    sums: dict[str, list[Tally]] = {}
    items = [(s.path, common) for s in sources]
    found = workers.run(_look_one, items, common.jobs, common.budget, lambda item, why: None)
    for source, looked in zip(sources, found, strict=True):
        if looked is None:
            continue
        if looked.key in sums:
            sums[looked.key] = [a + b for a, b in zip(sums[looked.key], looked.sums, strict=True)]
        else:
            sums[looked.key] = list(looked.sums)
        remembered[source.path] = replace(looked, sums=())
    weak = {key: view for key, tallies in sums.items() if (view := agreed(tallies, common)) is not None}
    return remembered, weak


def _look_one(path: Path, common: Common) -> Looked | None:
    try:
        return Looked.of(load(path, common))
    except FixpixError:
        return None  # the second pass meets the same error and reports it
