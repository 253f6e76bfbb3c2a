"""Floor 2. DNG frames, rewritten surgically: only the tiles with repaired pixels are encoded again.

Values are our own decode of the stored codes. rawpy would apply the
LinearizationTable, rescale floats and crop margins; none of that may come back
into the file. Of the other tags only those change that follow from the pixels:
segment offsets and counts, NewRawImageDigest, RawImageDigest, RawDataUniqueID.

A LinearizationTable maps stored codes to linear values: the mosaic holds the
linear values, and a repaired value goes back as the nearest code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import RefusedError, UnreadableError
from ..mosaic import Array, Assume, Bool, Edit, Frame, Mosaic
from . import opcodes, segments
from .ifd import Ifd, Tree
from .tiff import conditions_of, describe, identity_of, opened, planes_of, sign

CFA, LINEAR_RAW = 32803, 34892
LUT, LAYOUT, OLD_DIGEST, UNIQUE_ID, NEW_DIGEST = 50712, 50711, 50972, 50781, 51111
_ABSENT = bytes(16)


@dataclass(frozen=True, eq=False)
class Layout:
    """The linearisation table of the file, uint16, or None."""

    table: Array | None


def _raw_ifd(tree: Tree) -> Ifd:
    """The directory of the main raw image: NewSubFileType 0, CFA or LinearRaw."""
    places = [ifd for top in tree.chain for ifd in top.all()]
    for ifd in places:
        if int(tree.number(ifd, 254) or 0) == 0 and int(tree.number(ifd, 262) or 0) in (CFA, LINEAR_RAW):
            return ifd
    raise UnreadableError(f"{tree.path}: holds no raw image")


def is_plain(path: Path) -> bool:
    """True for files whose pixels lie plainly in them."""
    tree = opened(path)
    return segments.mapped(tree, segments.raster_of(tree, _raw_ifd(tree))) is not None


def load(path: Path, assume: Assume) -> Frame:
    """Read the raw image of a DNG; see `fixpix_cli.files.load`."""
    tree = opened(path)
    ifd = _raw_ifd(tree)
    raster = segments.raster_of(tree, ifd)
    if tree.number(ifd, LAYOUT) not in (None, 1.0):
        raise RefusedError(f"{path}: its colour filter array is staggered (CFALayout); fixpix handles rectangular ones")
    table, prior = None, None
    notes: tuple[str, ...] = ()
    if _stored_digest(tree) or LUT in ifd.entries or opcodes.OPCODE_LIST_1 in ifd.entries:
        codes = segments.read(tree, raster, proven=bool(_stored_digest(tree)))
        _check_digest(tree, raster, codes)
        prior, notes = _prior(tree, ifd, codes)
        if LUT in ifd.entries:
            table = np.asarray(tree.values(ifd, LUT), np.uint16)
            codes = table[np.minimum(codes, len(table) - 1)]
        planes = [Mosaic(np.ascontiguousarray(codes[..., channel])) for channel in range(raster.samples)]
    else:  # nothing asks for all of the pixels
        planes = planes_of(tree, raster, raster.samples)
    mosaics = []
    assumed: tuple[str, ...] = ()
    for channel, plane in enumerate(planes):
        mosaic, assumed = describe(tree, ifd, plane, assume, 16 if table is not None else raster.bits, channel)
        mosaics.append(mosaic if table is None else replace(mosaic, limit=float(table.max())))
    keys = tuple(range(len(mosaics)))
    identity, conditions = identity_of(tree, ifd, mosaics, assume), conditions_of(tree, ifd)
    return Frame(
        tuple(mosaics), path, keys, identity, conditions, "dng", assumed=assumed, layout=Layout(table),
        prior=prior, notes=notes,
    )  # fmt: skip


def _prior(tree: Tree, ifd: Ifd, codes: Array) -> tuple[Bool | None, tuple[str, ...]]:
    """The pixels that the file's OpcodeList1 calls bad, and what the user should know of that list."""
    if opcodes.OPCODE_LIST_1 not in ifd.entries or codes.shape[2] != 1:
        return None, ()
    try:
        bad, outside = opcodes.bad_pixels(tree.raw(ifd, opcodes.OPCODE_LIST_1), codes[..., 0])
    except ValueError as error:
        return None, (f"its OpcodeList1 is damaged and was not used ({error})",)
    notes = (f"{outside} entries of its OpcodeList1 lie outside the frame and were left out",) if outside else ()
    return (bad if bad.any() else None), notes


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> None:
    """Copy the DNG and patch the tiles that hold edited pixels, and the tags that follow from them."""
    tree = opened(frame.source)
    raster = segments.raster_of(tree, _raw_ifd(tree))
    table = frame.layout.table
    if table is not None:
        edits = [Edit(e.rows, e.cols, _nearest_code(table, e.values).astype(raster.dtype)) for e in edits]
    digest_now = b""
    samples = _codes(frame) if table is None and raster.compression != segments.NONE else None
    if raster.compression == segments.JXL:
        made = segments.encoded(tree, raster, edits, samples)
        changes = segments.placed(tree, raster, made, repack=True)
        digest_now = _digest_of_streams(tree, raster, made)
    else:
        changes = segments.patches(tree, raster, edits, repack=True, samples=samples)
    if _stored_digest(tree) and not digest_now:
        codes = _codes(frame).copy() if table is None else segments.read(tree, raster)
        for channel, edit in enumerate(edits):
            codes[edit.rows, edit.cols, channel] = edit.values
        digest_now = digest(codes)
    changes += _new_ids(tree, edits, digest_now)
    segments.write(frame.source, temporary, changes)


