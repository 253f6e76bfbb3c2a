"""Floor 2. FITS frames: read the stored values, patch the stored bytes.

astropy finds the data (`fits_io`); the values are read and written by our own
few lines, since astropy's write-back touches headers and padding of real
files. Row order is kept as stored; ROWORDER and the Bayer offsets only name
the colours.

A file's content decides what it is, not its name: gzip and tile compression
also come as plain ``.fits``, where an offset into the unpacked bytes would
read and patch the wrong ones.

An image with more than two axes is a row of exposures of one sensor, unless
the user or CTYPE3 says that they are planes.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cfa import MONO
from ..errors import FrameError, UnreadableError
from ..mosaic import Array, Assume, Edit, Frame, Mosaic
from . import fits_cards, fits_sign, fits_tiles, fits_words
from .fits_gzip import is_gzip, unpacked
from .fits_io import is_image, is_tiled, opened, places, tiled_values
from .fits_values import STORED, Layout, Scale, native, scaling, to_store, without_blanks
from .fits_words import conditions_of, default_white

#: Samples per byte of a compressed file; a header that claims more is damaged.
_MOST_PER_BYTE = 2000


def load(path: Path, assume: Assume) -> Frame:
    """Read the images of a FITS file; see `fixpix_cli.files.load`."""
    zipped = is_gzip(path)
    with opened(path) as hdus, contextlib.ExitStack() as closing:
        stream = closing.enter_context(gzip.open(path, "rb")) if zipped else None
        found = _chosen(path, [(i, hdu) for i, hdu in enumerate(hdus) if is_image(hdu)], assume)
        main = hdus[0].header
        mosaics: list[Mosaic] = []
        layouts: list[Layout] = []
        keys: list[int] = []
        planes: list[int] = []
        assumed: tuple[str, ...] = ()
        for index, hdu in found:
            header = hdu.header
            zero, scale = scaling(path, header)
            values, layout = _tiles(path, hdu, zero) if is_tiled(hdu) else _plain(path, hdu, zero, stream)
            apart = assume.planes or fits_words.is_coloured(header)
            first = max(planes, default=-1) + 1
            for number, plane in enumerate(values):
                samples, blank = without_blanks(
                    native(plane, header["BITPIX"], layout.zero), header.get("BLANK"), layout.zero
                )
                size = number * plane.size * np.dtype(layout.stored).itemsize
                offset = layout.offset if layout.offset < 0 else layout.offset + size
                mosaic, assumed = _mosaic(path, samples, scale, main, header, assume)
                mosaics.append(mosaic)
                layouts.append(Layout(offset, layout.stored, layout.zero, blank))
                keys.append(index)
                planes.append(first + number if apart else first)
        first_header = found[0][1].header
        different = len(set(planes))
        identity = fits_words.identity_of(main, first_header, mosaics[0], different, assume)
        conditions = conditions_of(main, first_header)
        before = fits_words.repaired_before(main, [hdu.header for _, hdu in found])
        order = fits_words.row_order(main, first_header)
        if stream is not None:
            while stream.read(1 << 20):  # to the end: only there gzip tells damaged data by its CRC
                pass
    return Frame(
        tuple(mosaics),
        path,
        tuple(keys),
        identity,
        conditions,
        "fits",
        order,
        assumed,
        tuple(layouts),
        planes=tuple(planes) if different < len(planes) else (),
        notes=(before,) if before else (),
    )


def _chosen(path: Path, images: list[tuple[int, Any]], assume: Assume) -> list[tuple[int, Any]]:
    """The image HDUs to work on: all, or those that the user named."""
    if not images:
        raise UnreadableError(f"{path}: holds no image")
    there = [index for index, _ in images]
    for wanted in assume.hdu:
        if wanted not in there:
            raise UnreadableError(f"{path}: HDU {wanted} is no image; its images are {', '.join(map(str, there))}")
    return [(index, hdu) for index, hdu in images if not assume.hdu or index in assume.hdu]


def _plain(path: Path, hdu: Any, zero: int, unzipped: Any) -> tuple[Array, Layout]:
    """(N, H, W) stored values, read at the place that astropy found.

    `unzipped` is the gunzipped stream, or None for a plain file.
    """
    header = hdu.header
    shape = _shape(path, header)
    if header["BITPIX"] not in STORED:
        raise UnreadableError(f"{path}: BITPIX = {header['BITPIX']} is not in the FITS standard")
    stored = np.dtype(STORED[header["BITPIX"]])
    offset = hdu.fileinfo()["datLoc"]
    count = shape[0] * shape[1] * shape[2]
    size = count * stored.itemsize
    there = path.stat().st_size
    if unzipped is None:
        there = max(0, there - offset)
    elif size <= there * _MOST_PER_BYTE:
        unzipped.seek(offset)
        raw = unzipped.read(size)
        there = len(raw)
    if there < size:
        raise UnreadableError(f"{path}: is truncated: the header promises {size} bytes of pixels, {there} are there")
    values = np.fromfile(path, stored, count, offset=offset) if unzipped is None else np.frombuffer(raw, stored)
    return values.reshape(shape), Layout(offset, stored.str, zero)


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
    """Planes, rows and columns of an image."""
    axes = [header[f"NAXIS{n}"] for n in range(1, header["NAXIS"] + 1)]
    if not all(isinstance(n, int) and n > 0 for n in axes):
        raise UnreadableError(f"{path}: is damaged (an image of {' x '.join(map(str, axes))})")
    planes = 1
    for n in axes[2:]:
        planes *= n
    return planes, axes[1], axes[0]


def _tiles(path: Path, hdu: Any, zero: int) -> tuple[Array, Layout]:
    """(N, H, W) stored values of a tile-compressed image, in native byte order."""
    header = hdu.header
    shape = _shape(path, header)
    size = path.stat().st_size
    if shape[0] * shape[1] * shape[2] > size * _MOST_PER_BYTE:
        raise UnreadableError(f"{path}: claims {shape[2]} x {shape[1]} pixels, too many for a file of {size} bytes")
    values = tiled_values(path, hdu)
    if values.size != shape[0] * shape[1] * shape[2] or values.shape[-2:] != shape[1:]:
        raise UnreadableError(f"{path}: is damaged (its compressed tiles do not make up the image)")
    values = values.astype(values.dtype.newbyteorder("="), copy=False).reshape(shape)
    if hdu.compression_type == "PLIO_1" and zero == 32768:
        # cfitsio puts unsigned values into PLIO without the offset, which astropy does not know.
        values, zero = values.view(np.uint16), 0
    return values, Layout(-1, values.dtype.newbyteorder(">").str, zero)


def _mosaic(
    path: Path, samples: Array, scale: Scale, main: Any, header: Any, assume: Assume
) -> tuple[Mosaic, tuple[str, ...]]:
    """A plane with its colours and levels; what the file did not say stands in the tuple."""
    assumed = []
    cfa = assume.cfa or fits_words.cfa_of(path, main, header, samples.shape[0])
    if cfa is None:
        cfa = MONO
        assumed.append("cfa MONO")
    levels = (0.0,) if assume.black is None else assume.black
    if assume.black is None:
        assumed.append("black 0")
    levels = tuple(scale.code(level) for level in levels)
    black: tuple[tuple[float, ...], ...] = (levels,) if len(levels) == 1 else (levels[:2], levels[2:])
    white = fits_words.white_of(main, header) if assume.white is None else assume.white
    code = default_white(samples) if white is None else scale.code(float(white))
    if white is None:
        assumed.append(f"white {scale.value(code):g}")
    return Mosaic(samples, cfa, black, code), tuple(assumed)


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> tuple[str, ...]:
    """Copy the file and put the edits into it; checksum cards follow, if there are any. What to note is returned."""
    notes: list[str] = []
    with unpacked(frame.source, temporary) as path:
        # From the last image to the first: one that grows moves only what lies behind it.
        for key in sorted(set(frame.keys), reverse=True):
            mine = [n for n, own in enumerate(frame.keys) if own == key and len(edits[n])]
            if not mine:
                continue
            if frame.layout[mine[0]].offset < 0:
                notes += _rewrite_tiles(frame, edits, path, key)
            else:
                _patch(frame, edits, mine, path, key)
    return tuple(notes)


def _patch(frame: Frame, edits: Sequence[Edit], mine: Sequence[int], path: Path, key: int) -> None:
    with open(path, "r+b") as stream:
        for n in mine:
            layout, edit, (rows, cols) = frame.layout[n], edits[n], frame.mosaics[n].shape
            view = np.memmap(stream, np.dtype(layout.stored), "r+", layout.offset, (rows * cols,))
            view[edit.rows * cols + edit.cols] = to_store(edit.values, layout)
            view.flush()
            del view
        place = places(path)[key]
        fits_cards.renew_checksums(stream, place.head, place.data, place.span)


def _rewrite_tiles(frame: Frame, edits: Sequence[Edit], path: Path, key: int) -> list[str]:
    """Encode the changed tiles of one image again, and read them back."""
    place = places(path)[key]
    stack, changed, start = [], [], 0
    for n, own in enumerate(frame.keys):
        if own != key:
            continue
        mosaic, edit, layout = frame.mosaics[n], edits[n], frame.layout[n]
        codes = to_store(mosaic.samples, layout)
        codes[edit.rows, edit.cols] = to_store(edit.values, layout)
        stack.append(codes.astype(codes.dtype.newbyteorder("="), copy=False))
        changed.append(start + edit.rows * mosaic.shape[1] + edit.cols)
        start += codes.size
    table = fits_tiles.table_of(place.header)
    values = np.concatenate([codes.reshape(-1) for codes in stack]).reshape(table.shape)
    if fits_tiles.rewrite(path, place, values, np.concatenate(changed), frame.source):
        with opened(path) as hdus:
            if not _equal(tiled_values(frame.source, hdus[key]), values):
                raise FrameError(f"{frame.source}: its tiles did not come back as they were; funpack it first")
        return []
    fits_tiles.unpack(path, place, key, values)
    return [f"image {key} was written without compression: {table.lossy}, every rewrite would change all its pixels"]


def _equal(found: Array, values: Array) -> bool:
    same = found.astype(found.dtype.newbyteorder("="), copy=False)
    return same.shape == values.shape and same.tobytes() == values.tobytes()


def sign(path: Path, provenance: Any) -> bool:
    """Add HISTORY and FPX cards; see `fits_sign.add_cards`."""
    with unpacked(path, path) as plain:
        return fits_sign.add_cards(plain, provenance)


def extend(path: Path, hdus: bytes) -> bool:
    """Add whole HDUs at the end; see `fits_sign.add_extensions`."""
    with unpacked(path, path) as plain:
        return fits_sign.add_extensions(plain, hdus)


__all__ = ["conditions_of", "default_white", "extend", "load", "rewrite", "sign"]
