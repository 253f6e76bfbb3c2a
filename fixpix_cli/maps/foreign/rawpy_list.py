"""Floor 2. rawpy's lists of bad pixels (``rawpy.enhance``): an (n, 2) array of (row, column) as ``.npy``.

0-based from the corner of LibRaw's visible area, as dcraw counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...defects import DefectMap
from ...errors import UnreadableError
from .area import cut, listed_in_area, visible
from .npy import load
from .places import Flags, Listed, Places, Sensor, untyped

SUFFIX = ".npy"


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def is_list(shape: tuple[int, ...], kind: str) -> bool:
    """Whether an array looks like a list rather than a mask."""
    return len(shape) == 2 and shape[1] == 2 and kind in "iu"


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the list; returns notes."""
    area, notes = visible(sensor, plane.shape)
    inside, lost = cut(plane, area)
    with path.open("wb") as stream:
        np.save(stream, np.argwhere(inside.bad))
    return notes + lost


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a list; see `fixpix_cli.maps.foreign.read`."""
    array = load(path)
    if not is_list(array.shape, array.dtype.kind):
        raise UnreadableError(f"{path}: is no list of (row, column) but {array.dtype} of shape {array.shape}")
    places = Places(path)
    for number, (row, col) in enumerate(array.tolist(), 1):
        places.add(number, row, col)
    return listed_in_area(places, sensor)
