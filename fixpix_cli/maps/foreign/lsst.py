"""Floor 2. Defects of the LSST pipelines (lsst.ip.isr.Defects) as ECSV, and what all their forms share.

Boxes ``x0 y0 width height``, 0-based from the first stored column and row.
LSST unites overlapping boxes, and names a ``reason`` in a column or table of
its own. ECSV is text: a YAML header in ``#`` lines, a line of column names, rows
(APE 6). The oldest form is four numbers per line without any header.
"""

from __future__ import annotations

import json
from pathlib import Path

from ...defects import DQ, DefectMap
from .places import Flags, Listed, Places, Sensor, as_kept, brightness
from .shapes import boxes
from .text import BadLine, comment, fields, integer, parse, shape_of

SUFFIX = ".ecsv"
HEAD = "# %ECSV"
COLUMNS = ("x0", "y0", "width", "height")
_REASONS = {int(DQ.HOT): "HOT_PIXEL", int(DQ.DEAD): "COLD_PIXEL"}
_FLAGS = {
    **{name: flag for flag, name in _REASONS.items()},
    "HOT_COLUMN": int(DQ.HOT),
    "COLD_COLUMN": int(DQ.DEAD),
    "VAMPIRE_PIXEL": int(DQ.OTHER_BAD_PIXEL),
    **dict.fromkeys(("UNLABELED", "MANUAL_DEFECT", "EDGE", ""), 0),
}


def keeps(flags: Flags) -> Flags:
    """Hot or cold."""
    return brightness(flags, int(DQ.HOT), int(DQ.DEAD))


def reason(flags: int) -> str:
    """LSST's word for a type."""
    return next((name for flag, name in _REASONS.items() if flags & flag), "UNLABELED")


def flags_of(word: str) -> int:
    """The type that LSST's word means."""
    if word.strip() not in _FLAGS:
        raise BadLine(f"'{word[:20]}' is no reason that LSST knows")
    return _FLAGS[word.strip()]


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the table; returns notes."""
    columns = [f"# - {{name: {name}, datatype: int64}}" for name in COLUMNS]
    meta = {"OBSTYPE": "defects", "DEFECTS_SCHEMA": "Simple", "DEFECTS_SCHEMA_VERSION": 1}
    meta |= {"INSTRUME": sensor.model} if sensor.model else {}
    meta |= {"DET_SER": sensor.serial} if sensor.serial else {}
    text = [
        "# %ECSV 1.0",
        "# ---",
        f"# # {comment(plane.shape)}",
        "# datatype:",
        *columns,
        "# - {name: reason, datatype: string}",
        "# meta: !!omap",
        *(f"# - {{{key}: {json.dumps(value)}}}" for key, value in meta.items()),
        "# schema: astropy-2.0",
        " ".join((*COLUMNS, "reason")),
    ]
    text += [
        f"{col} {row} {wide} {high} {reason(flags)}" for row, col, high, wide, flags in boxes(as_kept(plane, keeps).dq)
    ]
    path.write_text("\n".join([*text, ""]), encoding="utf-8", newline="\n")
    return []


def add(places: Places, line: int, x0: int, y0: int, width: int, height: int, flags: int) -> None:
    """One box; LSST's tables hold no empty ones."""
    if width < 1 or height < 1:
        raise BadLine(f"a box of {width} x {height} pixels")
    places.add(line, y0, x0, flags, height=height, width=width)


def read(path: Path, sensor: Sensor) -> Listed:
    """Read an ECSV table or the four columns of old; see `fixpix_cli.maps.foreign.read`."""
    columns: list[str] = []
    mark = " "

    def take(places: Places, number: int, line: str) -> None:
        nonlocal columns, mark
        mark = "," if not columns and "," in line else mark
        words = fields(line, mark)
        if not columns:
            columns = list(COLUMNS)
            if not words[0].lstrip("+-").isdigit():
                if not set(COLUMNS) <= set(words):
                    raise BadLine("no columns x0, y0, width, height")
                columns = words
                return
        if len(words) != len(columns):
            raise BadLine(f"{len(words)} fields instead of {len(columns)}")
        cell = dict(zip(columns, words, strict=True))
        x0, y0, width, height = (integer(cell[name]) for name in COLUMNS)
        add(places, number, x0, y0, width, height, flags_of(cell.get("reason", "")))

    places, sensor = parse(path, sensor, take)
    return places.listed(shape_of(path, sensor))
