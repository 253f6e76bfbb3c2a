"""Floor 2. PixInsight's defect list (CosmeticCorrection, LinearDefectDetection).

``Col x`` or ``Row y``, optionally followed by the first and the last pixel,
inclusive; single blanks, no header, no comments. 0-based from the top left
corner of the image as PixInsight shows it: a FITS file of ROWORDER BOTTOM-UP is
shown with its last row at the top (since 1.8.8-6). A single pixel is a column
of one pixel.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...defects import DefectMap
from .places import Flags, Listed, Places, Sensor, untyped
from .shapes import runs
from .text import BadLine, integer, parse, shape_of

SUFFIX = ".txt"


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the list; returns notes. Whole rows and columns are one line each, the rest runs down the columns."""
    bad = plane.bad[::-1].copy() if sensor.row_order == "BOTTOM-UP" else plane.bad.copy()
    text = [f"Row {row}\n" for row in np.flatnonzero(bad.all(axis=1))]
    bad[bad.all(axis=1)] = False
    cols, tops, heights = runs(bad.T)
    text += [f"Col {x} {y} {y + h - 1}\n" for x, y, h in zip(cols, tops, heights, strict=True)]
    path.write_text("".join(text), encoding="ascii", newline="\n")
    return []


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a list; see `fixpix_cli.maps.foreign.read`."""

    def take(places: Places, number: int, line: str) -> None:
        word, *rest = line.split()
        if word.lower() not in ("col", "row") or len(rest) not in (1, 3):
            raise BadLine("not 'Col x [first last]' or 'Row y [first last]'")
        place, *ends = map(integer, rest)
        first, length = (ends[0], ends[1] - ends[0] + 1) if ends else (0, -1)
        if ends and length < 1:
            raise BadLine("its last pixel comes before its first")
        if word.lower() == "col":
            places.add(number, first, place, height=length)
        else:
            places.add(number, place, first, width=length)

    places, sensor = parse(path, sensor, take)
    listed = places.listed(shape_of(path, sensor))
    if sensor.row_order != "BOTTOM-UP":
        return listed
    return Listed(tuple(p.upside_down() for p in listed.planes), listed.problems, listed.notes)
