"""Floor 2. Masks, truths and camera maps as FITS; with files/fits.py a keeper of astropy.

All three hold an int32 image extension ``DQ`` (JWST bits, RICE-compressed) in
the stored frame's shape and row order, and a ``DQ_DEF`` table. A camera map
adds one ``EVIDENCE`` table per plane and condition bin, a ``FRAMES`` table and a
``PARTS`` table (`parts`). Where several parts have evidence of one bin, ``PART``
and ``GROUPS`` have it apart: who only uses the map need not read them.
All HDUs carry checksums, so that a damaged map is known as such.

Evidence is kept as a table of the suspected pixels rather than as images: it
is exact, a hundred times smaller, and the time to read it follows the number
of defects, not of pixels.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, safe
from ..defects import DESCRIPTIONS, DQ, DefectMap
from ..errors import FrameError, MismatchError, OutputFolderError, StoreError, UnreadableError
from ..evidence import DEFAULT_THRESHOLD, Bin, Evidence, Tally
from ..mosaic import Array, Identity
from . import plainfits, sparse
from .evidencetables import (
    FORMAT,
    VERSIONS,
    ascii_of,
    frames_hdu,
    parts_hdu,
    parts_of,
    read_frames,
    tally_hdus,
    tally_of,
)
from .parts import Part


@dataclass(frozen=True, eq=False)
class MaskFile:
    """The flags in a FITS file.

    Parameters
    ----------
    planes : tuple of DefectMap
        In the order of the frame's planes.
    row_order : str
        ``TOP-DOWN``, ``BOTTOM-UP`` or empty.
    camera : Identity or None
        For camera maps.
    probability : tuple of (H, W) float32 arrays, or empty
    header : dict
        The cards of the primary header that belong to fixpix.
    """

    path: Path
    planes: tuple[DefectMap, ...]
    row_order: str = ""
    camera: Identity | None = None
    header: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CameraMap:
    """A camera's stored defect map: identity, evidence, and the threshold of its DQ view.

    `parts` is the same evidence apart (`read_map` with ``parts=True``), or empty.
    """

    identity: Identity
    evidence: Evidence
    row_order: str = ""
    threshold: float = DEFAULT_THRESHOLD
    detector: str = "rules"
    keys: tuple[int, ...] = (0,)
    parts: tuple[Part, ...] = ()

    @property
    def apart(self) -> tuple[Part, ...]:
        """The evidence in parts; that of a map without any is one."""
        whole = self.evidence.frames or self.evidence.tallies
        return self.parts or ((Part("", "", self.evidence),) if whole else ())

    def view(self, plane: int) -> DefectMap:
        """DQ at the map's own threshold."""
        return self.evidence.view(plane, self.threshold) or DefectMap.empty(self.identity.shape)

    @property
    def defects(self) -> int:
        return sum(len(self.view(plane)) for plane in range(self.identity.planes))


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """astropy's exceptions and warnings become one error of ours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=".*verification failed")  # of a checksum
            yield
    except FileNotFoundError as error:
        raise UnreadableError(f"{path}: no such file") from error
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError) as error:
        # What is not said of a file or of a value is about astropy's own insides.
        told = str(error) if isinstance(error, OSError | ValueError | EOFError) else ""
        raise UnreadableError(f"{path}: not a readable map or mask ({told or 'damaged or cut short'})") from error
    except UserWarning as error:
        raise UnreadableError(f"{path}: is damaged ({str(error).strip().rstrip('.').lower()})") from error


def _dq_hdu(planes: Sequence[DefectMap], extver: int) -> Any:
    from astropy.io import fits

    data = planes[0].dq if len(planes) == 1 else _stacked(planes)
    width = data.shape[-1]
    rows = min(data.shape[-2], max(1, plainfits.TILE_PIXELS // max(1, width)))
    tile = (rows, width) if data.ndim == 2 else (1, rows, width)
    hdu = fits.CompImageHDU(data, name="DQ", compression_type="RICE_1", tile_shape=tile)
    hdu.header["EXTVER"] = extver
    hdu.header["BUNIT"] = ("", "JWST data-quality bits, see DQ_DEF")
    return hdu


def _stacked(planes: Sequence[DefectMap]) -> Array:
    """(N, H, W) int32 in a file without a name: of a long series only the pages in use lie in memory."""
    with tempfile.TemporaryFile() as scratch:
        stack = np.memmap(scratch, np.int32, "w+", shape=(len(planes), *planes[0].shape))
    for number, plane in enumerate(planes):
        if plane.dq.any():  # what is not written stays a hole of zeros
            stack[number] = plane.dq
    return stack


def _definition_hdu() -> Any:
    from astropy.io import fits

    flags = list(DESCRIPTIONS)
    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column("BIT", "J", array=[int(f).bit_length() - 1 for f in flags]),
            fits.Column("VALUE", "J", array=[int(f) for f in flags]),
            fits.Column("NAME", "24A", array=[f.name for f in flags]),
            fits.Column("DESCRIPTION", "64A", array=[DESCRIPTIONS[f] for f in flags]),
        ]
    )
    hdu.header["EXTNAME"] = "DQ_DEF"
    return hdu


def _groups(planes: Sequence[DefectMap], keys: Sequence[int], per_key: bool) -> list[tuple[Sequence[DefectMap], int]]:
    """The planes of each DQ extension, and its EXTVER."""
    if per_key and len(set(keys)) > 1:
        return [
            ([plane for plane, own in zip(planes, keys, strict=True) if own == key], key) for key in dict.fromkeys(keys)
        ]
    return [(planes, 1)]


def _dq_hdus(planes: Sequence[DefectMap], keys: Sequence[int], per_key: bool) -> list[Any]:
    """The DQ extensions and DQ_DEF."""
    from astropy.io import fits

    groups = _groups(planes, keys, per_key)
    if (plain := plainfits.mask(groups, ())) is not None:
        return list(fits.HDUList.fromstring(b"".join(plain), disable_image_compression=True)[1:])
    return [*(_dq_hdu(group, key) for group, key in groups), _definition_hdu()]


def dq_extensions(planes: Sequence[DefectMap], *, keys: Sequence[int], per_key: bool) -> bytes:
    """The ``DQ`` and ``DQ_DEF`` extensions of a FITS frame as bytes, to be put behind its images; see `write_mask`."""
    plain = plainfits.mask(_groups(planes, keys, per_key), ())
    if plain is not None:
        return plain[1]
    from astropy.io import fits

    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *_dq_hdus(planes, keys, per_key)]).writeto(stream)
    return stream.getvalue()[plainfits.BLOCK :]  # an empty primary HDU takes one block


def write_mask(
    path: Path,
    planes: Sequence[DefectMap],
    *,
    keys: Sequence[int] = (0,),
    per_key: bool = False,
    row_order: str = "",
    cards: Sequence[tuple[str, Any, str]] = (),
    probability: Sequence[Array] = (),
    overwrite: bool = False,
) -> None:
    """Write a mask or a truth.

    Parameters
    ----------
    planes : sequence of DefectMap
    keys : sequence of int
        The frame's plane keys; with `per_key` (FITS) each plane gets an
        extension with EXTVER = key, else the planes are the first axis of one.
    cards : sequence of (keyword, value, comment)
        For the primary header.
    probability : sequence of (H, W) float32 arrays
        Written as extension PROB if given.
    """
    facts = [("CREATOR", f"fixpix {__version__}", ""), *[("ROWORDER", row_order, "")] * bool(row_order), *cards]
    plain = plainfits.mask(_groups(planes, keys, per_key), facts) if not probability else None
    if plain is not None:
        with safe.replacing(path, overwrite=overwrite) as temporary:
            temporary.write_bytes(b"".join(plain))
        return
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    for keyword, value, comment in facts:
        primary.header[keyword] = (value, comment)
    hdus = [primary, *_dq_hdus(planes, keys, per_key)]
    for number, values in enumerate(probability):
        hdu = fits.CompImageHDU(values, name="PROB", compression_type="GZIP_2")
        hdu.header["EXTVER"] = keys[number] if per_key and 1 < len(planes) == len(set(keys)) else number + 1
        hdus.append(hdu)
    with safe.replacing(path, overwrite=overwrite) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True)


def read_mask(path: Path) -> MaskFile:
    """Read the DQ of a mask, a truth or a camera map.

    Raises
    ------
    UnreadableError
        Not FITS, damaged, or without a DQ extension.
    """
    try:
        return _read_mask(path)
    except UnreadableError as error:
        raise UnreadableError(f"{error}{_way_back(path, error)}") from error


def _read_mask(path: Path) -> MaskFile:
    with _translated(path):
        listed = sparse.read(path)
    if listed is not None and listed[1] and "FPXMAP" not in listed[0]:
        return _mask_of(path, *listed)
    from astropy.io import fits

    with _translated(path), fits.open(path, memmap=False, checksum=True) as hdus:
        planes: list[DefectMap] = []
        for hdu in hdus:
            if hdu.name != "DQ":
                continue
            data = _pixels(hdu)
            if data.dtype.kind not in "iu" or data.ndim not in (2, 3):
                raise ValueError("its DQ extension is not an integer image")
            stack = data[None] if data.ndim == 2 else data
            planes += [DefectMap(plane.astype(np.int32, copy=False)) for plane in stack]
        if not planes:
            raise UnreadableError(f"{path}: has no DQ extension; give a fixpix map, mask or truth")
        return _mask_of(path, hdus[0].header, planes)


def _pixels(hdu: Any) -> Array:
    """The data of an image; what its codec raises becomes a ValueError."""
    try:
        return np.asarray(hdu.data)
    except (MemoryError, AttributeError, TypeError, KeyError, IndexError):
        raise  # the last four are what astropy does with an extension that it cannot make out: see `_translated`
    except Exception as error:  # the codecs raise classes of their own, which astropy does not publish
        raise ValueError(str(error)) from error


def _mask_of(path: Path, header: Any, planes: Sequence[DefectMap]) -> MaskFile:
    camera = _identity(header) if "FPXMAP" in header else None
    cards = {k: header[k] for k in header if k.startswith("FPX")}
    return MaskFile(path, tuple(planes), str(header.get("ROWORDER", "")).strip().upper(), camera, cards)


def for_frame(
    mask: MaskFile, shapes: Sequence[tuple[int, int]], row_order: str, moments: int = 1
) -> tuple[list[DefectMap], list[str]]:
    """The mask's planes as they fit a frame, and warnings.

    Parameters
    ----------
    shapes : of the frame's planes
    moments : int
        How many times a series holds these planes. A mask of one moment's planes, such as a camera map, is
        repeated for all of them.

    Raises
    ------
    MismatchError
        Another shape or number of planes.
    """
    have = [plane.shape for plane in mask.planes]
    if moments > 1 and have == list(shapes):
        mask = replace(mask, planes=mask.planes * moments)
        have = have * moments
    if have != list(shapes) * moments:
        want, got = (" + ".join(f"{h} x {w}" for h, w in group) for group in (shapes, have))
        raise MismatchError(f"{mask.path}: is {got} pixels, the frame {want}; use a map made from this camera's frames")
    if row_order and mask.row_order and row_order != mask.row_order:
        flipped = [plane.upside_down() for plane in mask.planes]
        return flipped, [f"{mask.path}: row order {mask.row_order} flipped to {row_order}"]
    return list(mask.planes), []


_IDENTITY = (
    ("FPXMAKE", "make", "camera make"),
    ("FPXMODEL", "model", "camera model"),
    ("FPXSER", "serial", "serial number"),
    ("FPXCFA", "cfa", "colour filter array"),
    ("FPXREAD", "readout", "read-out mode"),
)


def _identity(header: Any) -> Identity:
    text = {name: str(header.get(key, "")) for key, name, _ in _IDENTITY}
    return Identity(
        **text,
        shape=(int(header["FPXROWS"]), int(header["FPXCOLS"])),
        binning=(int(header.get("FPXBINY", 1)), int(header.get("FPXBINX", 1))),
        planes=int(header.get("FPXPLANE", 1)),
    )


def read_identity(path: Path) -> Identity:
    """Whose map a file is, without its evidence.

    Raises
    ------
    UnreadableError
        It is no camera map.
    """
    from astropy.io import fits

    with _translated(path), fits.open(path, memmap=False) as hdus:
        if "FPXMAP" not in hdus[0].header:
            raise UnreadableError(f"{path}: is not a fixpix camera map")
        return _identity(hdus[0].header)


def write_map(path: Path, camera: CameraMap) -> None:
    """Write a camera map, replacing the file in one step; the caller holds the lock."""
    from astropy.io import fits

    primary, identity = fits.PrimaryHDU(), camera.identity
    header = primary.header
    header["CREATOR"] = f"fixpix {__version__}"
    header["FPXMAP"] = (FORMAT, "version of the fixpix map format")
    for key, name, comment in _IDENTITY:
        header[key] = (ascii_of(getattr(identity, name)), comment)
    header["FPXROWS"], header["FPXCOLS"] = identity.shape
    header["FPXBINY"], header["FPXBINX"] = identity.binning
    header["FPXPLANE"] = (identity.planes, "image planes per frame")
    header["FPXTHR"] = (camera.threshold, "mean probability that sets DO_NOT_USE in DQ")
    header["FPXDET"] = (camera.detector, "detector whose probabilities were summed")
    header["FPXN"] = (len(camera.evidence.frames), "frames counted")
    header["FPXPARTS"] = (len(camera.parts), "parts of the evidence, see PARTS")
    if camera.row_order:
        header["ROWORDER"] = camera.row_order
    planes = [camera.view(plane) for plane in range(identity.planes)]
    hdus: list[Any] = [primary, *_dq_hdus(planes, camera.keys, len(set(camera.keys)) > 1)]
    hdus += tally_hdus(camera.evidence, camera.parts)
    hdus.append(frames_hdu(camera.evidence, camera.parts))
    if camera.parts:
        hdus.append(parts_hdu(camera.parts))
    path = Path(os.path.realpath(path))
    try:
        _part_company(path)
        with safe.replacing(path, overwrite=True) as temporary:
            fits.HDUList(hdus).writeto(temporary, overwrite=True, checksum=True)
            _keep_previous(path)
    except (OSError, FrameError, OutputFolderError) as error:
        why = safe.reason(error) if isinstance(error, OSError) else str(error)
        raise StoreError(f"{path}: the map could not be written, it is as it was ({why})") from error


def previous_of(path: Path) -> Path:
    """Where the version of a map before the last change is kept."""
    path = Path(os.path.realpath(path))
    return path.with_name(f".{path.name}.bak")


def _way_back(path: Path, error: UnreadableError) -> str:
    """What to do about a map that cannot be read, where its previous version is there."""
    if not path.exists() or not previous_of(path).exists() or "update fixpix" in str(error):
        return ""
    return f"; the version before its last change is kept: fixpix maps recover {path}"


def _part_company(path: Path) -> None:
    """End the hard link that a run left which was killed between keeping the old version and writing the new."""
    previous = previous_of(path)
    if path.exists() and previous.exists() and os.path.samefile(path, previous):
        previous.unlink()


def _keep_previous(path: Path) -> None:
    """Keep the map that is about to be replaced; it has its name until the new one takes it."""
    if not path.exists():
        return
    previous = previous_of(path)
    previous.unlink(missing_ok=True)
    try:
        os.link(path, previous)
    except OSError:  # a filesystem without hard links
        shutil.copyfile(path, previous)


def read_map(path: Path, parts: bool = False) -> CameraMap:
    """Read a camera map with its evidence, on request also in its parts (to change it or to see its course).

    Raises
    ------
    StoreError
        Damaged, of a newer format, or no camera map at all.
    """
    from astropy.io import fits

    try:
        with _translated(path), fits.open(path, memmap=False, checksum=True) as hdus:
            header = hdus[0].header
            if "FPXMAP" not in header:
                raise UnreadableError(f"{path}: is not a fixpix camera map")
            version = int(header["FPXMAP"])
            if version not in VERSIONS:
                raise UnreadableError(
                    f"{path}: has map format {version}, this fixpix reads 1 to {FORMAT}; update fixpix"
                )
            identity = _identity(header)
            tallies: dict[tuple[int, Bin], Tally] = {}
            for hdu in hdus:
                if hdu.name == "EVIDENCE":
                    key, tally = tally_of(hdu, version, identity.shape)
                    tallies[key] = tally
            frames = {counted.digest: counted for counted in read_frames(hdus["FRAMES"].data)}
            keys = tuple(int(hdu.header.get("EXTVER", 1)) for hdu in hdus if hdu.name == "DQ")
            evidence = Evidence(tallies, frames)
            return CameraMap(
                identity,
                evidence,
                str(header.get("ROWORDER", "")),
                float(header.get("FPXTHR", DEFAULT_THRESHOLD)),
                str(header.get("FPXDET", "")),
                keys if len(keys) == identity.planes else tuple(range(identity.planes)),
                parts_of(hdus, version, evidence, identity.shape) if parts and header.get("FPXPARTS") else (),
            )
    except UnreadableError as error:
        raise StoreError(f"{error}{_way_back(path, error)}") from error


__all__ = [
    "DQ",
    "CameraMap",
    "MaskFile",
    "dq_extensions",
    "for_frame",
    "read_map",
    "read_mask",
    "write_map",
    "write_mask",
]
