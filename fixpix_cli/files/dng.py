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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import RefusedError, UnreadableError
from ..mosaic import Array, Assume, Edit, Frame
from . import segments
from .ifd import Ifd, Tree
from .tiff import conditions_of, describe, identity_of, opened, sign

CFA, LINEAR_RAW = 32803, 34892
LUT, DIGEST, OLD_DIGEST, UNIQUE_ID, NEW_DIGEST = 50712, 51111, 50972, 50781, 51111
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


def load(path: Path, assume: Assume) -> Frame:
    """Read the raw image of a DNG; see `fixpix_cli.files.load`."""
    tree = opened(path)
    ifd = _raw_ifd(tree)
    raster = segments.raster_of(tree, ifd)
    codes = segments.read(tree, raster)
    _check_digest(tree, codes)
    table = None
    if LUT in ifd.entries:
        table = np.asarray(tree.values(ifd, LUT), np.uint16)
        codes = table[np.minimum(codes, len(table) - 1)]
    mosaics = []
    assumed: tuple[str, ...] = ()
    for channel in range(raster.samples):
        samples = np.ascontiguousarray(codes[..., channel])
        mosaic, assumed = describe(tree, ifd, samples, assume, 16 if table is not None else raster.bits, channel)
        mosaics.append(mosaic)
    keys = tuple(range(len(mosaics)))
    identity, conditions = identity_of(tree, ifd, mosaics, assume), conditions_of(tree, ifd)
    return Frame(tuple(mosaics), path, keys, identity, conditions, "dng", assumed=assumed, layout=Layout(table))


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> None:
    """Copy the DNG and patch the tiles that hold edited pixels, and the tags that follow from them."""
    tree = opened(frame.source)
    ifd = _raw_ifd(tree)
    raster = segments.raster_of(tree, ifd)
    table = frame.layout.table
    if table is not None:
        edits = [Edit(e.rows, e.cols, _nearest_code(table, e.values).astype(raster.dtype)) for e in edits]
    changes = segments.patches(tree, raster, edits)
    changes += _new_ids(tree, raster, edits)
    segments.write(frame.source, temporary, changes)


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
    little endian, in its own depth (DNG specification 1.7, NewRawImageDigest).
    """
    total = hashlib.md5(usedforsecurity=False)
    little = codes.dtype.newbyteorder("<")
    for top in range(0, codes.shape[0], 256):
        for left in range(0, codes.shape[1], 256):
            tile = codes[top : top + 256, left : left + 256].astype(little, copy=False)
            planar = np.ascontiguousarray(tile.transpose(2, 0, 1))
            total.update(hashlib.md5(planar.tobytes(), usedforsecurity=False).digest())
    return total.digest()


def _stored_digest(tree: Tree) -> bytes:
    value = tree.raw(tree.chain[0], NEW_DIGEST)
    return b"" if len(value) != 16 or value == _ABSENT else value


def _check_digest(tree: Tree, codes: Array) -> None:
    stored = _stored_digest(tree)
    if stored and codes.dtype.kind == "u" and digest(codes) != stored:
        raise UnreadableError(f"{tree.path}: is damaged: its pixels do not match its NewRawImageDigest")


def _new_ids(tree: Tree, raster: segments.Raster, edits: Sequence[Edit]) -> list[segments.Patch]:
    """Patches of the digest and identity tags in IFD 0, where the file has them."""
    first, changes = tree.chain[0], []
    if _stored_digest(tree):
        codes = segments.read(tree, raster)
        for channel, edit in enumerate(edits):
            codes[edit.rows, edit.cols, channel] = edit.values
        changes.append(segments.Patch(first.entries[NEW_DIGEST].place, digest(codes)))
    if OLD_DIGEST in first.entries and first.entries[OLD_DIGEST].size == 16:
        changes.append(segments.Patch(first.entries[OLD_DIGEST].place, _ABSENT))
    if UNIQUE_ID in first.entries and first.entries[UNIQUE_ID].size == 16:
        renewed = hashlib.md5(tree.raw(first, UNIQUE_ID), usedforsecurity=False)
        for edit in edits:
            renewed.update(np.ascontiguousarray(edit.rows).tobytes())
            renewed.update(np.ascontiguousarray(edit.values).tobytes())
        changes.append(segments.Patch(first.entries[UNIQUE_ID].place, renewed.digest()))
    return changes


__all__ = ["digest", "load", "rewrite", "sign"]