def _codes(frame: Frame) -> Array:
    """(H, W, S) stored codes of a frame without linearisation table; a view of the samples where there is one plane."""
    planes = [mosaic.samples for mosaic in frame.mosaics]
    return planes[0][..., None] if len(planes) == 1 else np.stack(planes, axis=-1)


def annotate(source: Path, mosaics: Sequence[Mosaic], bad: Bool, temporary: Path) -> None:
    """Copy a DNG (or change it, where `temporary` is `source`) and list bad pixels in its OpcodeList1.

    Parameters
    ----------
    source, temporary : Path
    mosaics : sequence of Mosaic
        The planes of the frame.
    bad : (H, W) bool array
        Of the first and only plane.

    Raises
    ------
    RefusedError
        The opcode is for Bayer mosaics of at most 16-bit integers.
    """
    tree = opened(source)
    ifd = _raw_ifd(tree)
    mosaic = mosaics[0]
    if len(mosaics) != 1 or not mosaic.is_integer or mosaic.samples.dtype.itemsize > 2:
        raise RefusedError(f"{source}: OpcodeList1 can name bad pixels of 16-bit mosaics only; use --dng repair")
    try:
        listed = opcodes.with_list(tree.raw(ifd, opcodes.OPCODE_LIST_1), bad, mosaic.cfa)
    except ValueError as error:
        raise RefusedError(f"{source}: its OpcodeList1 cannot take bad pixels ({error}); use --dng repair") from error
    changes = [segments.Patch(*write) for write in tree.added(ifd, opcodes.OPCODE_LIST_1, 7, listed)]
    segments.write(source, temporary, changes)


def _nearest_code(table: Array, values: Array) -> Array:
    """Codes whose linear value is nearest; the table must rise."""
    wide = table.astype(np.int64)
    if np.any(np.diff(wide) < 0):
        raise RefusedError("its LinearizationTable does not rise; repaired values cannot be coded")
    right = np.clip(np.searchsorted(wide, values), 1, len(wide) - 1)
    left = right - 1
    return np.where(values - wide[left] <= wide[right] - values, left, right)


def digest(codes: Array) -> bytes:
    """NewRawImageDigest of (H, W, S) stored codes.

    MD5 over the MD5s of 256 x 256 tiles, row by row; each tile plane by plane,
    little endian, in its own depth, half floats as float32 (DNG specification 1.7, NewRawImageDigest).
    """
    total = hashlib.md5(usedforsecurity=False)
    little = np.dtype("<f4") if codes.dtype == np.float16 else codes.dtype.newbyteorder("<")
    for top in range(0, codes.shape[0], 256):
        for left in range(0, codes.shape[1], 256):
            tile = codes[top : top + 256, left : left + 256].astype(little, copy=False)
            planar = np.ascontiguousarray(tile.transpose(2, 0, 1))
            total.update(hashlib.md5(planar.tobytes(), usedforsecurity=False).digest())
    return total.digest()


def _digest_of_streams(tree: Tree, raster: segments.Raster, made: dict[int, bytes]) -> bytes:
    """NewRawImageDigest of JPEG XL images: MD5 over the MD5s of the compressed tiles, some of them new."""
    total = hashlib.md5(usedforsecurity=False)
    for index, (start, size) in enumerate(zip(raster.offsets, raster.counts, strict=True)):
        stream = made.get(index) or bytes(tree.data[start : start + size])
        total.update(hashlib.md5(stream, usedforsecurity=False).digest())
    return total.digest()


def _stored_digest(tree: Tree) -> bytes:
    value = tree.raw(tree.chain[0], NEW_DIGEST)
    return b"" if len(value) != 16 or value == _ABSENT else value


def _check_digest(tree: Tree, raster: segments.Raster, codes: Array) -> None:
    stored = _stored_digest(tree)
    if not stored:
        return
    found = _digest_of_streams(tree, raster, {}) if raster.compression == segments.JXL else digest(codes)
    if found != stored:
        raise UnreadableError(f"{tree.path}: is damaged: its pixels do not match its NewRawImageDigest")


def _new_ids(tree: Tree, edits: Sequence[Edit], digest_now: bytes) -> list[segments.Patch]:
    """Patches of the digest and identity tags in IFD 0, where the file has them."""
    first, changes = tree.chain[0], []
    if _stored_digest(tree):
        changes.append(segments.Patch(first.entries[NEW_DIGEST].place, digest_now))
    if OLD_DIGEST in first.entries and first.entries[OLD_DIGEST].size == 16:
        changes.append(segments.Patch(first.entries[OLD_DIGEST].place, _ABSENT))
    if UNIQUE_ID in first.entries and first.entries[UNIQUE_ID].size == 16:
        renewed = hashlib.md5(tree.raw(first, UNIQUE_ID), usedforsecurity=False)
        for edit in edits:
            renewed.update(np.ascontiguousarray(edit.rows).tobytes())
            renewed.update(np.ascontiguousarray(edit.values).tobytes())
        changes.append(segments.Patch(first.entries[UNIQUE_ID].place, renewed.digest()))
    return changes


__all__ = ["annotate", "digest", "is_plain", "load", "rewrite", "sign"]
