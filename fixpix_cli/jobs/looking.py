"""The first pass of ``correct --auto``: what a camera's frames show together."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import maps
from ..defects import DefectMap
from ..errors import FixpixError
from ..evidence import Tally
from ..mosaic import Frame
from .frames import load, tallies_of, threshold_of
from .inputs import Source
from .outcomes import Common
from .working import Place

#: Marks, in memory alone, what is no defect: JWST's OUTLIER without DO_NOT_USE.
LIGHT = 1 << 4
#: Bytes of flags that the first pass of `correct --auto` keeps for the second, of all frames together. What
#: does not fit is found again: that takes time, and memory stays as it is.
REMEMBERED = 64_000_000


@dataclass(frozen=True)
class Packed:
    """The flags of one plane in little room, some bytes for each flagged pixel."""

    shape: tuple[int, int]
    data: bytes

    @classmethod
    def of(cls, flags: DefectMap) -> Packed:
        steps, bits = np.diff(flags.pixels, prepend=0).astype("<u4"), flags.flags.astype("<i4")
        return cls(flags.shape, zlib.compress(steps.tobytes() + bits.tobytes(), 1))

    def view(self) -> DefectMap:
        """All pixels' flags."""
        raw = zlib.decompress(self.data)
        half = len(raw) // 2
        pixels = np.cumsum(np.frombuffer(raw[:half], "<u4"), dtype=np.int64)
        return DefectMap.listed(self.shape, pixels, np.frombuffer(raw[half:], "<i4").astype(np.int32))


@dataclass(frozen=True, eq=False)
class Looked:
    """What the first pass of ``correct --auto`` keeps of a frame.

    flags: of every plane of every moment, or () where they are too many to remember; sums: over the moments.
    """

    key: str
    flags: tuple[Packed, ...]
    sums: tuple[Tally, ...] = ()

    @classmethod
    def of(cls, frame: Frame, common: Common) -> Looked:
        """Look at a frame, moment by moment."""
        sums: list[Tally] = []
        each: list[Packed] = []
        size, complete = 0, True
        for number in range(frame.moments):
            told = tallies_of(frame.moment(number), frame.conditions, common.threads)
            sums = [a + b for a, b in zip(sums, told, strict=True)] if sums else told
            if complete:
                views = [Packed.of(single(tally, common)) for tally in told]
                size += sum(len(view.data) for view in views)
                complete = size <= REMEMBERED
                each = [*each, *views] if complete else []
        return cls(maps.key_of(frame.identity), tuple(each), tuple(sums))

    @property
    def size(self) -> int:
        """Bytes of the flags."""
        return sum(len(view.data) for view in self.flags)

    def weak(self, common: Common) -> list[DefectMap] | None:
        """The pixels that at least three moments together find bad; None where there are fewer."""
        return agreed(self.sums, common)


def single(tally: Tally, common: Common) -> DefectMap:
    """What one frame finds bad."""
    return tally.view(threshold_of(common), common.max_false, common.precision)


def agreed(sums: Sequence[Tally], common: Common) -> list[DefectMap] | None:
    """The pixels that some frames together find bad, and with `LIGHT` alone those that they show to be light."""
    if sums[0].frames < 3:
        return None
    views = []
    for tally in sums:
        light = tally.light(threshold_of(common), common.max_false, common.precision)
        views.append(single(tally, common) | DefectMap.listed(tally.shape, light, np.full(len(light), LIGHT, np.int32)))
    return views


def bad_of(together: DefectMap) -> DefectMap:
    """What some frames together find bad."""
    pixels = together.bad_pixels
    return DefectMap.listed(together.shape, pixels, together.at(pixels))


def spare(alone: DefectMap, together: DefectMap) -> DefectMap:
    """What one frame finds bad, without what is light to the frames together."""
    pixels, flags = alone.pixels, alone.flags
    kept = together.at(pixels) != LIGHT
    return DefectMap.listed(alone.shape, pixels[kept], flags[kept])


def camera_key(looked: Looked | None) -> str:
    return looked.key if looked else ""


def look(sources: Sequence[Source], common: Common, place: Place) -> tuple[dict[Path, Looked], dict[str, list[Packed]]]:
    """The first pass: what every frame shows, and the pixels that a camera's frames together find bad.

    At least three frames of one camera must agree; moving scenes are taken for
    granted no further than the mean probability goes.
    """
    remembered: dict[Path, Looked] = {}
    room = REMEMBERED
    sums: dict[str, list[Tally]] = {}
    items = [(s.path, common) for s in sources]
    found = place.each(_look_one, items, lambda item, why: None)
    for source, looked in zip(sources, found, strict=True):
        if looked is None:
            continue
        if looked.key in sums:
            sums[looked.key] = [a + b for a, b in zip(sums[looked.key], looked.sums, strict=True)]
        else:
            sums[looked.key] = list(looked.sums)
        looked = replace(looked, sums=(), flags=looked.flags if looked.size <= room else ())
        room -= looked.size
        remembered[source.path] = looked
    weak = {
        key: list(map(Packed.of, views))
        for key, tallies in sums.items()
        if (views := agreed(tallies, common)) is not None
    }
    return remembered, weak


def _look_one(path: Path, common: Common) -> Looked | None:
    try:
        return Looked.of(load(path, common), common)
    except FixpixError:
        return None  # the second pass meets the same error and reports it
