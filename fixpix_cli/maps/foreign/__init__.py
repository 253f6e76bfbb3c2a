"""Floor 2. Defect maps of other programs: one module per format, all with the same functions.

    keeps(flags) -> flags               what remains of DQ flags after a way through the format
    write(path, plane, sensor) -> notes (with PLANES = True: all planes)
    read(path, sensor) -> Listed        (with IMAGE = True also: good, limit)
    SUFFIX                              of the files that are written

`read` tells the format by content and name where it is not given. A module says
nothing of what `keeps` alone tells; `losses` counts that.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from ...defects import DQ, TYPES, DefectMap
from ...errors import UnreadableError, UsageError
from .places import Listed, Problem, Sensor

#: Name on the command line -> (module, what it is).
FORMATS: dict[str, tuple[str, str]] = {
    "dcraw": ("dcraw", ".badpixels of dcraw, LibRaw and rawpy"),
    "rawtherapee": ("rawtherapee", ".badpixels of RawTherapee"),
    "rawpy": ("rawpy_list", "list of (row, column) of rawpy.enhance, .npy"),
    "siril": ("siril", "Siril's .lst"),
    "pixinsight": ("pixinsight", "PixInsight's defect list"),
    "pixinsight-map": ("pixinsight_map", "PixInsight's defect map image, 0 = bad"),
    "phd2": ("phd2", "PHD2's defect map"),
    "fits": ("fits_mask", "FITS image, 0 = good"),
    "jwst": ("jwst", "FITS DQ and DQ_DEF, as JWST and fixpix itself have them"),
    "lsst": ("lsst", "LSST defects as ECSV"),
    "lsst-fits": ("lsst_fits", "LSST defects as FITS tables"),
    "edf": ("edf", "pyFAI and fabio mask, EDF"),
    "fit2d": ("fit2d", "pyFAI and Fit2D mask, .msk"),
    "npy": ("npy", "pyFAI mask, NumPy"),
    "matlab": ("matlab", "matrix in a MATLAB file of version 5"),
    "nexus": ("nexus", "NeXus pixel_mask, HDF5 (needs fixpix[hdf5])"),
    "xml": ("perkinelmer", "BadPixelMap XML of X-ray flat panels"),
    "csv": ("table", "table with named columns"),
    "png": ("png", "gray PNG, 0 = good"),
    "tiff": ("tiff", "gray TIFF, 0 = good"),
}
_HEAD = 65536
__all__ = ["FORMATS", "Listed", "Losses", "Problem", "Sensor", "keeper", "losses", "read", "sniff", "write"]


def keeper(name: str) -> ModuleType:
    """The module of a format.

    Raises
    ------
    UsageError
        No such format.
    """
    if name not in FORMATS:
        raise UsageError(f"{name}: no such format; there are {', '.join(FORMATS)}")
    return importlib.import_module(f".{FORMATS[name][0]}", __name__)


def sniff(path: Path) -> str:
    """The format of a file, by its content and, where that could be several, its name.

    Raises
    ------
    UnreadableError
        Missing, or nothing that fixpix knows.
    UsageError
        It may be one of several; the message names them.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    for name in ("npy", "nexus", "png", "fit2d", "matlab"):
        if head.startswith(keeper(name).MAGIC):
            return _array(path) if name == "npy" else name
    if head.startswith(keeper("tiff").MAGIC):
        return "tiff"
    if head.startswith(b"SIMPLE  =") or (head.startswith(b"\x1f\x8b") and ".fit" in path.name.lower()):
        return _fits(path)
    if head.lstrip().startswith(b"{") and b"Dim_1" in head:
        return "edf"
    if b"<BadPixelMap" in head:
        return "xml"
    return _text(path, head)


def _array(path: Path) -> str:
    from . import npy, rawpy_list

    array = npy.load(path)
    return "rawpy" if rawpy_list.is_list(array.shape, array.dtype.kind) else "npy"


def _fits(path: Path) -> str:
    from . import fits_mask, lsst_fits

    with fits_mask.opened(path) as hdus:
        if any(hdu.name == "DQ" for hdu in hdus):
            return "jwst"
        tables = [h.columns.names for h in hdus if getattr(h, "columns", None) is not None]
        return "lsst-fits" if any(map(lsst_fits.is_defects, tables)) else "fits"


