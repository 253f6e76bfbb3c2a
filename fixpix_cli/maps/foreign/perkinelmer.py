"""Floor 2. Bad pixel maps of X-ray flat panels as XML (``.bpm.xml``, PerkinElmer detectors).

``BadPixelMap`` with SizeX and SizeY holds ``BadPixels`` and ``UserDefinedBadPixels``
of ``BadPixel`` elements: X, Y (0-based column and row), NoisyPixel, and Mask,
whose bits say which of the eight neighbours can be used: bits 0 to 7 are those at
(row, col) offsets (-1, -1), (0, -1), (1, -1), (-1, 1), (0, 1), (1, 1), (-1, 0),
(1, 0). Mask follows from the list; it is not read, and written as above
(established on real files: every bit of three of six agrees).
"""

from __future__ import annotations

from pathlib import Path
from xml.parsers import expat

import numpy as np

from ...defects import DQ, DefectMap
from ...errors import UnreadableError
from .places import Flags, Listed, Places, Problem, Sensor, check_shape
from .shapes import points
from .text import BadLine, integer

SUFFIX = ".bpm.xml"
#: (row, col) offset of each bit of Mask.
NEIGHBOURS = ((-1, -1), (0, -1), (1, -1), (-1, 1), (0, 1), (1, 1), (-1, 0), (1, 0))
_HEAD = (
    '<?xml version="1.0" encoding="utf-8"?>\r\n'
    '<BadPixelMap xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema" SizeX="{}" SizeY="{}">\r\n'
)


def keeps(flags: Flags) -> Flags:
    """Noisy pixels apart from others."""
    noisy = np.where((flags & int(DQ.TELEGRAPH)) != 0, int(DQ.TELEGRAPH), 0)
    return np.where(flags != 0, noisy | int(DQ.DO_NOT_USE), 0).astype(np.int32)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the map; returns notes."""
    height, width = plane.shape
    usable = np.zeros((height + 2, width + 2), bool)
    usable[1:-1, 1:-1] = ~plane.bad
    text = [_HEAD.format(width, height)]
    text.append("  <BadPixels>\r\n" if len(plane) else "  <BadPixels />\r\n")
    for row, col, flags in points(plane):
        mask = sum(1 << bit for bit, (dr, dc) in enumerate(NEIGHBOURS) if usable[row + 1 + dr, col + 1 + dc])
        noisy = "true" if flags & DQ.TELEGRAPH else "false"
        text.append(f'    <BadPixel X="{col}" Y="{row}" Mask="{mask}" NoisyPixel="{noisy}" />\r\n')
    text.append("  </BadPixels>\r\n" if len(plane) else "")
    text.append("  <UserDefinedBadPixels />\r\n  <BadRows />\r\n  <BadColumns />\r\n</BadPixelMap>")
    path.write_bytes("".join(text).encode("utf-8"))
    return []


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a map; see `fixpix_cli.maps.foreign.read`.

    Raises
    ------
    UnreadableError
        No such XML; or rows and columns, whose form no file at hand shows.
    """
    data = path.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise UnreadableError(f"{path}: declares a document type, which bad pixel maps do not")
    places, shape = Places(path), []
    parser = expat.ParserCreate()

    def start(name: str, cell: dict[str, str]) -> None:
        line = parser.CurrentLineNumber
        try:
            if name == "BadPixelMap":
                shape.append(check_shape(path, (integer(cell.get("SizeY", "")), integer(cell.get("SizeX", "")))))
            elif name == "BadPixel":
                noisy = cell.get("NoisyPixel", "false").strip().lower() == "true"
                x, y = integer(cell.get("X", "")), integer(cell.get("Y", ""))
                places.add(line, y, x, int(DQ.TELEGRAPH) if noisy else 0)
            elif name not in ("BadPixels", "UserDefinedBadPixels", "BadRows", "BadColumns"):
                raise BadLine(f"<{name}> is not understood")
        except BadLine as error:
            places.problems.append(Problem(line, str(error)))

    parser.StartElementHandler = start
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise UnreadableError(f"{path}: is no whole XML file ({error})") from error
    if not shape:
        raise UnreadableError(f"{path}: is no BadPixelMap with SizeX and SizeY")
    return places.listed(shape[0])
