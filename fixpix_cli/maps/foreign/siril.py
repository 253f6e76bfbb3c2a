"""Floor 2. Siril's ``.lst`` of bad pixels (``find_hot``, ``cosme``, ``calibrate -cc=bpm``).

``P x y [H|C]`` is a pixel, ``L y 0`` a line, ``C x 0`` a column; ``#`` begins a
comment line. x is the column, 0-based. y counts from Siril's top row: for FITS
files that is the last stored row, whatever ROWORDER says; camera raws, DNG and
TIFF are turned on loading, so that there it is the first, and of raws and DNG
Siril has the visible area only (proven with Siril 1.0.6). A missing letter means
hot. Siril reads no blank lines, and ``calibrate -cc=bpm`` no L: we write P only
(Siril, src/filters/cosmetic_correction.c).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...defects import DQ, DefectMap
from .area import cut, embedded, visible
from .places import Flags, Listed, Places, Sensor, as_kept, brightness
from .shapes import points
from .text import BadLine, comment, integer, parse, shape_of

SUFFIX = ".lst"
_UNKNOWN = "assumed FITS frames, whose rows Siril counts from the last one; --like FRAME tells"


def keeps(flags: Flags) -> Flags:
    """Hot or cold."""
    return brightness(flags, int(DQ.HOT), int(DQ.DEAD))


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the list; returns notes."""
    shape = plane.shape
    area, _ = visible(sensor, shape)
    inside, notes = cut(as_kept(plane, keeps), area)
    bottom = area.bottom - area.top - 1
    text = [f"# {comment(shape, area)}\n"]
    for row, col, flags in points(inside):
        letter = " H" if flags & DQ.HOT else " C" if flags & DQ.DEAD else ""
        text.append(f"P {col} {row if sensor.upward is False else bottom - row}{letter}\n")
    path.write_text("".join(text), encoding="ascii", newline="\n")
    return notes + ([_UNKNOWN] if sensor.upward is None else [])


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a list; see `fixpix_cli.maps.foreign.read`."""

    def take(places: Places, number: int, line: str) -> None:
        letter, *words = line.split()
        kinds = {"": 0, "H": int(DQ.HOT), "C": int(DQ.DEAD)}
        kind = words.pop().upper() if words and words[-1].upper() in ("H", "C") else ""
        if letter == "P" and len(words) == 2:
            places.add(number, integer(words[1]), integer(words[0]), kinds[kind])
        elif letter in ("L", "C") and len(words) in (1, 2):
            place = integer(words[0])
            if letter == "L":
                places.add(number, place, 0, kinds[kind], width=-1)
            else:
                places.add(number, 0, place, kinds[kind], height=-1)
        else:
            raise BadLine("not 'P x y', 'L y 0' or 'C x 0'")

    places, sensor = parse(path, sensor, take)
    shape = shape_of(path, sensor)
    area, _ = visible(sensor, shape)
    listed = places.listed((area.bottom - area.top, area.right - area.left))
    if sensor.upward is not False:
        listed = replace(listed, planes=tuple(plane.upside_down() for plane in listed.planes))
    if sensor.upward is None:
        listed = replace(listed, notes=(*listed.notes, _UNKNOWN))
    return embedded(listed, area, shape)
