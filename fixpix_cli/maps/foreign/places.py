"""Floor 2. What all foreign map formats share: the sensor they speak of, bad lines, lines of text, boxes.

A module of this package knows one foreign convention and nothing else. Inside
fixpix a place is (row, col), 0-based, of the plane as its file stores it; each
module turns that into its own frame and back.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...defects import DQ, DefectMap
from ...errors import MismatchError, RefusedError, UnreadableError, UsageError
from ...mosaic import Area, Array, Bool

#: Pixels of a plane at most: what a file claims beyond that is a mistake or an attack (536 megapixels).
MOST_PIXELS = 2**29
Flags = npt.NDArray[np.int32]
#: HOT, WARM and SATURATED are bright, DEAD and LOW_QE dark; formats that know no more than that write HOT and DEAD.
BRIGHT = int(DQ.HOT | DQ.WARM | DQ.SATURATED)
DARK = int(DQ.DEAD | DQ.LOW_QE)


@dataclass(frozen=True)
class Sensor:
    """What a foreign format needs to know that its own files may not say.

    Parameters
    ----------
    shape : (H, W) or None
        Of the stored frame.
    area : Area or None
        What programs that cut off the masked borders of raws have of the frame; they count from its corner.
    upward : bool or None
        Whether the frames are FITS files, whose stored row 0 Siril has at the bottom.
    row_order : str
        ``TOP-DOWN``, ``BOTTOM-UP`` or empty.
    make, model, serial : str
        Of the camera.
    """

    shape: tuple[int, int] | None = None
    area: Area | None = None
    upward: bool | None = None
    row_order: str = ""
    make: str = ""
    model: str = ""
    serial: str = ""


@dataclass(frozen=True)
class Problem:
    """A line (or an entry) of a foreign file that says nothing usable. `line` counts from 1."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


