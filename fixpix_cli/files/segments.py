"""Floor 2. The strips and tiles of a TIFF or DNG: decode all, re-encode only the touched ones.

The keeper of imagecodecs. Of lossless JPEG only the codes of the edited pixels
are exchanged where that goes (`splicing`). Every re-encoded segment is decoded
again and compared before it is written. A segment that does not fit its old place goes
into room that other touched segments leave, then (DNG) all are packed anew into
the old extents; the rest goes to the end of the file.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import safe
from ..errors import RefusedError, UnreadableError
from ..mosaic import Array, Edit
from . import jpegs, splicing
from .ifd import Entry, Ifd, Tree

NONE, LZW, JPEG, DEFLATE, PACKBITS, DEFLATE_OLD, LZMA, ZSTD = 1, 5, 7, 8, 32773, 32946, 34925, 50000
#: JPEG XL as DNG 1.7 has it.
JXL = 52546
_NAMES = {
    2: "CCITT",
    3: "CCITT fax",
    4: "CCITT fax",
    6: "old-style JPEG",
    34892: "lossy JPEG",
    34933: "PNG",
    9: "VC-5",
    34713: "Nikon NEF compression",
    50002: "JPEG XL",
}
_HANDLED = (NONE, LZW, JPEG, DEFLATE, PACKBITS, DEFLATE_OLD, LZMA, ZSTD, JXL)
#: Predictors of DNG 1.4 that look 2 or 4 samples of a colour back: (TIFF predictor, distance).
_FAR = {34892: (2, 2), 34893: (2, 4), 34894: (3, 2), 34895: (3, 4)}
#: A frame may not claim more samples than this per byte of the file, and never more than 2^31.
_MOST_PER_BYTE, _MOST_SAMPLES = 2000, 1 << 31


@dataclass(frozen=True)
class Raster:
    """How the samples of one directory are stored.

    height, width : pixels; samples : per pixel; planar : each segment holds one
    sample of its pixels, and the segments of a sample follow each other, instead
    of all samples pixel by pixel; bits : per sample; dtype : native type of the
    decoded samples; block : (rows, cols) of a segment; across : segments per
    row; offsets, counts : of the segments; reach : pixels from a sample to the
    one that its predictor looks at; fields : rows and columns are stored in so
    many interleaved fields, one after the other (DNG, Row- and ColumnInterleaveFactor).
    """

    order: str
    height: int
    width: int
    samples: int
    planar: bool
    bits: int
    dtype: Any
    compression: int
    predictor: int
    block: tuple[int, int]
    tiled: bool
    across: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    offsets_entry: Entry
    counts_entry: Entry
    reach: int = 1
    fields: tuple[int, int] = (1, 1)

    @property
    def depth(self) -> int:
        """Samples of a pixel in one segment."""
        return 1 if self.planar else self.samples

    @property
    def per_plane(self) -> int:
        """Segments that cover the image once."""
        return self.across * -(-self.height // self.block[0])

    def shape_of(self, index: int) -> tuple[int, int, int]:
        """Rows, columns and samples stored in a segment (tiles are padded, the last strip is cut)."""
        rows, cols = self.block
        if not self.tiled:
            rows = min(rows, self.height - self.corner(index)[0])
        return rows, cols, self.depth

    def corner(self, index: int) -> tuple[int, int]:
        """Frame coordinates of a segment's first pixel."""
        index %= self.per_plane
        return index // self.across * self.block[0], index % self.across * self.block[1]

    def channels(self, index: int) -> slice:
        """Which samples of a pixel a segment holds."""
        return slice(index // self.per_plane, index // self.per_plane + 1) if self.planar else slice(None)

    def stored(self, index: Array, axis: int) -> Array:
        """Stored rows (axis 0) or columns (1) of some rows or columns of the image."""
        fields, size = self.fields[axis], (self.height, self.width)[axis]
        starts = np.cumsum([0, *(len(range(f, size, fields)) for f in range(fields - 1))])
        return starts[index % fields] + index // fields

    def places(self, rows: Array, cols: Array, channel: Array) -> tuple[Array, Array]:
        """(N,), (N,): the segments that hold some samples, and the samples' numbers within their pixels there."""
        index = rows // self.block[0] * self.across + cols // self.block[1]
        if self.planar:
            return index + channel * self.per_plane, np.zeros_like(channel)
        return index, channel

    @property
    def row_bytes(self) -> int:
        """Bytes of an uncompressed row of a segment."""
        return (self.block[1] * self.depth * self.bits + 7) // 8


def raster_of(tree: Tree, ifd: Ifd) -> Raster:
    """The storage of a directory's image, checked for sense.

    Raises
    ------
    UnreadableError
        The directory contradicts itself or the file.
    RefusedError
        A compression, bit depth or layout that is not handled, by name.
    """
    path = tree.path

    def one(tag: int, default: int) -> int:
        values = tree.values(ifd, tag)
        return int(values[0]) if values else default

    height, width, samples = one(257, 0), one(256, 0), one(277, 1)
    if height <= 0 or width <= 0 or not 1 <= samples <= 16:
        raise UnreadableError(f"{path}: is damaged (an image of {width} x {height} x {samples})")
    total = height * width * samples
    if total > _MOST_SAMPLES or total > len(tree.data) * _MOST_PER_BYTE:
        raise UnreadableError(
            f"{path}: claims {width} x {height} pixels, too many for a file of {len(tree.data)} bytes"
        )
    depths = set(tree.values(ifd, 258)) or {1}
    formats = set(tree.values(ifd, 339)) or {1}
    if len(depths) != 1 or len(formats) != 1:
        raise RefusedError(f"{path}: has channels of different depths")
    bits, form = int(depths.pop()), int(formats.pop())
    compression, predictor = one(259, 1), one(317, 1)
    if compression not in _HANDLED:
        name = _NAMES.get(compression, f"compression {compression}")
        raise RefusedError(f"{path}: {name} cannot be rewritten without touching good pixels")
    dtype = _dtype(path, bits, form)
    if bits not in (8, 16, 32, 64) and compression not in (NONE, JPEG, JXL):
        raise RefusedError(f"{path}: {bits}-bit samples with compression {compression} are not handled")
    predictor, reach = _FAR.get(predictor, (predictor, 1))
    if predictor not in (1, 2, 3):
        raise RefusedError(f"{path}: predictor {predictor} is not handled")
    if one(266, 1) != 1:
        raise RefusedError(f"{path}: fill order {one(266, 1)} (bits from the low end) is not handled")
    if compression == JXL and (distance := tree.number(ifd, 52553)):
        raise RefusedError(
            f"{path}: lossy JPEG XL (distance {distance:g}) cannot be rewritten without touching good pixels"
        )
    fields = one(50975, 1), one(52547, 1)
    if min(fields) < 1 or fields[0] > height or fields[1] > width:
        raise UnreadableError(f"{path}: is damaged (interleave factors of {fields[0]} and {fields[1]})")
    if any(side != 1 for side in tree.values(ifd, 50974)):
        raise RefusedError(f"{path}: sub-tile blocks are not handled")
    planar = samples > 1 and one(284, 1) == 2
    tiled = 322 in ifd.entries
    block = (one(323, 0), one(322, 0)) if tiled else (min(one(278, height), height), width)
    if block[0] <= 0 or block[1] <= 0 or block[0] * block[1] > 64 * max(total, 1 << 20):
        raise UnreadableError(f"{path}: is damaged (segments of {block[1]} x {block[0]})")
    across, down = -(-width // block[1]), -(-height // block[0])
    where, size = (324, 325) if tiled else (273, 279)
    if where not in ifd.entries or size not in ifd.entries:
        raise UnreadableError(f"{path}: is damaged (it does not say where its pixels are)")
    offsets, counts = tree.values(ifd, where), tree.values(ifd, size)
    needed = across * down * (samples if planar else 1)
    if len(offsets) != needed or len(counts) != needed:
        raise UnreadableError(f"{path}: is damaged ({len(offsets)} segments where {needed} are needed)")
    for offset, count in zip(offsets, counts, strict=True):
        if not count or offset + count > len(tree.data):
            raise UnreadableError(f"{path}: is truncated (pixels are missing)")
    raster = Raster(
        tree.order, height, width, samples, planar, bits, dtype, compression, predictor, block, tiled, across,
        offsets, counts, ifd.entries[where], ifd.entries[size], reach, fields,
    )  # fmt: skip
    if predictor != 1 and compression not in (JPEG, JXL) and block[1] % reach:
        raise UnreadableError(f"{path}: is damaged (segments of {block[1]} columns, predicted {reach} columns back)")
    if compression == NONE:
        for index, count in enumerate(counts):
            if count < raster.shape_of(index)[0] * raster.row_bytes:
                raise UnreadableError(f"{path}: is truncated (a strip or tile is too short)")
    return raster


def _dtype(path: Path, bits: int, form: int) -> Any:
    if form == 3 and bits in (16, 32, 64):
        return np.dtype(f"f{bits // 8}")
    if form == 2 and bits in (8, 16, 32):
        return np.dtype(f"i{bits // 8}")
    if form in (1, 4) and bits == 32:
        return np.dtype(np.uint32)
    if form in (1, 4) and 8 <= bits <= 16:
        return np.dtype(np.uint8 if bits == 8 else np.uint16)
    raise RefusedError(f"{path}: {bits}-bit samples of format {form} are not handled")


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """What codecs raise on damaged data becomes one error of ours."""
    try:
        yield
    except (
        ValueError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        IndexError,
        TypeError,
    ) as error:
        raise UnreadableError(f"{path}: a strip or tile cannot be decoded ({error})") from error


def read(tree: Tree, raster: Raster, *, proven: bool = False) -> Array:
    """(H, W, S) samples of the whole image, in native byte order.

    With `proven` the caller compares the samples with a digest of their own, and
    lossless JPEG is spared the count of its bits.

    Raises
    ------
    UnreadableError
        A segment is damaged.
    """
    out = np.empty((raster.height, raster.width, raster.samples), raster.dtype)

    def fill(index: int) -> None:
        block = decode(tree, raster, index, proven=proven)
        top, left = raster.corner(index)
        rows, cols = min(block.shape[0], raster.height - top), min(block.shape[1], raster.width - left)
        out[top : top + rows, left : left + cols, raster.channels(index)] = block[:rows, :cols]

    segments = range(len(raster.offsets))
    if raster.compression == NONE or len(segments) == 1:
        for index in segments:
            fill(index)
    else:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(fill, segments))
    if raster.fields == (1, 1):
        return out
    rows, cols = np.arange(raster.height), np.arange(raster.width)
    return out[raster.stored(rows, 0)][:, raster.stored(cols, 1)]


def mapped(tree: Tree, raster: Raster) -> Array | None:
    """(H, W, S) samples as they lie in the file, in its byte order; None where they do not simply follow each other.

    Nothing is read: the array is the memory map of the file.
    """
    whole = raster.bits == 8 * raster.dtype.itemsize and raster.predictor == 1 and raster.fields == (1, 1)
    if raster.compression != NONE or not whole or raster.planar or raster.tiled:
        return None
    sizes = [raster.shape_of(index)[0] * raster.row_bytes for index in range(len(raster.offsets))]
    ends = [offset + size for offset, size in zip(raster.offsets, sizes, strict=True)]
    if tuple(ends[:-1]) != raster.offsets[1:]:
        return None
    shape = raster.height, raster.width, raster.samples
    stored = raster.dtype.newbyteorder(raster.order)
    return np.frombuffer(tree.data, stored, raster.height * raster.width * raster.samples, raster.offsets[0]).reshape(
        shape
    )


def native(values: Array) -> Array:
    """Samples of either byte order in the machine's own."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def decode(tree: Tree, raster: Raster, index: int, *, proven: bool = False) -> Array:
    """(rows, cols, S) samples of one segment; see `read`."""
    start = raster.offsets[index]
    data = bytes(tree.data[start : start + raster.counts[index]])
    with _translated(tree.path):
        return _decode(tree.path, raster, raster.shape_of(index), data, proven)


def _decode(path: Path, raster: Raster, shape: tuple[int, int, int], data: bytes, proven: bool = False) -> Array:
    rows, cols, samples = shape
    if raster.compression == JPEG:
        return _ljpeg_decode(path, raster, shape, data, proven)
    if raster.compression == JXL:
        return _jxl_decode(path, raster, shape, data)
    plain = _unpack(raster, data, rows * raster.row_bytes)
    if len(plain) < rows * raster.row_bytes:
        raise ValueError(f"{len(plain)} bytes instead of {rows * raster.row_bytes}")
    if raster.bits not in (8, 16, 32, 64):
        return _unpack_bits(plain, raster, rows).reshape(shape)
    if raster.predictor == 3:
        return _float_decode(plain, raster, rows).reshape(shape)
    stored = np.dtype(raster.dtype.str.replace("<", raster.order))
    values = np.frombuffer(plain, stored, rows * cols * samples).reshape(shape).astype(raster.dtype)
    if raster.predictor == 2:
        unsigned = values.view(f"u{values.itemsize}").reshape(rows, -1, raster.reach * samples)
        values = np.cumsum(unsigned, axis=1, dtype=unsigned.dtype).view(raster.dtype).reshape(shape)
    return values


def encode(tree: Tree, raster: Raster, index: int, values: Array, before: Array) -> bytes:
    """The bytes of one segment with new (rows, cols, S) samples instead of `before`, checked by decoding them.

    Raises
    ------
    RefusedError
        The codec does not give back what was put in.
    """
    start = raster.offsets[index]
    old, shape = bytes(tree.data[start : start + raster.counts[index]]), raster.shape_of(index)
    wanted = np.ascontiguousarray(values).tobytes()
    try:
        if raster.compression == JPEG:
            data = _ljpeg_spliced(before, values, old)
            if data is not None and _decode(tree.path, raster, shape, data, proven=True).tobytes() == wanted:
                return data
        data = _encode(raster, shape, values, old)
        again = _decode(tree.path, raster, shape, data, proven=True)
    except (ValueError, RuntimeError, TypeError) as error:
        raise RefusedError(f"{tree.path}: a strip or tile cannot be encoded again ({error})") from error
    if again.tobytes() != wanted:
        raise RefusedError(f"{tree.path}: a strip or tile does not survive encoding; nothing was written")
    return data


def _encode(raster: Raster, shape: tuple[int, int, int], values: Array, old: bytes) -> bytes:
    rows = shape[0]
    if raster.compression == JPEG:
        return _ljpeg_encode(shape, values, old)
    if raster.compression == JXL:
        return _jxl_encode(shape, values, old)
    if raster.bits not in (8, 16, 32, 64):
        plain = _pack_bits(values.reshape(rows, -1), raster.bits)
        return plain + old[len(plain) :]
    if raster.predictor == 3:
        plain = _float_encode(values.reshape(rows, -1), raster)
    else:
        if raster.predictor == 2:
            unsigned = np.ascontiguousarray(values).view(f"u{values.itemsize}")
            unsigned = unsigned.reshape(rows, -1, raster.reach * shape[2])
            values = np.concatenate([unsigned[:, :1], unsigned[:, 1:] - unsigned[:, :-1]], axis=1)
        stored = np.dtype(values.dtype.str.replace("<", raster.order))
        plain = np.ascontiguousarray(values.astype(stored)).tobytes()
    if raster.compression == NONE:
        return plain + old[len(plain) :]
    return _pack(raster, plain, old)


def _unpack(raster: Raster, data: bytes, size: int) -> bytes:
    """Undo the lossless byte compression; never more than `size` bytes and a little."""
    kind = raster.compression
    if kind == NONE:
        return data
    import imagecodecs

    if kind in (DEFLATE, DEFLATE_OLD):
        return zlib.decompressobj().decompress(data, size)
    if kind == LZMA:
        return lzma.LZMADecompressor().decompress(data, size)
    out = bytearray(size)
    if kind == LZW:
        return bytes(imagecodecs.lzw_decode(data, out=size))
    if kind == ZSTD:
        return bytes(imagecodecs.zstd_decode(data, out=out))
    return bytes(imagecodecs.packbits_decode(data, out=size))


def _pack(raster: Raster, plain: bytes, old: bytes) -> bytes:
    import imagecodecs

    kind = raster.compression
    if kind in (DEFLATE, DEFLATE_OLD):
        data = zlib.compress(plain, {0x01: 1, 0x5E: 4, 0xDA: 9}.get(old[1], 6))
        # One byte too many sends the whole segment to the end of the file: rather take the pains.
        return data if len(data) <= len(old) else min(data, bytes(imagecodecs.deflate_encode(plain, 12)), key=len)
    if kind == LZMA:
        return lzma.compress(plain)
    if kind == LZW:
        return bytes(imagecodecs.lzw_encode(plain))
    if kind == ZSTD:
        data = bytes(imagecodecs.zstd_encode(plain, level=9))
        return data if len(data) <= len(old) else min(data, bytes(imagecodecs.zstd_encode(plain, level=19)), key=len)
    rows = len(plain) // raster.row_bytes
    width = raster.row_bytes
    return b"".join(bytes(imagecodecs.packbits_encode(plain[r * width : (r + 1) * width])) for r in range(rows))


def _unpack_bits(data: bytes, raster: Raster, rows: int) -> Array:
    """(rows, samples per row) uint16 from rows of packed samples, high bit first."""
    count = raster.block[1] * raster.depth
    out = np.empty((rows, count), np.uint16)
    weights = (1 << np.arange(raster.bits - 1, -1, -1)).astype(np.uint16)
    packed = np.frombuffer(data, np.uint8, rows * raster.row_bytes).reshape(rows, raster.row_bytes)
    for top in range(0, rows, 64):
        bits = np.unpackbits(packed[top : top + 64], axis=1, count=count * raster.bits)
        out[top : top + 64] = bits.reshape(-1, count, raster.bits) @ weights
    return out


def _pack_bits(values: Array, bits: int) -> bytes:
    """Rows of packed samples, high bit first, each row filled up to whole bytes."""
    shifts = np.arange(bits - 1, -1, -1)
    parts = []
    for top in range(0, len(values), 64):
        some = values[top : top + 64, :, None].astype(np.uint16)
        parts.append(np.packbits(((some >> shifts) & 1).astype(np.uint8).reshape(len(some), -1), axis=1).tobytes())
    return b"".join(parts)


def _float_decode(data: bytes, raster: Raster, rows: int) -> Array:
    """Undo predictor 3 (Adobe Photoshop TIFF technical note 3): bytes by significance, differenced along the row."""
    size, step = raster.dtype.itemsize, raster.depth * raster.reach
    count = raster.block[1] * raster.depth
    packed = np.frombuffer(data, np.uint8, rows * count * size).reshape(rows, -1, step)
    planes = np.cumsum(packed, axis=1, dtype=np.uint8).reshape(rows, size, count)
    big = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{size}")
    return big.reshape(rows, count).astype(raster.dtype)


def _float_encode(values: Array, raster: Raster) -> bytes:
    rows, count = values.shape
    size, step = raster.dtype.itemsize, raster.depth * raster.reach
    parts = values.astype(f">f{size}").view(np.uint8).reshape(rows, count, size)
    planes = np.ascontiguousarray(parts.transpose(0, 2, 1)).reshape(rows, -1, step)
    return np.concatenate([planes[:, :1], planes[:, 1:] - planes[:, :-1]], axis=1).tobytes()


def _ljpeg_decode(path: Path, raster: Raster, shape: tuple[int, int, int], data: bytes, proven: bool) -> Array:
    import imagecodecs

    try:
        header = jpegs.ljpeg_header(data)
    except jpegs.LossyError as error:
        raise RefusedError(f"{path}: lossy JPEG cannot be rewritten without touching good pixels") from error
    rows, cols, samples = shape
    height, width, components = header.height, header.width, header.components
    if height * width * components != rows * cols * samples:
        raise ValueError(f"a JPEG of {width} x {height} x {components} in a tile of {cols} x {rows} x {samples}")
    if header.shift:
        raise RefusedError(f"{path}: JPEG with a point transform is not handled")
    # Truncated entropy data decodes silently into wrong pixels: demand the end marker and every bit.
    if b"\xff\xd9" not in (data[-16:] if header.restart else data):
        raise ValueError("truncated JPEG, its end marker is missing")
    block = np.asarray(imagecodecs.jpeg8_decode(data)).reshape(height, width, components)
    if not proven:
        jpegs.check_ljpeg(data, header, block)
    return block.reshape(shape).astype(raster.dtype, copy=False)


def _ljpeg_spliced(before: Array, after: Array, old: bytes) -> bytes | None:
    """The old stream with the codes of the new values exchanged, where that goes."""
    header = jpegs.ljpeg_header(old)
    size = header.height, header.width, header.components
    return splicing.spliced(old, header, before.reshape(size), after.reshape(size))


def _ljpeg_encode(shape: tuple[int, int, int], values: Array, old: bytes) -> bytes:
    """Encode with the old tile's geometry and predictor, and its precision unless the values need more."""
    import imagecodecs

    header = jpegs.ljpeg_header(old)
    precision = max(header.precision, int(values.max()).bit_length())
    block = np.ascontiguousarray(values.reshape(header.height, header.width, header.components))
    if precision <= 8:
        block = block.astype(np.uint8)
    if header.components == 1:
        block = block[..., 0]
    colours: dict[str, Any] = {"colorspace": "RGB", "outcolorspace": "RGB"} if header.components == 3 else {}
    return bytes(
        imagecodecs.jpeg8_encode(block, lossless=True, predictor=header.predictor, bitspersample=precision, **colours)
    )


def _jxl_decode(path: Path, raster: Raster, shape: tuple[int, int, int], data: bytes) -> Array:
    import imagecodecs

    header = jpegs.jxl_header(data)
    if header.xyb:
        raise RefusedError(f"{path}: lossy JPEG XL cannot be rewritten without touching good pixels")
    if (header.height, header.width) != shape[:2] or header.bits > raster.bits:
        raise ValueError(f"a JPEG XL of {header.width} x {header.height}, {header.bits} bits, in a tile of {shape}")
    block = np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1))
    return block.reshape(shape).astype(raster.dtype, copy=False)


