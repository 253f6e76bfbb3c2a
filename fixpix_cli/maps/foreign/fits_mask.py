"""Floor 2. A plain FITS mask: one image, 0 good, anything else bad (IRAF, ccdproc, astropy); a keeper of astropy.

Read is the extension ``MASK`` (astropy's CCDData), else the only image of two
axes. Written is a uint8 image in the primary HDU, 1 = bad, with the ROWORDER of
the map. Some systems have it the other way round (Astro-WISE: 1 = good); the
polarity cannot be seen in the file, so ``--zero-is-bad`` must say it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...defects import DefectMap
from ...errors import FixpixError, UnreadableError
from ...mosaic import Array
from .image import from_image
from .places import Flags, Listed, Sensor, check_shape, untyped

SUFFIX = ".fits"
IMAGE = True


def keeps(flags: Flags) -> Flags:
    """No types."""
    return untyped(flags)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The HDUs of a FITS file; astropy's exceptions become ours."""
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False) as hdus:
                yield hdus
    except (FixpixError, MemoryError):
        raise
    except Exception as error:  # astropy's decompressors and verifiers raise bare Exceptions of their own
        raise UnreadableError(f"{path}: is no readable FITS file ({str(error) or type(error).__name__})") from error


def row_order_of(header: Any) -> str:
    """``TOP-DOWN``, ``BOTTOM-UP`` or empty."""
    order = str(header.get("ROWORDER", "")).strip().upper()
    return order if order in ("TOP-DOWN", "BOTTOM-UP") else ""


def load(path: Path) -> tuple[Array, str]:
    """The mask image and its row order.

    Raises
    ------
    UnreadableError
        No FITS, no image, or several.
    """
    with opened(path) as hdus:
        images = [h for h in hdus if getattr(h, "is_image", False) and h.header.get("NAXIS", 0) >= 2]
        named = [h for h in images if h.name == "MASK"]
        chosen = named or images
        if len(chosen) != 1:
            what = "no image" if not chosen else f"{len(chosen)} images and no single extension MASK"
            raise UnreadableError(f"{path}: holds {what}")
        if len(chosen[0].shape) != 2:
            raise UnreadableError(f"{path}: its image has {len(chosen[0].shape)} axes; a mask has two")
        check_shape(path, chosen[0].shape)
        order = row_order_of(chosen[0].header) or row_order_of(hdus[0].header)
        return np.asarray(chosen[0].data), order


def dump(path: Path, image: Array, sensor: Sensor, meaning: str) -> None:
    """Write an image with its row order and what its values mean."""
    from astropy.io import fits

    hdu = fits.PrimaryHDU(image)
    if sensor.row_order:
        hdu.header["ROWORDER"] = sensor.row_order
    hdu.header["COMMENT"] = meaning
    hdu.writeto(path, overwrite=True)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the mask; returns notes."""
    dump(path, plane.bad.astype(np.uint8), sensor, "bad pixel mask: 0 good, 1 bad")
    return []


def read(path: Path, sensor: Sensor, good: bool = False, limit: bool = True) -> Listed:
    """Read a mask; see `fixpix_cli.maps.foreign.read`."""
    image, order = load(path)
    return from_image(path, image, good=good, limit=limit, row_order=order)
