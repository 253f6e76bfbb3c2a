"""Floor 2. Siril's ``.lst`` of bad pixels (``find_hot``, ``cosme``, ``calibrate -cc=bpm``).

``P x y [H|C]`` is a pixel, ``L y 0`` a line, ``C x 0`` a column; ``#`` begins a
comment line. x is the column, 0-based. y counts from Siril's top row: for FITS
files that is the last stored row, whatever ROWORDER says; camera raws and TIFF
are turned on loading, so that there it is the first. A missing letter means
hot. Siril reads no blank lines, and ``calibrate -cc=bpm`` no L: we write P only
(Siril, src/filters/cosmetic_correction.c).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...defects import DQ, DefectMap
from .places import BadLine, Flags, Listed, Places, Sensor, brightness, comment, integer, parse, points, shape_of

SUFFIX = ".lst"
_UNKNOWN = "assumed FITS frames, whose rows Siril counts from the last one; --like FRAME tells"


def keeps(flags: Flags) -> Flags:
    """Hot or cold."""
    return brightness(flags, int(DQ.HOT), int(DQ.DEAD))


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the list; returns notes."""
    height, width = plane.dq.shape
    kept = DefectMap(keeps(np.where(plane.bad, plane.dq, 0).astype(np.int32)))
    upward = sensor.upward is not False
    text = [f"# {comment((height, width))}\n"]
    for row, col, flags in points(kept):
        letter = " H" if flags & DQ.HOT else " C" if flags & DQ.DEAD else ""
        text.append(f"P {col} {height - 1 - row if upward else row}{letter}\n")
    path.write_text("".join(text), encoding="ascii", newline="\n")
    return [_UNKNOWN] if sensor.upward is None else []


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
    height, width = shape_of(path, sensor)
    if sensor.upward is None:
        places.notes.append(_UNKNOWN)
    if sensor.upward is not False:
        places.boxes = [
            (line, plane, row if rows < 0 else height - 1 - row, col, rows, cols, flags)
            for line, plane, row, col, rows, cols, flags in places.boxes
        ]
    return places.listed((height, width))