def _jxl_encode(shape: tuple[int, int, int], values: Array, old: bytes) -> bytes:
    """Encode losslessly. Effort 3 is as small as Adobe's 7 within some per cent, in a tenth of the time."""
    import imagecodecs

    header = jpegs.jxl_header(old)
    options: dict[str, Any] = {"photometric": "rgb"} if shape[2] == 3 else {}
    if not header.is_float:
        options["bitspersample"] = max(header.bits, int(values.max()).bit_length())
    block = np.ascontiguousarray(values[..., 0] if shape[2] == 1 else values)
    return bytes(imagecodecs.jpegxl_encode(block, lossless=True, effort=3, numthreads=1, **options))


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class Patch:
    """Bytes to write at a place of the file."""

    place: int
    data: bytes


def patches(
    tree: Tree,
    raster: Raster,
    edits: Sequence[Edit],
    end: int | None = None,
    *,
    repack: bool = False,
    samples: Array | None = None,
) -> list[Patch]:
    """What to write where so that the edited pixels change; `edits` has one item per sample of a pixel.

    What finds no room goes to `end` (None: the end of the file). Uncompressed
    samples of whole bytes are patched one by one; other touched segments are
    encoded again and placed (`placed` says what `repack` does; `encoded` what `samples` are for).
    """
    if raster.compression == NONE and len(set(raster.offsets)) < len(raster.offsets):
        raise RefusedError(f"{tree.path}: some of its strips or tiles lie in one place; they cannot be repaired apart")
    if raster.compression == NONE and raster.bits in (8, 16, 32, 64) and raster.predictor == 1:
        return _byte_patches(raster, *_placed_edits(raster, edits))
    return placed(tree, raster, encoded(tree, raster, edits, samples), end, repack=repack)


