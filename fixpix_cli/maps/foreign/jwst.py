"""Floor 2. Data-quality arrays as JWST has them: extension ``DQ`` and table ``DQ_DEF``; also fixpix's own masks.

In reference files DQ_DEF gives the bits their names, and they need not be the
standard ones: where there is such a table the names count (jwst, ``dynamicdq``).
Bad is what carries DO_NOT_USE; the standard never implies it by another bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...defects import DQ, DefectMap
from ...errors import UnreadableError
from ...mosaic import Array
from ..fitsmap import write_mask
from .fits_mask import opened, row_order_of
from .places import Flags, Listed, Sensor, check_shape

SUFFIX = ".mask.fits"
PLANES = True
#: The names of bits 0 to 31 (stdatamodels, dqflags.py).
_STANDARD = (
    "DO_NOT_USE", "SATURATED", "JUMP_DET", "DROPOUT", "OUTLIER", "PERSISTENCE", "AD_FLOOR", "CHARGELOSS", "RESERVED",
    "NON_SCIENCE", "DEAD", "HOT", "WARM", "LOW_QE", "RC", "TELEGRAPH", "NONLINEAR", "BAD_REF_PIXEL", "NO_FLAT_FIELD",
    "NO_GAIN_VALUE", "NO_LIN_CORR", "NO_SAT_CHECK", "UNRELIABLE_BIAS", "UNRELIABLE_DARK", "UNRELIABLE_SLOPE",
    "UNRELIABLE_FLAT", "OPEN", "ADJ_OPEN", "FLUX_ESTIMATED", "MSA_FAILED_OPEN", "OTHER_BAD_PIXEL", "REFERENCE_PIXEL",
)  # fmt: skip
NAMES = dict(enumerate(_STANDARD))
_OWN = {flag.name: int(flag) for flag in DQ}


def keeps(flags: Flags) -> Flags:
    """Everything."""
    return flags


def write(path: Path, planes: Sequence[DefectMap], sensor: Sensor) -> list[str]:
    """Write the planes; returns notes."""
    alike = len({plane.shape for plane in planes}) == 1
    keys = range(1, len(planes) + 1)
    write_mask(path, planes, keys=keys, per_key=not alike, row_order=sensor.row_order, overwrite=True)
    return []


def read(path: Path, sensor: Sensor) -> Listed:
    """Read data-quality arrays; see `fixpix_cli.maps.foreign.read`."""
    with opened(path) as hdus:
        names = _names(hdus["DQ_DEF"].data) if "DQ_DEF" in hdus else NAMES
        planes: list[DefectMap] = []
        lost: dict[str, int] = {}
        for hdu in hdus:
            if hdu.name != "DQ":
                continue
            if len(hdu.shape) not in (2, 3):
                raise UnreadableError(f"{path}: its DQ has {len(hdu.shape)} axes")
            check_shape(path, (hdu.shape[-2] * (hdu.shape[0] if len(hdu.shape) == 3 else 1), hdu.shape[-1]))
            data = np.asarray(hdu.data)
            if data.dtype.kind not in "iu":
                raise UnreadableError(f"{path}: its DQ holds {data.dtype} values, not integers")
            planes += [_translated(plane, names, lost) for plane in data.reshape(-1, *data.shape[-2:])]
        if not planes:
            raise UnreadableError(f"{path}: has no extension DQ")
        return Listed(tuple(planes), notes=tuple(_notes(lost)), row_order=row_order_of(hdus[0].header))


def _names(table: Any) -> dict[int, str]:
    """Bit -> name of a DQ_DEF table."""
    names: dict[int, str] = {}
    for row in table:
        value = int(row["VALUE"]) & 0xFFFFFFFF
        if value and value & (value - 1) == 0:
            names[value.bit_length() - 1] = str(row["NAME"]).strip().upper()
    return names


def _translated(data: Array, names: dict[int, str], lost: dict[str, int]) -> DefectMap:
    """The bits by name; what fixpix has no bit for is OTHER_BAD_PIXEL, and what is not to be avoided is good."""
    places = np.flatnonzero(data)
    words = data.reshape(-1)[places].astype(np.int64) & 0xFFFFFFFF
    bits = {name: bit for bit, name in names.items()}
    avoid = (words >> bits["DO_NOT_USE"] & 1 == 1) if "DO_NOT_USE" in bits else np.zeros(len(words), bool)
    flags = np.zeros(len(words), np.int32)
    for bit in range(32):
        there = words >> bit & 1 == 1
        if not there.any():
            continue
        name = names.get(bit, f"bit {bit}")
        flags[there & avoid] |= np.int32(_OWN.get(name, int(DQ.OTHER_BAD_PIXEL)))
        if name not in _OWN and (count := int((there & avoid).sum())):
            lost[f"as {name}"] = lost.get(f"as {name}", 0) + count
        if count := int((there & ~avoid).sum()):
            lost[name] = lost.get(name, 0) + count
    return DefectMap.listed((data.shape[0], data.shape[1]), places, flags)


def _notes(lost: dict[str, int]) -> list[str]:
    other = [f"{count} {name[3:]}" for name, count in lost.items() if name.startswith("as ")]
    usable = [f"{count} {name}" for name, count in lost.items() if not name.startswith("as ")]
    notes = [f"lost: types that fixpix does not know became OTHER_BAD_PIXEL: {', '.join(other)}"] if other else []
    return notes + ([f"lost: flags of pixels without DO_NOT_USE: {', '.join(usable)}"] if usable else [])