def _text(path: Path, head: bytes) -> str:
    from . import lsst, phd2, table

    try:
        text = head.decode("utf-8-sig", "strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UnreadableError(f"{path}: is no map that fixpix knows; see --help for the formats")
    if text.startswith(lsst.HEAD):
        return "lsst"
    if text.startswith(phd2.HEAD):
        return "phd2"
    said = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not said:
        raise UsageError(f"{path}: its content does not tell its format; give --format")
    if table.is_head(said[0]):
        return "csv"
    suffix = path.suffix.lower()
    shapes = {
        "siril": r"[PLC] +\d+( +\d+)?( +[HC])?",
        "pixinsight": r"(?i:col|row) +\d+( +\d+ +\d+)?",
        "dcraw": r"\d+\s+\d+\s+\d+\s*(#.*)?",
        "lsst": r"\d+\s+\d+\s+\d+\s+\d+",
        "pairs": r"[+-]?\d+(\s+\d+)?",
    }
    counts = {name: sum(bool(re.fullmatch(shape, line)) for line in said[:1000]) for name, shape in shapes.items()}
    best = max(counts, key=lambda name: counts[name])
    if suffix == ".lst":
        return "siril"
    if suffix == ".badpixels":
        return "rawtherapee" if best == "pairs" else "dcraw"
    if not counts[best]:
        raise UnreadableError(f"{path}: is no map that fixpix knows; see --help for the formats")
    if best == "pairs":
        raise UsageError(f"{path}: pairs of numbers may be of rawtherapee or phd2; give --format")
    return best


def read(path: Path, sensor: Sensor, name: str = "", *, zero_is_bad: bool | None = None) -> tuple[Listed, str]:
    """Read a foreign map.

    Parameters
    ----------
    sensor : Sensor
        What the file may not say.
    name : str
        The format; empty: by content and name.
    zero_is_bad : bool or None
        Polarity of mask images. None: as the format has it, and refused if more than half of the pixels are bad.

    Returns
    -------
    Listed
    str
        The format.

    Raises
    ------
    UnreadableError, RefusedError
        Damaged, or not what its name says.
    UsageError
        The shape or the format must be said.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "no such file"
        raise UnreadableError(f"{path}: {what}")
    name = name or sniff(path)
    module = keeper(name)
    if not getattr(module, "IMAGE", False):
        if zero_is_bad is not None:
            raise UsageError(f"--zero-is-bad and --zero-is-good are for mask images, not for {name}")
        return module.read(path, sensor), name
    return module.read(path, sensor, good=bool(zero_is_bad), limit=zero_is_bad is None), name


def write(path: Path, planes: Sequence[DefectMap], sensor: Sensor, name: str) -> list[str]:
    """Write planes in a format; the caller makes it atomic.

    Returns
    -------
    list of str
        Notes: what was assumed, what was lost beyond `losses`.

    Raises
    ------
    UsageError
        The format holds one plane.
    """
    module = keeper(name)
    if getattr(module, "PLANES", False):
        notes: list[str] = module.write(path, planes, sensor)
        return notes
    if len(planes) != 1:
        raise UsageError(f"{name} holds one plane, the map has {len(planes)}; choose one with --plane N")
    notes = module.write(path, planes[0], sensor)
    return notes


@dataclass(frozen=True)
class Losses:
    """How many bad pixels change their flags in a format: types by name."""

    types: dict[str, int]

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.types.items())


def losses(planes: Sequence[DefectMap], name: str) -> Losses:
    """Which types a format cannot hold, with the number of pixels that lose them."""
    module = keeper(name)
    types: dict[str, int] = {}
    for plane in planes:
        flags = plane.at(plane.bad_pixels)
        kept = module.keeps(flags)
        for flag in TYPES:
            if count := int(np.count_nonzero((flags & int(flag)) & ~kept)):
                types[DQ(flag).name or ""] = types.get(DQ(flag).name or "", 0) + count
    return Losses(types)
