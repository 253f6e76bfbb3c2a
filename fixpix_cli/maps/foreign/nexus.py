"""Floor 2. The ``pixel_mask`` of NeXus detectors (HDF5); the keeper of h5py.

uint32 bits (NXdetector): 0 gap, 1 dead, 2 under-responding, 3 over-responding, 4
noisy, 6 part of a cluster, 8 user-defined, 31 virtual pixel. A pixel is bad if
any of the lower 16 bits is set. The first stored row comes first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...defects import DQ, DefectMap
from ...errors import UnreadableError, UnusableError
from .places import Flags, Listed, Sensor, as_kept, check_shape

SUFFIX = ".nxs"
MAGIC = b"\x89HDF\r\n\x1a\n"
#: DQ type -> bit; what has none is user-defined (8).
BITS = {DQ.DEAD: 1, DQ.LOW_QE: 2, DQ.HOT: 3, DQ.TELEGRAPH: 4}
_GAP, _CLUSTER, _USER = 0, 6, 8
_BAD = 0xFFFF


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UnusableError("NeXus files need h5py; install it with: pip install 'fixpix[hdf5]'") from error
    return h5py


def keeps(flags: Flags) -> Flags:
    """DEAD, LOW_QE, HOT and TELEGRAPH; WARM and SATURATED become HOT."""
    known = int(sum(BITS))
    bright = np.where((flags & int(DQ.WARM | DQ.SATURATED)) != 0, int(DQ.HOT), 0)
    return np.where(flags != 0, (flags & known) | bright | int(DQ.DO_NOT_USE), 0).astype(np.int32)


def write(path: Path, plane: DefectMap, sensor: Sensor) -> list[str]:
    """Write the mask; returns notes."""
    h5py = _h5py()
    kept = as_kept(plane, keeps).dq
    places = np.flatnonzero(kept)
    flags = kept.reshape(-1)[places]
    words = np.where(flags == int(DQ.DO_NOT_USE), np.uint32(1 << _USER), np.uint32(0))
    for flag, bit in BITS.items():
        words |= np.where((flags & int(flag)) != 0, np.uint32(1 << bit), np.uint32(0))
    mask = np.zeros(kept.shape, np.uint32)
    mask.reshape(-1)[places] = words
    with h5py.File(path, "w") as file:
        group = file
        for name, kind in (("entry", "NXentry"), ("instrument", "NXinstrument"), ("detector", "NXdetector")):
            group = group.create_group(name)
            group.attrs["NX_class"] = kind
        file.attrs["default"] = "entry"
        if sensor.model:
            group["description"] = sensor.model
        if sensor.serial:
            group["serial_number"] = sensor.serial
        group.create_dataset("pixel_mask", data=mask, compression="gzip", chunks=True)
        group["pixel_mask_applied"] = False
    return []


def read(path: Path, sensor: Sensor) -> Listed:
    """Read a mask; see `fixpix_cli.maps.foreign.read`."""
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            found: list[Any] = []

            def visit(name: str, item: Any) -> None:
                if name.rsplit("/", 1)[-1] == "pixel_mask" and isinstance(item, h5py.Dataset):
                    found.append(item)

            file.visititems(visit)
            if len(found) != 1:
                names = ", ".join(item.name for item in found[:4]) or "none"
                raise UnreadableError(f"{path}: must hold one pixel_mask, has {names}")
            if len(found[0].shape) != 2 or found[0].dtype.kind not in "iu":
                raise UnreadableError(f"{path}: its pixel_mask is {found[0].dtype} of shape {found[0].shape}")
            check_shape(path, found[0].shape)
            mask = np.asarray(found[0][()])
    except UnreadableError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"{path}: is no readable HDF5 file ({str(error) or type(error).__name__})") from error
    places = np.flatnonzero(mask)
    words = mask.reshape(-1)[places].astype(np.int64) & 0xFFFFFFFF
    bad = (words & _BAD) != 0
    flags = np.where(bad, int(DQ.DO_NOT_USE), 0)
    for flag, bit in (*BITS.items(), (DQ.OTHER_BAD_PIXEL, _GAP)):
        flags |= np.where(bad & (words >> bit & 1 == 1), int(flag), 0)
    plane = DefectMap.listed((mask.shape[0], mask.shape[1]), places, flags)
    return Listed((plane,), notes=tuple(_notes(words, bad)))


def _notes(mask: Any, bad: Any) -> list[str]:
    words = {
        "gaps became OTHER_BAD_PIXEL": (mask >> _GAP & 1) == 1,
        "cluster marks (bit 6)": (mask >> _CLUSTER & 1) == 1,
        "pixels with no other bits than 16 to 31, which count as good": (mask != 0) & ~bad,
    }
    return [f"lost: {int(where.sum())} {what}" for what, where in words.items() if where.any()]
