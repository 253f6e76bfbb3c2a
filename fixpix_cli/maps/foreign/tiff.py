"""Floor 2. A mask as a gray TIFF: 0 good, anything else bad; written with 255. A keeper of tifffile.

The stored numbers count, whatever PhotometricInterpretation makes of them.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...defects import DefectMap
from ...errors import UnreadableError
from ...mosaic import Array
from .image import from_image
from .places import Flags, Listed, Sensor, check_shape, untyped

SUFFIX = ".tif"
IMAGE = True
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


class _Complaints(logging.Handler):
    """Collects what tifffile only logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextlib.contextmanager
def _strict(path: Path) -> Iterator[None]:
    """Refuse a file of which tifffile logs a complaint: it reads missing strips as zeros, which here means good."""
    logger, complaints = logging.getLogger("tifffile"), _Complaints()
    spread, logger.propagate = logger.propagate, False
    logger.addHandler(complaints)
    try:
        yield
    finally:
        logger.removeHandler(complaints)
        logger.propagate = spread
    if complaints.said:
        raise UnreadableError(f"{path}: is damaged ({complaints.said[0]})")


def load(path: Path) -> Array:
    """The samples of the only page.

    Raises
    ------
    UnreadableError
        Damaged, several pages, or several channels.
    """
    import tifffile

    try:
        with _strict(path), tifffile.TiffFile(path) as file:
            if len(file.pages) != 1:
                raise UnreadableError(f"{path}: has {len(file.pages)} pages; a mask has one")
            page = file.pages[0]
            if len(page.shape) != 2:
                raise UnreadableError(f"{path}: has several channels; save the mask as gray")
            check_shape(path, page.shape)
            return np.asarray(page.asarray())
    except UnreadableError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, struct.error) as error:
        raise UnreadableError(f"{path}: is no readable TIFF ({str(error) or type(error).__name__})") from error


def dump(path: Path, image: Array) -> None:
    """Write uint8 samples."""
    import tifffile

    with path.open("wb") as stream:
        tifffile.imwrite(stream, image, photometric="minisblack", compression="zlib", metadata=None)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the mask; returns notes."""
    dump(path, plane.bad.astype(np.uint8) * np.uint8(255))
    return []


def read(path: Path, sensor: Sensor, good: bool = False, limit: bool = True) -> Listed:
    """Read a mask; see `fixpix_cli.maps.foreign.read`."""
    return from_image(path, load(path), good=good, limit=limit)
