"""Floor 2. Masks, truths and camera maps as FITS; with files/fits.py a keeper of astropy.

All three hold an int32 image extension ``DQ`` (JWST bits, RICE-compressed) in
the stored frame's shape and row order, and a ``DQ_DEF`` table. A camera map
adds one ``EVIDENCE`` table per plane and condition bin and a ``FRAMES`` table.

Evidence is kept as a table of the suspected pixels rather than as images: it
is exact, a hundred times smaller, and the time to read it follows the number
of defects, not of pixels.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, safe
from ..defects import DESCRIPTIONS, DQ, DefectMap
from ..errors import MismatchError, StoreError, UnreadableError
from ..evidence import DEFAULT_THRESHOLD, Bin, Counted, Evidence, Tally
from ..mosaic import Array, Conditions, Identity
from ..suspects import FIELDS, FIELDS_1, FIELDS_2, zeros
from . import sparse

#: 3: levels in DN (MEASURED to FULL, PICTURES). 2: none of them; such entries are typed by their excess alone, and
#: MEASURED counts the frames since. 1: no log-odds either (SUPPORT, SUPPORTED, RATES); those maps go by the mean
#: probability until frames with log-odds come in, for which the older frames then count as silent. A map that is
#: written becomes 3.
FORMAT = 3
_FIELDS = {1: FIELDS_1, 2: FIELDS_2, 3: FIELDS}
_TILE_PIXELS = 3_000_000
_BLOCK = 2880


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
    """A camera's stored defect map: identity, evidence, and the threshold of its DQ view."""

    identity: Identity
    evidence: Evidence
    row_order: str = ""
    threshold: float = DEFAULT_THRESHOLD
    detector: str = "rules"
    keys: tuple[int, ...] = (0,)

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
            yield
    except FileNotFoundError as error:
        raise UnreadableError(f"{path}: no such file") from error
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError) as error:
        raise UnreadableError(f"{path}: not a readable map or mask ({str(error) or type(error).__name__})") from error


def _dq_hdu(planes: Sequence[DefectMap], extver: int) -> Any:
    from astropy.io import fits

    data = planes[0].dq if len(planes) == 1 else _stacked(planes)
    width = data.shape[-1]
    rows = min(data.shape[-2], max(1, _TILE_PIXELS // max(1, width)))
    tile = (rows, width) if data.ndim == 2 else (1, rows, width)
    hdu = fits.CompImageHDU(data, name="DQ", compression_type="RICE_1", tile_shape=tile)
    hdu.header["EXTVER"] = extver
    hdu.header["BUNIT"] = ("", "JWST data-quality bits, see DQ_DEF")
    return hdu


def _stacked(planes: Sequence[DefectMap]) -> Array:
    """(N, H, W) int32 in a file without a name: of a long series only the pages in use lie in memory."""
    with tempfile.TemporaryFile() as scratch:
        stack = np.memmap(scratch, np.int32, "w+", shape=(len(planes), *planes[0].dq.shape))
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


def _dq_hdus(planes: Sequence[DefectMap], keys: Sequence[int], per_key: bool) -> list[Any]:
    if per_key and len(set(keys)) > 1:
        groups = {key: [plane for plane, own in zip(planes, keys, strict=True) if own == key] for key in keys}
        return [_dq_hdu(group, key) for key, group in groups.items()]
    return [_dq_hdu(planes, 1)]


def dq_extensions(planes: Sequence[DefectMap], *, keys: Sequence[int], per_key: bool) -> bytes:
    """The ``DQ`` and ``DQ_DEF`` extensions of a FITS frame as bytes, to be put behind its images; see `write_mask`."""
    from astropy.io import fits

    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *_dq_hdus(planes, keys, per_key), _definition_hdu()]).writeto(stream)
    return stream.getvalue()[_BLOCK:]  # an empty primary HDU takes one block


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
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    primary.header["CREATOR"] = f"fixpix {__version__}"
    if row_order:
        primary.header["ROWORDER"] = row_order
    for keyword, value, comment in cards:
        primary.header[keyword] = (value, comment)
    hdus = [primary, *_dq_hdus(planes, keys, per_key), _definition_hdu()]
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
    with _translated(path):
        listed = sparse.read(path)
    if listed is not None and listed[1]:
        return _mask_of(path, *listed)
    from astropy.io import fits

    with _translated(path), fits.open(path, memmap=False) as hdus:
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
    except MemoryError:
        raise
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
        flipped = [DefectMap(plane.dq[::-1]) for plane in mask.planes]
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