def _placed_edits(raster: Raster, edits: Sequence[Edit]) -> tuple[Array, Array, Array, Array, Array]:
    """Stored rows, columns, sample numbers within the segment, values and segments of all edits."""
    rows = raster.stored(np.concatenate([edit.rows for edit in edits]), 0)
    cols = raster.stored(np.concatenate([edit.cols for edit in edits]), 1)
    channel = np.concatenate([np.full(len(edit), number) for number, edit in enumerate(edits)])
    values = np.concatenate([edit.values for edit in edits]).astype(raster.dtype)
    if raster.bits < 16 and len(values) and raster.dtype.kind == "u" and int(values.max()) >= 1 << raster.bits:
        raise ValueError(f"a value of {int(values.max())} does not fit {raster.bits} bits")
    index, channel = raster.places(rows, cols, channel)
    return rows, cols, channel, values, index


def encoded(tree: Tree, raster: Raster, edits: Sequence[Edit], samples: Array | None = None) -> dict[int, bytes]:
    """The touched segments with the edits in them, encoded again.

    Where the caller still has the (H, W, S) samples that `read` gave, only segments that reach beyond the image are
    decoded once more: what lies there stays as it is.
    """
    rows, cols, channel, values, index = _placed_edits(raster, edits)

    def make(segment: int) -> bytes:
        top, left = raster.corner(segment)
        rows_, cols_, _ = raster.shape_of(segment)
        whole = top + rows_ <= raster.height and left + cols_ <= raster.width and raster.fields == (1, 1)
        if samples is not None and whole:
            before = samples[top : top + rows_, left : left + cols_, raster.channels(segment)]
        else:
            before = decode(tree, raster, segment, proven=samples is not None)
        block, mine = before.copy(), index == segment
        block[rows[mine] - top, cols[mine] - left, channel[mine]] = values[mine]
        return encode(tree, raster, segment, block, before)

    touched = [int(segment) for segment in np.unique(index)]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(touched, pool.map(make, touched), strict=True))


