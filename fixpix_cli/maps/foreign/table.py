"""Floor 2. CSV: a table of bad pixels for spreadsheets and scripts, and for lists of unknown origin.

The first line names the columns: ``row`` and ``col``, or ``y`` and ``x``; 0-based
from the first stored pixel. Optional: ``type`` (DQ names joined by ``+``), ``dq``
(the DQ bits as a number; it wins over the names) and ``plane``. Comma, semicolon
or tab; ``#`` lines are comments. What we write holds a map whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...defects import DQ, TYPES, DefectMap
from ...errors import UnreadableError, UsageError
from .places import Flags, Listed, Places, Sensor
from .shapes import points
from .text import BadLine, comment, fields, integer, parse, shape_of

SUFFIX = ".csv"
PLANES = True


def keeps(flags: Flags) -> Flags:
    """Everything."""
    return flags


def names(flags: int) -> str:
    """Types joined by ``+``; empty for none."""
    return "+".join(flag.name or "" for flag in TYPES if flags & flag)


def write(path: Path, planes: Sequence[DefectMap], sensor: Sensor) -> list[str]:
    """Write the table; returns notes."""
    if len({plane.shape for plane in planes}) > 1:
        raise UsageError("the map's planes differ in size, which a table cannot say; choose one with --plane N")
    rows, cols = planes[0].shape
    several = len(planes) > 1
    text = [f"# {comment((rows, cols))}", f"{'plane,' if several else ''}row,col,dq,type"]
    for number, plane in enumerate(planes):
        own = f"{number}," if several else ""
        text += [f"{own}{row},{col},{flags},{names(flags)}" for row, col, flags in points(plane)]
    path.write_text("\n".join([*text, ""]), encoding="ascii", newline="\n")
    return []


def delimiter(line: str) -> str:
    """Comma, semicolon or tab, by what the line has most of."""
    return max(",;\t", key=line.count)


def is_head(line: str) -> bool:
    """Whether a line names the columns of such a table."""
    words = {word.strip().strip('"').lower() for word in line.split(delimiter(line))}
    return {"row", "col"} <= words or {"x", "y"} <= words


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a table; see `fixpix_cli.maps.foreign.read`."""
    columns: list[str] = []
    mark = ","

    def take(places: Places, number: int, line: str) -> None:
        nonlocal columns, mark
        if not columns:
            if not is_head(line):
                raise UnreadableError(
                    f"{path}: its first line must name the columns: row,col or x,y (0-based), and type, dq, plane"
                )
            mark = delimiter(line)
            columns = [word.lower() for word in fields(line, mark)]
            return
        words = fields(line, mark)
        if len(words) != len(columns):
            raise BadLine(f"{len(words)} fields instead of {len(columns)}")
        cell = dict(zip(columns, words, strict=True))
        row, col = integer(cell.get("row", cell.get("y", ""))), integer(cell.get("col", cell.get("x", "")))
        plane = integer(cell.get("plane") or "0")
        if not 0 <= plane < 64:
            raise BadLine(f"there is no plane {plane}")
        places.add(number, row, col, _flags(cell), plane=plane)

    places, sensor = parse(path, sensor, take)
    return places.listed(shape_of(path, sensor))


def _flags(cell: dict[str, str]) -> int:
    known = {flag.name: int(flag) for flag in DQ}
    if cell.get("dq"):
        flags = integer(cell["dq"])
        if flags & ~sum(known.values()) or not flags & DQ.DO_NOT_USE:
            raise BadLine(f"dq {flags} is no bad pixel in the bits that fixpix knows")
        return flags
    flags = 0
    for name in filter(None, cell.get("type", "").upper().split("+")):
        if name not in known:
            raise BadLine(f"'{name[:20]}' is no type of defect")
        flags |= known[name]
    return flags