@dataclass(frozen=True, eq=False)
class Listed:
    """What a foreign file says.

    Parameters
    ----------
    planes : tuple of DefectMap
    problems : tuple of Problem
        Lines that were left out.
    notes : tuple of str
        What was assumed, and what the file says that a mask cannot hold.
    row_order : str
        If the file states one.
    """

    planes: tuple[DefectMap, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    row_order: str = ""


class BadLine(ValueError):
    """Raised by a format's own parser for one line; becomes a `Problem`."""


@dataclass(eq=False)
class Places:
    """Collects the places of a list, line by line, and becomes its planes when the sensor's shape is known.

    A place is a rectangle of pixels; -1 as its height or width reaches to the sensor's far edge.
    """

    path: Path
    boxes: list[tuple[int, int, int, int, int, int, int]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, line: int, row: int, col: int, flags: int = 0, *, height: int = 1, width: int = 1, plane: int = 0
    ) -> None:
        """One rectangle with its DQ types (DO_NOT_USE is added)."""
        self.boxes.append((line, plane, row, col, height, width, flags | int(DQ.DO_NOT_USE)))

    def planes(self, shape: tuple[int, int]) -> tuple[DefectMap, ...]:
        """The flags as planes; places outside of them become problems, repeated ones a note.

        Raises
        ------
        UnreadableError
            More planes than a list can be meant to have.
        """
        height, width = check_shape(self.path, shape)
        count = 1 + max((box[1] for box in self.boxes), default=0)
        if count > 64:
            raise UnreadableError(f"{self.path}: speaks of {count} planes; a frame has a few")
        planes = [DefectMap.empty((height, width)) for _ in range(count)]
        repeated: list[int] = []
        for line, plane, row, col, rows, cols, flags in self.boxes:
            bottom = height if rows < 0 else row + rows
            right = width if cols < 0 else col + cols
            if not (0 <= row < bottom <= height and 0 <= col < right <= width):
                what = "pixel" if rows == cols == 1 else "area"
                why = f"{what} at column {col}, row {row} lies outside of the {width} x {height} pixels"
                self.problems.append(Problem(line, why))
                continue
            part = planes[plane].dq[row:bottom, col:right]
            if (part & int(DQ.DO_NOT_USE)).any():
                repeated.append(line)
            part |= np.int32(flags)
        if repeated:
            self.notes.append(f"{len(repeated)} lines repeat pixels of lines before them ({_some(repeated)})")
        self.problems.sort(key=lambda problem: problem.line)
        return tuple(planes)

    def listed(self, shape: tuple[int, int], row_order: str = "") -> Listed:
        """The planes with problems and notes."""
        planes = self.planes(shape)
        return Listed(planes, tuple(self.problems), tuple(self.notes), row_order)


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return f"{'line' if len(numbers) == 1 else 'lines'} {shown}{', ...' if len(numbers) > 10 else ''}"


def check_shape(path: Path, shape: tuple[int, int]) -> tuple[int, int]:
    """A shape that a sensor may have.

    Raises
    ------
    UnreadableError
        Empty, or too large to be one.
    """
    height, width = int(shape[0]), int(shape[1])
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        raise UnreadableError(f"{path}: claims {height} x {width} pixels, which no sensor has")
    return height, width


# ---------------------------------------------------------------- text


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of a text file; a byte order mark, line ends of any system and trailing blanks are taken off.

    Raises
    ------
    UnreadableError
        Missing, or no text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{path}: is no text in UTF-8 (byte {error.start})") from error
    if "\0" in text:
        raise UnreadableError(f"{path}: is no text")
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        yield number, line.rstrip()


def fields(line: str, delimiter: str) -> list[str]:
    """The fields of a line of a table, or `BadLine`."""
    try:
        return [word.strip() for word in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]
    except csv.Error as error:
        raise BadLine(str(error)) from error


_SHAPE = re.compile(
    r"fixpix .*?: (\d+) rows x (\d+) columns(?:, light in rows (\d+) to (\d+), columns (\d+) to (\d+))?"
)


def comment(shape: tuple[int, int], area: Area | None = None) -> str:
    """What our lists say of themselves, where the format has comments."""
    from ... import __version__

    light = ""
    if area is not None and area != Area(0, 0, *shape):
        light = f", light in rows {area.top} to {area.bottom - 1}, columns {area.left} to {area.right - 1}"
    return f"fixpix {__version__}: {shape[0]} rows x {shape[1]} columns{light}"


def parse(
    path: Path, sensor: Sensor, take: Callable[[Places, int, str], None], *, remark: str = "#"
) -> tuple[Places, Sensor]:
    """Run a format's parser over the lines of a list.

    Blank lines and whole-line comments are passed over; from a comment of ours
    the shape is taken where the user gave none.

    Parameters
    ----------
    take : callable
        ``take(places, number, line)`` adds what the line says; `BadLine` names what is wrong with it.
    """
    places = Places(path)
    for number, line in lines(path):
        text = line.strip()
        if text.startswith(remark) or not text:
            if said := _SHAPE.search(text):
                sensor = _stated(path, sensor, *said.groups())
            continue
        try:
            take(places, number, text)
        except BadLine as error:
            places.problems.append(Problem(number, f"{error}: {_short(text)}"))
    return places, sensor


def _stated(path: Path, sensor: Sensor, rows: str, cols: str, *light: str | None) -> Sensor:
    shape = check_shape(path, (int(rows), int(cols)))
    if sensor.shape is not None and sensor.shape != shape:
        raise MismatchError(
            f"{path}: is of a sensor with {shape[0]} x {shape[1]} pixels, not {sensor.shape[0]} x {sensor.shape[1]}"
        )
    area = sensor.area
    if area is None:
        top, bottom, left, right = (int(word or -1) for word in light)
        area = Area(0, 0, *shape) if top < 0 else Area(top, left, bottom + 1, right + 1)
        if not (area.top < area.bottom <= shape[0] and area.left < area.right <= shape[1]):
            raise UnreadableError(f"{path}: its comment names an area outside of the sensor")
    return replace(sensor, shape=shape, area=area)


def _short(text: str) -> str:
    printable = "".join(c if c.isprintable() else "?" for c in text[:60])
    return f"'{printable}{'...' if len(text) > 60 else ''}'"


def shape_of(path: Path, sensor: Sensor) -> tuple[int, int]:
    """The sensor's shape.

    Raises
    ------
    UsageError
        Nobody said it.
    """
    if sensor.shape is None:
        raise UsageError(f"{path}: a list does not say how large the sensor is; give --shape HxW or --like FRAME")
    return sensor.shape


def integer(word: str) -> int:
    """A decimal integer, or `BadLine`."""
    if not re.fullmatch(r"[+-]?[0-9]{1,15}", word):
        raise BadLine(f"'{word[:20]}' is no whole number")
    return int(word)


# ---------------------------------------------------------------- the visible area

_NO_BORDERS = "assumed that the frames have no masked borders; --like FRAME tells"


def visible(sensor: Sensor, shape: tuple[int, int]) -> tuple[Area, list[str]]:
    """The area that places count from, with a note where it had to be assumed."""
    return (sensor.area, []) if sensor.area is not None else (Area(0, 0, *shape), [_NO_BORDERS])


def cut(plane: DefectMap, area: Area) -> tuple[DefectMap, list[str]]:
    """The plane within the area, and a note on bad pixels outside of it."""
    part = DefectMap(plane.dq[area.slices])
    if lost := len(plane) - len(part):
        return part, [f"lost: {lost} pixels of the masked borders, which have no coordinates there"]
    return part, []


def embedded(listed: Listed, area: Area, shape: tuple[int, int]) -> Listed:
    """Planes of the area as planes of the whole stored frame."""
    planes = []
    for plane in listed.planes:
        whole = DefectMap.empty(shape)
        whole.dq[area.slices] = plane.dq
        planes.append(whole)
    return replace(listed, planes=tuple(planes))


def listed_in_area(places: Places, sensor: Sensor) -> Listed:
    """Places that count from the visible area's corner."""
    shape = shape_of(places.path, sensor)
    area, notes = visible(sensor, shape)
    places.notes += notes
    return embedded(places.listed((area.bottom - area.top, area.right - area.left)), area, shape)


# ---------------------------------------------------------------- images


def from_image(path: Path, image: Array, *, good: bool = False, limit: bool = True, row_order: str = "") -> Listed:
    """A mask from an image: what is not zero is bad; with `good` what is zero.

    Raises
    ------
    UnreadableError
        Not one plane, or it holds NaN.
    RefusedError
        More than half of the pixels would be bad, which tells of the opposite polarity; not with `limit` False.
    """
    if image.ndim != 2:
        raise UnreadableError(f"{path}: has {image.ndim} axes; a mask is one plane of rows and columns")
    if image.dtype.kind not in "biuf":
        raise UnreadableError(f"{path}: holds {image.dtype} values; a mask holds numbers")
    check_shape(path, image.shape)
    if image.dtype.kind == "f" and np.isnan(image).any():
        raise UnreadableError(f"{path}: holds NaN, which is neither good nor bad")
    bad: Bool = (image == 0) if good else (image != 0)
    share, values = float(bad.mean()), len(np.unique(image[image != 0]))
    if limit and share > 0.5:
        what = f"holds {values} different values, as a picture does, and " if values > 100 else ""
        raise RefusedError(
            f"{path}: {what}{share:.0%} of its pixels would be bad; if zero marks the bad ones give --zero-is-bad, "
            "else --zero-is-good"
        )
    which = "good" if good else "bad"
    notes = (f"lost: what {values} different values mean; all but zero count as {which}",) if values > 1 else ()
    return Listed((DefectMap.of(bad),), notes=notes, row_order=row_order)


# ---------------------------------------------------------------- boxes


def runs(bad: Bool) -> tuple[Array, Array, Array]:
    """(row, first column, width) of each horizontal run of True, in row order."""
    edges = np.zeros((bad.shape[0], bad.shape[1] + 1), np.int8)
    edges[:, :-1] = bad
    edges[:, 1:] -= bad
    rows, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    return rows, starts, stops - starts


def boxes(flags: Flags) -> list[tuple[int, int, int, int, int]]:
    """Disjoint rectangles (row, col, height, width, flags) that hold exactly the nonzero pixels.

    Equal runs of neighbouring rows become one rectangle, so that a whole column is one.
    """
    found: list[tuple[int, int, int, int, int]] = []
    for value in np.unique(flags[flags != 0]):
        rows, cols, widths = runs(flags == value)
        order = np.lexsort((rows, widths, cols))
        rows, cols, widths = rows[order], cols[order], widths[order]
        new = np.ones(len(rows), bool)
        new[1:] = (np.diff(rows) != 1) | (np.diff(cols) != 0) | (np.diff(widths) != 0)
        starts = np.flatnonzero(new)
        heights = np.diff(np.append(starts, len(rows)))
        found += zip(
            rows[starts].tolist(),
            cols[starts].tolist(),
            heights.tolist(),
            widths[starts].tolist(),
            [int(value)] * len(starts),
            strict=True,
        )
    return sorted(found)


def points(plane: DefectMap) -> Iterator[tuple[int, int, int]]:
    """(row, col, flags) of each bad pixel, in row order."""
    rows, cols = np.nonzero(plane.bad)
    yield from zip(rows.tolist(), cols.tolist(), plane.dq[rows, cols].tolist(), strict=True)


def as_kept(plane: DefectMap, keeps: Callable[[Flags], Flags]) -> DefectMap:
    """The plane with the flags that a format keeps, on bad pixels only."""
    places = np.flatnonzero(plane.bad)
    whole = DefectMap.empty((plane.dq.shape[0], plane.dq.shape[1]))
    whole.dq.reshape(-1)[places] = keeps(plane.dq.reshape(-1)[places])
    return whole


def brightness(flags: Flags, bright: int, dark: int) -> Flags:
    """Flags of a format that tells bright from dark only: `bright`, `dark`, or no type where it is neither or both."""
    is_bright, is_dark = (flags & BRIGHT) != 0, (flags & DARK) != 0
    kind = np.where(is_bright & ~is_dark, bright, np.where(is_dark & ~is_bright, dark, 0))
    return np.where(flags != 0, kind | int(DQ.DO_NOT_USE), 0).astype(np.int32)


def untyped(flags: Flags) -> Flags:
    """Flags of a format that knows no types."""
    return np.where(flags != 0, int(DQ.DO_NOT_USE), 0).astype(np.int32)