def _byte_patches(raster: Raster, rows: Array, cols: Array, channel: Array, values: Array, index: Array) -> list[Patch]:
    size = raster.dtype.itemsize
    stored = values.astype(raster.dtype.newbyteorder(raster.order))
    inside = (rows % raster.block[0]) * raster.row_bytes + ((cols % raster.block[1]) * raster.depth + channel) * size
    places = np.asarray(raster.offsets)[index] + inside
    order = np.argsort(places, kind="stable")
    places, stored = places[order], stored[order]
    # Neighbouring samples become one patch.
    cuts = np.flatnonzero(np.diff(places) != size) + 1
    starts = np.concatenate([[0], cuts]).astype(int)
    ends = np.concatenate([cuts, [len(places)]]).astype(int)
    return [Patch(int(places[a]), stored[a:b].tobytes()) for a, b in zip(starts, ends, strict=True) if b > a]


def placed(
    tree: Tree, raster: Raster, made: dict[int, bytes], end: int | None = None, *, repack: bool = False
) -> list[Patch]:
    """Write re-encoded segments in their own places, or else in what the touched ones leave together.

    What finds no place goes to `end` (None: the end of the file). With `repack` all segments of
    the image, touched or not, are packed anew into their old extents before that
    if this saves all growth, or a tenth of the file.
    """
    if raster.compression == NONE:
        return [Patch(raster.offsets[i], data) for i, data in made.items()]
    offsets, counts = list(raster.offsets), list(raster.counts)
    homes = {i: offsets[i] for i in made}
    shared = len(set(offsets)) < len(offsets)  # writers may store equal segments once
    end = len(tree.data) if end is None else end
    if shared or any(len(data) > counts[i] for i, data in made.items()):
        kept = {o for i, o in enumerate(offsets) if i not in made}
        rooms = _merged([(offsets[i], counts[i]) for i in made], kept)
        homes = _packed(made, sorted(made, key=lambda i: -len(made[i])), rooms, end)
        if repack and max(homes.values()) >= end:
            whole = {i: made.get(i) or bytes(tree.data[o : o + c]) for i, (o, c) in enumerate(_extents(raster))}
            rooms = _merged(_extents(raster), set())
            lacking = sum(map(len, whole.values())) - sum(size for _, size in rooms)
            # The smallest one that makes room enough for the others by going to the end comes last.
            last = min((i for i in whole if len(whole[i]) >= lacking > 0), key=lambda i: len(whole[i]), default=-1)
            anew = _packed(whole, sorted(whole, key=lambda i: (i == last, i)), rooms, end)
            growth = [sum(len(d) for i, d in m.items() if h[i] >= end) for m, h in ((made, homes), (whole, anew))]
            if not growth[1] or growth[0] - growth[1] > end // 10:  # moving good segments must be worth it
                made, homes = whole, anew
    if max(homes[i] + len(made[i]) for i in homes) >= 1 << 32 and not tree.big:
        raise RefusedError(f"{tree.path}: would grow beyond the 4 GB of a classic TIFF")
    result = []
    for i, data in made.items():
        if data != tree.data[homes[i] : homes[i] + len(data)]:
            result.append(Patch(homes[i], data))
        offsets[i], counts[i] = homes[i], len(data)
    end = max(end, *(homes[i] + len(made[i]) for i in made))
    for entry, old, new in (
        (raster.offsets_entry, raster.offsets, offsets),
        (raster.counts_entry, raster.counts, counts),
    ):
        if tuple(new) != old:
            writes = tree.renumbered(entry, new, end)
            result += [Patch(place, data) for place, data in writes]
            end = max(end, *(place + len(data) for place, data in writes))
    return result


