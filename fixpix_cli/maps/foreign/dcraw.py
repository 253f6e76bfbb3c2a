"""Floor 2. ``.badpixels`` of dcraw, LibRaw and rawpy's ``bad_pixels_path``.

``column row time`` per line, 0-based from the corner of the visible area
(margins cut off), before any rotation; ``#`` begins a comment anywhere. The
time is when the pixel died, in seconds since 1970: photographs taken before it
are left alone; 0 is always. A line without all three numbers says nothing to
dcraw (dcraw.c, ``bad_pixels``; LibRaw ``utils_dcraw.cpp``).
"""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

from ...defects import DefectMap
from .area import cut, listed_in_area, visible
from .places import Flags, Listed, Places, Sensor, untyped
from .shapes import points
from .text import BadLine, comment, integer, parse

SUFFIX = ".badpixels"
_YEAR_9999 = 253_370_764_800


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the list; returns notes."""
    shape = plane.shape
    area, notes = visible(sensor, shape)
    inside, lost = cut(plane, area)
    body = "".join(f"{col} {row} 0\n" for row, col, _ in points(inside))
    path.write_text(f"# {comment(shape, area)}\n{body}", encoding="ascii", newline="\n")
    return notes + lost


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a list; see `fixpix_cli.maps.foreign.read`."""
    died: list[int] = []

    def take(places: Places, number: int, line: str) -> None:
        words = line.partition("#")[0].split()
        if len(words) != 3:
            raise BadLine("not 'column row time'")
        x, y, when = map(integer, words)
        if not 0 <= when < _YEAR_9999:
            raise BadLine(f"{when} is no time in seconds since 1970")
        if when > 0:
            died.append(when)
        places.add(number, y, x)

    places, sensor = parse(path, sensor, take)
    listed = listed_in_area(places, sensor)
    if died:
        first, last = (datetime.datetime.fromtimestamp(t, datetime.UTC).date() for t in (min(died), max(died)))
        note = f"lost: the time of death of {len(died)} pixels ({first} to {last}); the mask holds for all times"
        return replace(listed, notes=(*listed.notes, note))
    return listed
