"""Floor 2. RawTherapee's ``.badpixels``.

``x y`` per line, 0-based from the corner of RawTherapee's working raw (LibRaw's
visible area, and camconst.json's raw crop where it has one for the camera). A
first line with a single number is an offset for all others. The file lies in
the folder of dark frames and is called ``MAKE MODEL SERIAL.badpixels`` or
``MAKE MODEL.badpixels``, as RawTherapee shows them (rtengine/dfmanager.cc). It
reads serial numbers of few cameras, so the shorter name is the one to be found.
RawTherapee leaves the outer two rows and columns as they are.
"""

from __future__ import annotations

from pathlib import Path

from ...defects import DefectMap
from .area import cut, listed_in_area, visible
from .places import Flags, Listed, Places, Sensor, untyped
from .shapes import points
from .text import BadLine, comment, integer, parse

SUFFIX = ".badpixels"
#: Makes that RawTherapee shortens to this (rtengine/imagedata.cc).
_MAKES = (
    *("Canon", "NIKON", "EPSON", "KODAK", "Kodak", "OLYMPUS", "PENTAX", "RICOH", "MINOLTA", "Minolta", "Konica"),
    *("CASIO", "Sinar", "Phase One", "SAMSUNG", "Mamiya", "MOTOROLA", "Leaf", "Panasonic"),
)


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def default_name(sensor: Sensor) -> str:
    """The name by which RawTherapee finds the list, or none where the camera is not known."""
    make = next((name for name in _MAKES if name in sensor.make), sensor.make.strip())
    model = sensor.model.strip().removeprefix(f"{make} ")
    return f"{make} {model}{SUFFIX}" if make and model and "/" not in make + model else ""


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the list; returns notes."""
    shape = plane.shape
    area, notes = visible(sensor, shape)
    inside, lost = cut(plane, area)
    body = "".join(f"{col} {row}\n" for row, col, _ in points(inside))
    path.write_text(f"# {comment(shape, area)}\n{body}", encoding="ascii", newline="\n")
    name = default_name(sensor)
    where = f"as '{name}'" if name else "named 'MAKE MODEL.badpixels'"
    return [*notes, *lost, f"RawTherapee looks for it in its folder of dark frames, {where}"]


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a list; see `fixpix_cli.maps.foreign.read`."""
    offset = 0

    def take(places: Places, number: int, line: str) -> None:
        nonlocal offset
        words = line.split()
        if number == 1 and len(words) == 1:
            offset = integer(words[0])
            return
        if len(words) not in (2, 3):  # a third column, dcraw's time, is ignored by RawTherapee, too
            raise BadLine("not 'x y'")
        x, y = map(integer, words[:2])
        places.add(number, y + offset, x + offset)

    places, sensor = parse(path, sensor, take)
    if offset:
        places.notes.append(f"the first line's offset of {offset} was added to every position")
    return listed_in_area(places, sensor)
