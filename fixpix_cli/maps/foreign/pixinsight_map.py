"""Floor 2. PixInsight's defect map images (DefectMap): 0 = defective, white = good, the opposite of all others.

As FITS, TIFF or PNG, by the name of the file. FITS states its ROWORDER, which
PixInsight honours since 1.8.8-6; in a TIFF or PNG the first row is at the top.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...defects import DefectMap
from ...errors import UsageError
from . import fits_mask, png, tiff
from .image import from_image
from .places import Flags, Listed, Sensor, untyped

SUFFIX = ".fits"
IMAGE = True


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the image; returns notes."""
    image = (~plane.bad).astype(np.uint8) * np.uint8(255)
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff", ".png"):
        shown = image[::-1] if sensor.row_order == "BOTTOM-UP" else image
        (png if suffix == ".png" else tiff).dump(path, np.ascontiguousarray(shown))
    elif suffix in (".fits", ".fit", ".fts"):
        fits_mask.dump(path, image, sensor, "PixInsight defect map: 0 bad, 255 good")
    else:
        raise UsageError(f"{path.suffix or 'no suffix'}: a PixInsight defect map is a .fits, .tif or .png")
    return []


def read(path: Path, sensor: Sensor, good: bool = True, limit: bool = True) -> Listed:
    """Read an image; see `fixpix_cli.maps.foreign.read`. Zero is always bad."""
    suffix = path.suffix.lower()
    order = ""
    if suffix in (".tif", ".tiff", ".png"):
        image = (png if suffix == ".png" else tiff).load(path)
        image = image[::-1] if sensor.row_order == "BOTTOM-UP" else image
    else:
        image, order = fits_mask.load(path)
    return from_image(path, image, good=True, limit=limit, row_order=order)
