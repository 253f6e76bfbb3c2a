"""Floor 2. Files in and out: one keeper per container, all with the same three functions.

    load(path, assume) -> Frame
    rewrite(frame, edits, temporary)      write a copy of frame.source with the edits in it
    sign(path, provenance) -> bool        say in the file what was done; False where it has no place for that
    extend(path, hdus) -> bool            add FITS extensions; FITS alone has it

A keeper is the only file that imports its foreign library and translates that
library's exceptions. `rewrite` writes a complete new file at `temporary`;
`save` turns it into the target in one step (see `fixpix_cli.safe`). What is
not edited stays as it was, byte for byte, except offsets and checksums that
follow from the edit.

Camera-native raws cannot be rewritten: their keeper writes a fresh DNG.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from .. import safe
from ..errors import FixpixError, FrameError, RefusedError, UnreadableError
from ..mosaic import Assume, Bool, Edit, Frame


@dataclass(frozen=True)
class Provenance:
    """What a repaired file says of itself.

    version : of fixpix; pixels : repaired; method : in one word; map : name of the map file, or empty;
    details : further lines, for containers with room for a history.
    """

    version: str
    pixels: int
    method: str
    map: str = ""
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        source = f", map {self.map}" if self.map else ""
        return f"fixpix {self.version}: {self.pixels} bad pixels repaired, {self.method}{source}"


#: Suffix (lower case) -> keeper module. Compressed FITS is told by its two suffixes.
KEEPERS: dict[str, str] = {
    **dict.fromkeys((".fits", ".fit", ".fts"), "fits"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    ".ser": "ser",
    ".png": "png",
    **dict.fromkeys((".dng", ".gpr"), "dng"),  # GoPro's GPR is a DNG, with a compression to be refused by name
    **dict.fromkeys(
        (
            *(".3fr", ".ari", ".arw", ".bay", ".cap", ".cr2", ".cr3", ".crw", ".dcr", ".dcs", ".drf", ".eip", ".erf"),
            *(".fff", ".iiq", ".k25", ".kdc", ".mdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef"),
            *(".ptx", ".pxn", ".r3d", ".raf", ".raw", ".rw2", ".rwl", ".rwz", ".sr2", ".srf", ".srw", ".x3f"),
        ),
        "raw",
    ),
}
SIDECARS = (".mask.fits", ".truth.fits")


def suffix_of(path: Path) -> str:
    """The suffix that says the format, lower case; ``.fits`` for ``a.fits.gz`` and ``a.fits.fz``."""
    if path.suffix.lower() in (".gz", ".fz"):
        return Path(path.stem).suffix.lower()
    return path.suffix.lower()


def stem_of(path: Path) -> str:
    """STEM of CONTRACT.md: the name without its last extension, and without .gz/.fz before that."""
    name = path.stem if path.suffix.lower() in (".gz", ".fz") else path.name
    return Path(name).stem


def is_supported(path: Path) -> bool:
    """True for files that a directory argument takes in: known suffix, not hidden, not our sidecar.

    Of PNGs only gray ones: the others in a folder of frames are previews and plots.
    """
    name = path.name.lower()
    if name.startswith(".") or name.endswith(SIDECARS) or suffix_of(path) not in KEEPERS:
        return False
    return suffix_of(path) != ".png" or bool(_keeper(path).is_gray(path))


def is_native(path: Path) -> bool:
    """True for camera-native raws, which become a DNG."""
    return KEEPERS.get(suffix_of(path)) == "raw"


def is_plain(path: Path) -> bool:
    """True for files that our own code reads alone: no packing, no foreign decoder."""
    try:
        return path.is_file() and bool(getattr(_keeper(path), "is_plain", lambda _: False)(path))
    except (FixpixError, OSError):
        return False


def output_name(path: Path) -> str:
    """Name of the repaired file: the same, or STEM.dng for camera-native raws."""
    return f"{stem_of(path)}.dng" if is_native(path) else path.name


def _keeper(path: Path) -> ModuleType:
    name = KEEPERS.get(suffix_of(path))
    if name is None:
        raise UnreadableError(
            f"{path}: {path.suffix or 'a file without suffix'} is not a raw sensor image that fixpix reads; "
            "give FITS, TIFF, DNG or a camera raw"
        )
    return importlib.import_module(f".{name}", __name__)


def load(path: str | os.PathLike[str], assume: Assume = Assume()) -> Frame:  # noqa: B008 (frozen value)
    """Read one frame.

    Parameters
    ----------
    path : path
    assume : Assume
        What the user says about CFA, black, white and camera; it wins over the file.

    Returns
    -------
    Frame
        With the full stored samples in DN.

    Raises
    ------
    UnreadableError
        Missing, damaged or not a supported format.
    RefusedError
        A kind of file that fixpix knows and does not handle, with the reason.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file" if not path.exists() else "is not a regular file"
        raise UnreadableError(f"{path}: {what}")
    keeper = _keeper(path)
    try:
        frame: Frame = keeper.load(path, assume)
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read ({safe.reason(error)})") from error
    if not frame.pixels:
        raise UnreadableError(f"{path}: holds no pixels")
    return frame


