"""Floor 2. What all foreign map formats share: the sensor they speak of, places and bad lines, what types remain.

A module of this package knows one foreign convention and nothing else. Inside
fixpix a place is (row, col), 0-based, of the plane as its file stores it; each
module turns that into its own frame and back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...defects import DQ, DefectMap
from ...errors import UnreadableError
from ...mosaic import Area

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
        planes = [np.zeros((height, width), np.int32) for _ in range(count)]
        repeated: list[int] = []
        for line, plane, row, col, rows, cols, flags in self.boxes:
            bottom = height if rows < 0 else row + rows
            right = width if cols < 0 else col + cols
            if not (0 <= row < bottom <= height and 0 <= col < right <= width):
                what = "pixel" if rows == cols == 1 else "area"
                why = f"{what} at column {col}, row {row} lies outside of the {width} x {height} pixels"
                self.problems.append(Problem(line, why))
                continue
            part = planes[plane][row:bottom, col:right]
            if (part & int(DQ.DO_NOT_USE)).any():
                repeated.append(line)
            part |= np.int32(flags)
        if repeated:
            self.notes.append(f"pixels of lines before them are repeated by {_some(repeated)}")
        self.problems.sort(key=lambda problem: problem.line)
        return tuple(map(DefectMap, planes))

    def listed(self, shape: tuple[int, int], row_order: str = "") -> Listed:
        """The planes with problems and notes."""
        planes = self.planes(shape)
        return Listed(planes, tuple(self.problems), tuple(self.notes), row_order)


def _some(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return f"{'line' if len(numbers) == 1 else 'lines'} {shown}{more}"


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


def as_kept(plane: DefectMap, keeps: Callable[[Flags], Flags]) -> DefectMap:
    """The plane with the flags that a format keeps, on bad pixels only."""
    places = plane.bad_pixels
    return DefectMap.listed(plane.shape, places, keeps(plane.at(places)))


def brightness(flags: Flags, bright: int, dark: int) -> Flags:
    """Flags of a format that tells bright from dark only: `bright`, `dark`, or no type where it is neither or both."""
    is_bright, is_dark = (flags & BRIGHT) != 0, (flags & DARK) != 0
    kind = np.where(is_bright & ~is_dark, bright, np.where(is_dark & ~is_bright, dark, 0))
    return np.where(flags != 0, kind | int(DQ.DO_NOT_USE), 0).astype(np.int32)


def untyped(flags: Flags) -> Flags:
    """Flags of a format that knows no types."""
    return np.where(flags != 0, int(DQ.DO_NOT_USE), 0).astype(np.int32)