def write_map(path: Path, camera: CameraMap) -> None:
    """Write a camera map, replacing the file in one step; the caller holds the lock."""
    from astropy.io import fits

    primary, identity = fits.PrimaryHDU(), camera.identity
    header = primary.header
    header["CREATOR"] = f"fixpix {__version__}"
    header["FPXMAP"] = (FORMAT, "version of the fixpix map format")
    for key, name, comment in _IDENTITY:
        header[key] = (_ascii(getattr(identity, name)), comment)
    header["FPXROWS"], header["FPXCOLS"] = identity.shape
    header["FPXBINY"], header["FPXBINX"] = identity.binning
    header["FPXPLANE"] = (identity.planes, "image planes per frame")
    header["FPXTHR"] = (camera.threshold, "mean probability that sets DO_NOT_USE in DQ")
    header["FPXDET"] = (camera.detector, "detector whose probabilities were summed")
    header["FPXN"] = (len(camera.evidence.frames), "frames counted")
    if camera.row_order:
        header["ROWORDER"] = camera.row_order
    planes = [camera.view(plane) for plane in range(identity.planes)]
    hdus: list[Any] = [primary, *_dq_hdus(planes, camera.keys, len(set(camera.keys)) > 1), _definition_hdu()]
    for number, ((plane, bin_), tally) in enumerate(camera.evidence.tallies.items(), 1):
        columns = [fits.Column(name.upper(), "K", array=tally.entries[name]) for name in FIELDS]
        hdu = fits.BinTableHDU.from_columns(columns)
        hdu.header["EXTNAME"], hdu.header["EXTVER"] = "EVIDENCE", number
        hdu.header["PLANE"], hdu.header["NFRAMES"], hdu.header["RATES"] = plane, tally.frames, tally.rates
        hdu.header["PICTURES"] = tally.pictures
        for key, value in _bin_cards(bin_).items():
            hdu.header[key] = value
        hdus.append(hdu)
    hdus.append(_frames_hdu(camera.evidence))
    try:
        with safe.replacing(path, overwrite=True) as temporary:
            fits.HDUList(hdus).writeto(temporary, overwrite=True)
    except OSError as error:
        raise StoreError(f"{path}: the map could not be written ({safe.reason(error)})") from error


def _bin_cards(bin_: Bin) -> dict[str, Any]:
    cards = {"BINKIND": bin_.kind, "BINEXP": bin_.exposure, "BINGAIN": bin_.gain, "BINTEMP": bin_.temperature}
    return {key: value for key, value in cards.items() if value not in (None, "")}


def _bin_of(header: Any) -> Bin:
    return Bin(str(header.get("BINKIND", "")), header.get("BINEXP"), header.get("BINGAIN"), header.get("BINTEMP"))


def _frames_hdu(evidence: Evidence) -> Any:
    from astropy.io import fits

    frames = list(evidence.frames.values())

    def numbers(name: str) -> list[float]:
        return [np.nan if (v := getattr(f.conditions, name)) is None else v for f in frames]

    def text(name: str, width: int) -> Any:
        values = [_ascii(getattr(f.conditions, name) or "") for f in frames]
        return fits.Column(name.upper(), f"{width}A", array=np.array(values, f"U{width}"))

    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column("DIGEST", "64A", array=np.array([f.digest for f in frames], "U64")),
            fits.Column("NAME", "128A", array=np.array([_ascii(f.name)[:128] for f in frames], "U128")),
            text("kind", 8),
            fits.Column("EXPOSURE", "D", unit="s", array=numbers("exposure")),
            fits.Column("GAIN", "D", array=numbers("gain")),
            fits.Column("TEMPERATURE", "D", unit="deg_C", array=numbers("temperature")),
            text("time", 40),
        ]
    )
    hdu.header["EXTNAME"] = "FRAMES"
    return hdu


def read_map(path: Path) -> CameraMap:
    """Read a camera map with its evidence.

    Raises
    ------
    StoreError
        Damaged, of a newer format, or no camera map at all.
    """
    from astropy.io import fits

    try:
        with _translated(path), fits.open(path, memmap=False) as hdus:
            header = hdus[0].header
            if "FPXMAP" not in header:
                raise UnreadableError(f"{path}: is not a fixpix camera map")
            version = int(header["FPXMAP"])
            if version not in _FIELDS:
                raise UnreadableError(
                    f"{path}: has map format {version}, this fixpix reads 1 to {FORMAT}; update fixpix"
                )
            identity = _identity(header)
            tallies: dict[tuple[int, Bin], Tally] = {}
            for hdu in hdus:
                if hdu.name == "EVIDENCE":
                    table = hdu.data
                    entries = zeros(len(table))
                    for name in _FIELDS[version]:
                        entries[name] = table[name.upper()]
                    size = identity.shape[0] * identity.shape[1]
                    if len(entries) and not 0 <= entries["pixel"].min() <= entries["pixel"].max() < size:
                        raise ValueError("its evidence lies outside the frame")
                    key = (int(hdu.header["PLANE"]), _bin_of(hdu.header))
                    counts = (int(hdu.header.get(name, 0)) for name in ("RATES", "PICTURES"))
                    tallies[key] = Tally(identity.shape, int(hdu.header["NFRAMES"]), entries, *counts)
            frames = {counted.digest: counted for counted in _read_frames(hdus["FRAMES"].data)}
            keys = tuple(int(hdu.header.get("EXTVER", 1)) for hdu in hdus if hdu.name == "DQ")
            return CameraMap(
                identity,
                Evidence(tallies, frames),
                str(header.get("ROWORDER", "")),
                float(header.get("FPXTHR", DEFAULT_THRESHOLD)),
                str(header.get("FPXDET", "")),
                keys if len(keys) == identity.planes else tuple(range(identity.planes)),
            )
    except UnreadableError as error:
        raise StoreError(str(error)) from error


def _read_frames(table: Any) -> Iterator[Counted]:
    def number(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    for row in table:
        conditions = Conditions(
            number(row["EXPOSURE"]),
            number(row["GAIN"]),
            number(row["TEMPERATURE"]),
            str(row["TIME"]).strip() or None,
            str(row["KIND"]).strip() or None,
        )
        yield Counted(str(row["DIGEST"]).strip(), str(row["NAME"]).strip(), Bin.of(conditions), conditions)


def _ascii(text: str) -> str:
    """FITS headers hold ASCII only; other letters are written as ``?``."""
    return text.encode("ascii", "replace").decode()


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