def save(
    frame: Frame,
    edits: Sequence[Edit],
    target: Path,
    *,
    overwrite: bool = False,
    provenance: Provenance | None = None,
    extension: bytes = b"",
) -> tuple[str, ...]:
    """Write `frame.source` with `edits` (one per plane) to `target`; everything else is copied.

    With `provenance`, and only if pixels changed, the file says so in its own
    place: FITS in HISTORY and FPX cards, TIFF and DNG in the Software tag.
    `extension` are whole FITS HDUs to put at the end of a FITS file that changed.

    Returns
    -------
    tuple of str
        What a user should know: how the file differs beyond its bad pixels, and what it has no place for.

    Raises
    ------
    RefusedError
        The file cannot be rewritten without touching good pixels.
    OutputExistsError, OutputFolderError, FrameError
        See `fixpix_cli.safe.replacing`.
    """
    if len(edits) != len(frame.mosaics):
        raise ValueError(f"{len(edits)} edits for {len(frame.mosaics)} planes")
    native = is_native(frame.source)
    if native and target.suffix.lower() != ".dng":
        raise RefusedError(f"{frame.source}: a camera raw cannot be rewritten; its output is a .dng")
    if not native and not any(map(len, edits)):
        with safe.replacing(target, overwrite=overwrite, like=frame.source) as temporary:
            copy(frame.source, temporary)
        return ()
    keeper = _keeper(frame.source)
    notes: list[str] = []
    with safe.replacing(target, overwrite=overwrite, like=frame.source) as temporary:
        notes += keeper.rewrite(frame, edits, temporary) or ()
        if provenance is not None and any(map(len, edits)) and not keeper.sign(temporary, provenance):
            notes.append("this file has no place for provenance; nothing was added")
        if extension and not hasattr(keeper, "extend"):
            notes.append("only FITS files have a place for a DQ extension; `fixpix detect` writes masks")
        elif extension and not keeper.extend(temporary, extension):
            notes.append("this file has a DQ extension already; none was added")
    return tuple(notes)


def annotate(frame: Frame, bad: Sequence[Bool], target: Path, *, overwrite: bool = False) -> tuple[str, ...]:
    """Write `frame.source` with its bad pixels listed in OpcodeList1 and every pixel as it was.

    A camera raw becomes a fresh DNG, as with `save`.

    Parameters
    ----------
    frame : Frame
        Of a DNG or a camera raw.
    bad : (H, W) bool arrays, one per plane
    target : Path
    overwrite : bool

    Returns
    -------
    tuple of str
        What a user should know, as with `save`.

    Raises
    ------
    RefusedError
        Not a DNG, or one that the opcode is not made for (`fixpix_cli.files.dng.annotate`).
    OutputExistsError, OutputFolderError, FrameError
        See `fixpix_cli.safe.replacing`.
    """
    native = is_native(frame.source)
    if not native and frame.container != "dng":
        raise RefusedError(f"{frame.source}: is no DNG; only a DNG can list its bad pixels")
    dng = importlib.import_module(".dng", __name__)
    notes: tuple[str, ...] = ()
    with safe.replacing(target, overwrite=overwrite, like=frame.source) as temporary:
        if native:
            none = [Edit.between(mosaic.samples, mosaic.samples) for mosaic in frame.mosaics]
            notes = _keeper(frame.source).rewrite(frame, none, temporary) or ()
        if any(map(np.any, bad)):
            dng.annotate(temporary if native else frame.source, frame.mosaics, bad[0], temporary)
        elif not native:
            copy(frame.source, temporary)
    return notes


def copy(source: Path, target: Path) -> None:
    """Copy the bytes of `source` over `target`."""
    try:
        safe.copy(source, target)
    except FileNotFoundError as error:
        raise FrameError(f"{source}: vanished while it was being processed") from error
