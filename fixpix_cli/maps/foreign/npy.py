"""Floor 2. NumPy's ``.npy``: a mask (pyFAI: 1 = masked) of any numeric type."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np

from ...defects import DefectMap
from ...errors import UnreadableError
from ...mosaic import Array
from .image import from_image
from .places import Flags, Listed, Sensor, untyped

SUFFIX = ".npy"
IMAGE = True
MAGIC = b"\x93NUMPY"


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def load(path: Path) -> Array:
    """The array of a file; nothing in it is executed.

    Raises
    ------
    UnreadableError
        No array, cut off, or one of objects.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, OverflowError) as error:
        raise UnreadableError(f"{path}: is no readable array ({str(error) or type(error).__name__})") from error
    if not isinstance(found, np.ndarray):
        raise UnreadableError(f"{path}: is no single array")
    return found


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the mask; returns notes."""
    with path.open("wb") as stream:
        np.save(stream, plane.bad.astype(np.uint8))
    return []


def read(path: Path, sensor: Sensor, good: bool = False, limit: bool = True) -> Listed:
    """Read a mask; see `fixpix_cli.maps.foreign.read`."""
    return from_image(path, load(path), good=good, limit=limit)
