"""Floor 2. Foreign lists as text: their lines, our comment in them, and what is wrong with a line."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ...errors import MismatchError, UnreadableError, UsageError
from ...mosaic import Area
from .places import Places, Problem, Sensor, check_shape

_SHAPE = re.compile(
    r"fixpix .*?: (\d+) rows x (\d+) columns(?:, light in rows (\d+) to (\d+), columns (\d+) to (\d+))?"
)


class BadLine(ValueError):
    """Raised by a format's own parser for one line; becomes a `Problem`."""


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
