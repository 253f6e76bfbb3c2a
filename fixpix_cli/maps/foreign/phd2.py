"""Floor 2. PHD2's defect map: ``# PHD2 Defect Map v1``, further ``#`` lines, then ``x y``, 0-based (image_math.cpp)."""

from __future__ import annotations

from pathlib import Path

from ...defects import DefectMap
from .places import Flags, Listed, Places, Sensor, untyped
from .shapes import points
from .text import BadLine, comment, integer, parse, shape_of

SUFFIX = ".txt"
HEAD = "# PHD2 Defect Map v1"


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the list; returns notes."""
    shape = plane.shape
    head = [HEAD, f"# {comment(shape)}", f"# Defect count: {len(plane)}"]
    body = [f"{col} {row}" for row, col, _ in points(plane)]
    path.write_text("\n".join([*head, *body, ""]), encoding="ascii", newline="\n")
    return []


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a list; see `fixpix_cli.maps.foreign.read`."""

    def take(places: Places, number: int, line: str) -> None:
        words = line.split()
        if len(words) < 2:
            raise BadLine("not 'x y'")
        places.add(number, integer(words[1]), integer(words[0]))

    places, sensor = parse(path, sensor, take)
    return places.listed(shape_of(path, sensor))
