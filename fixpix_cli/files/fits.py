"""Floor 2. FITS frames: read the stored values, patch the stored bytes.

astropy finds the data (`fits_io`); the values are read and written by our own
few lines, since astropy's write-back touches headers and padding of real
files. Row order is kept as stored; ROWORDER and the Bayer offsets only name
the colours.

A file's content decides what it is, not its name: gzip and tile compression
also come as plain ``.fits``, where an offset into the unpacked bytes would
read and patch the wrong ones.

An image with more than two axes is a series of one sensor, unless the user or
CTYPE3 says that its layers are planes.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import fitsheader
from ..cfa import MONO
from ..errors import FrameError, RefusedError, UnreadableError
from ..mosaic import Array, Assume, Edit, Frame, Lazy, Mosaic, Stored
from . import fits_cards, fits_sign, fits_tiles, fits_words
from .fits_gzip import is_gzip, to_the_end, unpacked
from .fits_io import is_image, is_tiled, opened, places, tiled_values
from .fits_values import STORED, Layout, Scale, put, scaling, to_samples, to_store
from .fits_words import conditions_of, default_white

#: Samples per byte of a compressed file; a header that claims more is damaged.
_MOST_PER_BYTE = 2000


def is_plain(path: Path) -> bool:
    """True for files that are read without astropy."""
    return fitsheader.read(path) is not None


def load(path: Path, assume: Assume) -> Frame:
    """Read the images of a FITS file; see `fixpix_cli.files.load`."""
    zipped = is_gzip(path)
    with opened(path) as hdus, contextlib.ExitStack() as closing:
        stream = closing.enter_context(gzip.open(path, "rb")) if zipped else None
        found = _chosen(path, [(i, hdu) for i, hdu in enumerate(hdus) if is_image(hdu)], assume)
        main = hdus[0].header
        images = [_image(path, index, hdu, main, stream, assume) for index, hdu in found]
        depths = {len(image.values) for image in images}
        apart = assume.planes or len(depths) > 1 or any(fits_words.is_coloured(hdu.header) for _, hdu in found)
        notes = [fits_words.repaired_before(main, [hdu.header for _, hdu in found])]
        if len(depths) > 1 and not assume.planes:
            notes.append("its images differ in depth: every layer is taken as a plane of its own; --hdu chooses")
        layers = images[0].planes() if len(images) == 1 else [p for image in images for p in image.planes()]
        moments = 1 if apart else depths.pop()
        if moments > 1:  # the planes of a moment lie together
            layers = [image.planes()[n] for n in range(moments) for image in images]
        first = found[0][1].header
        planes = len(layers) // moments
        if moments > 1 and len({image.first.shape for image in images}) > 1:
            raise RefusedError(f"{path}: holds series of different shapes; choose one with --hdu")
        identity = fits_words.identity_of(main, first, [image.first for image, _ in layers[:planes]], assume)
        if len(found) < sum(map(is_image, hdus)):  # other HDUs may be other sensors: no map in common
            readout = f"{identity.readout} HDU {','.join(str(index) for index, _ in found)}"
            identity = replace(identity, readout=readout.strip())
        conditions = conditions_of(main, first)
        order = fits_words.row_order(main, first)
        if stream is not None:
            to_the_end(path, stream)
    return Frame(
        tuple(map(_read, layers)) if moments == 1 else Lazy(len(layers), lambda n: _read(layers[n])),
        path,
        tuple(image.key for image, _ in layers[:planes]),
        identity,
        conditions,
        "fits",
        order,
        images[-1].assumed,
        tuple(image.layout_of(number) for image, number in layers),
        moments,
        tuple(filter(None, notes)),
    )


@dataclass(frozen=True, eq=False)
class Image:
    """One image HDU: its index, the (N, H, W) stored values, and the first plane as the mosaic that all follow."""

    key: int
    values: Array
    bitpix: int
    layout: Layout
    first: Mosaic
    assumed: tuple[str, ...]

    def planes(self) -> list[tuple[Image, int]]:
        """All planes, each as the image and its number."""
        return [(self, number) for number in range(len(self.values))]

    def layout_of(self, number: int) -> Layout:
        """How one plane is stored."""
        if self.layout.offset < 0:
            return self.layout
        rows, cols = self.first.shape
        size = rows * cols * np.dtype(self.layout.stored).itemsize
        return replace(self.layout, offset=self.layout.offset + number * size)


def _image(path: Path, key: int, hdu: Any, main: Any, unzipped: Any, assume: Assume) -> Image:
    header = hdu.header
    zero, scale = scaling(path, header)
    values, layout = _tiles(path, hdu, zero) if is_tiled(hdu) else _plain(path, hdu, zero, unzipped)
    bitpix = header["BITPIX"]
    plane: Mosaic
    if isinstance(values, np.memmap) and bitpix > 0 and layout.blank is None:
        plane = Stored(values[0], partial(to_samples, bitpix=bitpix, layout=layout))
    else:
        plane = Mosaic(to_samples(values[0], bitpix, layout))
    mosaic, assumed = _described(path, plane, scale, main, header, assume)
    return Image(key, values, bitpix, layout, mosaic, assumed)


def _read(layer: tuple[Image, int]) -> Mosaic:
    """One plane of an image."""
    image, number = layer
    first = image.first
    if number == 0:
        return first
    if isinstance(first, Stored):
        return Stored(image.values[number], first.decode, first.cfa, first.black, first.white)
    return first.with_samples(to_samples(image.values[number], image.bitpix, image.layout))


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
    blank = fits_words.blank_of(header)
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
    if unzipped is not None:
        values: Array = np.frombuffer(raw, stored)
    else:  # a series may be larger than memory; of a single frame a repair reads only parts
        values = np.memmap(path, stored, "r", offset, (count,))
    return values.reshape(shape), Layout(offset, stored.str, zero, blank)


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
    return values, Layout(-1, values.dtype.newbyteorder(">").str, zero, fits_words.blank_of(header))


def _described(
    path: Path, plane: Mosaic, scale: Scale, main: Any, header: Any, assume: Assume
) -> tuple[Mosaic, tuple[str, ...]]:
    """A plane with its colours and levels; what the file did not say stands in the tuple."""
    assumed = []
    cfa = assume.cfa or fits_words.cfa_of(path, main, header, plane.shape[0])
    if cfa is None:
        cfa = MONO
        assumed.append("cfa MONO")
    levels = (0.0,) if assume.black is None else assume.black
    if assume.black is None:
        assumed.append("black 0")
    levels = tuple(scale.code(level) for level in levels)
    black: tuple[tuple[float, ...], ...] = (levels,) if len(levels) == 1 else (levels[:2], levels[2:])
    white = fits_words.white_of(main, header) if assume.white is None else assume.white
    code = default_white(plane) if white is None else scale.code(float(white))
    if white is None:
        assumed.append(f"white {scale.value(code):g}")
    return plane.described(cfa, black, code), tuple(assumed)


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> tuple[str, ...]:
    """Copy the file and put the edits into it; checksum cards follow, if there are any. What to note is returned."""
    notes: list[str] = []
    with unpacked(frame.source, temporary) as path:
        # From the last image to the first: one that grows moves only what lies behind it.
        for key in sorted(set(frame.keys), reverse=True):
            mine = [n for n in _layers(frame, key) if len(edits[n])]
            if not mine:
                continue
            if frame.layout[mine[0]].offset < 0:
                notes += _rewrite_tiles(frame, edits, path, key)
            else:
                _patch(frame, edits, mine, path, key)
    return tuple(notes)


def _layers(frame: Frame, key: int) -> list[int]:
    """Numbers of the mosaics that are planes of one HDU, in its order."""
    return [n for n in range(len(frame.mosaics)) if frame.keys[n % frame.planes] == key]


def _patch(frame: Frame, edits: Sequence[Edit], mine: Sequence[int], path: Path, key: int) -> None:
    """Put the edits of one HDU into the file; its checksum cards follow by the words that changed."""
    place = places(path)[key]
    numbers, values = [], []
    for n in mine:
        layout, edit = frame.layout[n], edits[n]
        first = (layout.offset - place.data) // np.dtype(layout.stored).itemsize
        numbers.append(first + edit.rows * frame.mosaics[n].shape[1] + edit.cols)
        values.append(to_store(edit.values, layout))
    flat, stored = np.concatenate(numbers), np.concatenate(values, dtype=values[0].dtype)
    order = np.argsort(flat, kind="stable")
    with open(path, "r+b", buffering=0) as stream:
        span = min(place.span, stream.seek(0, 2) - place.data)  # careless writers cut the padding
        summed = span == place.span and fits_cards.has_checksums(stream, place.head, place.data)
        change = put(stream, place.data, flat[order], stored[order], summed)
        fits_cards.renew_checksums(stream, place.head, place.data, place.span, change if summed else None)


def _rewrite_tiles(frame: Frame, edits: Sequence[Edit], path: Path, key: int) -> list[str]:
    """Encode the changed tiles of one image again, and read them back."""
    place = places(path)[key]
    stack, changed, start = [], [], 0
    for n in _layers(frame, key):
        mosaic, edit, layout = frame.mosaics[n], edits[n], frame.layout[n]
        codes = to_store(mosaic.samples, layout)
        codes[edit.rows, edit.cols] = to_store(edit.values, layout)
        stack.append(codes.astype(codes.dtype.newbyteorder("="), copy=False))
        changed.append(start + edit.rows * mosaic.shape[1] + edit.cols)
        start += codes.size
    table = fits_tiles.table_of(place.header)
    values = (stack[0] if len(stack) == 1 else np.stack(stack)).reshape(table.shape)
    del stack
    if fits_tiles.rewrite(path, place, values, np.concatenate(changed), frame.source):
        with opened(path) as hdus:
            if not _equal(tiled_values(frame.source, hdus[key]), values):
                raise FrameError(f"{frame.source}: its tiles did not come back as they were; funpack it first")
        return []
    fits_tiles.unpack(path, place, key, values)
    return [f"image {key} was written without compression: {table.lossy}, every rewrite would change all its pixels"]


def _equal(found: Array, values: Array) -> bool:
    same = found.astype(found.dtype.newbyteorder("="), copy=False)
    bits = f"u{values.dtype.itemsize}"  # NaN equals NaN, and its bits count
    return (
        same.shape == values.shape
        and same.itemsize == values.itemsize
        and np.array_equal(same.view(bits), values.view(bits))
    )


def sign(path: Path, provenance: Any) -> bool:
    """Add HISTORY and FPX cards; see `fits_sign.add_cards`."""
    with unpacked(path, path) as plain:
        return fits_sign.add_cards(plain, provenance)


def extend(path: Path, hdus: bytes) -> bool:
    """Add whole HDUs at the end; see `fits_sign.add_extensions`."""
    with unpacked(path, path) as plain:
        return fits_sign.add_extensions(plain, hdus)
