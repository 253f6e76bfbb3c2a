"""Floor 2. ``.badpixels`` of dcraw, LibRaw and rawpy's ``bad_pixels_path``.

``column row time`` per line, 0-based from the corner of the visible area
(margins cut off), before any rotation; ``#`` begins a comment anywhere. The
time is when the pixel died, in seconds since 1970: photographs taken before it
are left alone; 0 is always. A line without all three numbers says nothing to
dcraw (dcraw.c, ``bad_pixels``; LibRaw ``utils_dcraw.cpp``).
"""

from __future__ import annotations

import datetime
from pathlib import Path

from ...defects import DefectMap
from ...mosaic import Area
from .places import BadLine, Flags, Listed, Places, Sensor, comment, integer, parse, points, shape_of, untyped

SUFFIX = ".badpixels"


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def visible(plane: DefectMap, sensor: Sensor) -> tuple[Area, list[str]]:
    """The area that coordinates count from, with a note where it had to be assumed."""
    if sensor.area is not None:
        return sensor.area, []
    whole = Area(0, 0, plane.dq.shape[0], plane.dq.shape[1])
    return whole, ["assumed that the frames have no masked borders; --like FRAME tells"]


def split(plane: DefectMap, area: Area) -> tuple[list[tuple[int, int]], list[str]]:
    """(column, row) of each bad pixel as counted from the area's corner, and a note on those outside of it."""
    found = [(col - area.left, row - area.top) for row, col, _ in points(plane)]
    height, width = area.bottom - area.top, area.right - area.left
    inside = [(x, y) for x, y in found if 0 <= x < width and 0 <= y < height]
    if lost := len(found) - len(inside):
        return inside, [f"lost: {lost} pixels of the masked borders, which have no coordinates there"]
    return inside, []


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the list; returns notes."""
    area, notes = visible(plane, sensor)
    inside, lost = split(plane, area)
    shape = (plane.dq.shape[0], plane.dq.shape[1])
    head = f"# {comment(shape, area)}\n"
    path.write_text(head + "".join(f"{x} {y} 0\n" for x, y in inside), encoding="ascii", newline="\n")
    return notes + lost


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a list; see `fixpix_cli.maps.foreign.read`."""
    died: list[int] = []

    def take(places: Places, number: int, line: str) -> None:
        words = line.partition("#")[0].split()
        if len(words) != 3:
            raise BadLine("not 'column row time'")
        x, y, when = map(integer, words)
        if when > 0:
            died.append(when)
        places.add(number, y, x)

    places, sensor = parse(path, sensor, take)
    listed = moved(places, sensor)
    if died:
        first, last = (datetime.datetime.fromtimestamp(t, datetime.UTC).date() for t in (min(died), max(died)))
        note = f"lost: the time of death of {len(died)} pixels ({first} to {last}); the mask holds for all times"
        return Listed(listed.planes, listed.problems, (*listed.notes, note))
    return listed


def moved(places: Places, sensor: Sensor) -> Listed:
    """Places counted from the visible area's corner, as stored places."""
    shape = shape_of(places.path, sensor)
    area = sensor.area or Area(0, 0, *shape)
    if sensor.area is None:
        places.notes.append("assumed that the frames have no masked borders; --like FRAME tells")
    places.boxes = [(line, plane, r + area.top, c + area.left, h, w, f) for line, plane, r, c, h, w, f in places.boxes]
    return places.listed(shape)