def _extents(raster: Raster) -> list[tuple[int, int]]:
    """(offset, count) of the segments."""
    return list(zip(raster.offsets, raster.counts, strict=True))


def _packed(made: dict[int, bytes], order: list[int], rooms: list[tuple[int, int]], end: int) -> dict[int, int]:
    """Places for some segments, one after the other: the first room that is large enough, else the end of the file."""
    homes, rooms = {}, list(rooms)
    for i in order:
        need = len(made[i])
        room = next((n for n, (_, size) in enumerate(rooms) if size >= need), None)
        if room is None:
            end += end % 2
            homes[i] = end
            end += need
        else:
            start, size = rooms[room]
            homes[i] = start
            rooms[room] = (start + need, size - need)
    return homes


def _merged(rooms: list[tuple[int, int]], kept: set[int]) -> list[tuple[int, int]]:
    """Free extents with touching ones joined; a place in `kept`, shared with another segment, is no room."""
    out: list[tuple[int, int]] = []
    for start, size in sorted(rooms):
        if start in kept:
            continue
        # A byte of padding between segments joins them, too.
        if out and 0 <= start - (out[-1][0] + out[-1][1]) <= 1:
            out[-1] = (out[-1][0], start + size - out[-1][0])
        elif not out or start >= out[-1][0] + out[-1][1]:
            out.append((start, size))
    return out


def write(source: Path, temporary: Path, changes: Sequence[Patch]) -> None:
    """Copy `source`, unless it is `temporary` itself, and apply the patches."""
    if source != temporary:
        safe.copy(source, temporary)
    with open(temporary, "r+b") as stream:
        for patch in sorted(changes, key=lambda p: p.place):
            stream.seek(patch.place)
            stream.write(patch.data)
