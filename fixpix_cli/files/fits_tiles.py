"""Floor 2. Tile-compressed FITS: encode again the tiles that hold repaired pixels, and nothing else.

A compressed image is a binary table: one row per tile, in it a descriptor
(length, offset) of the tile's bytes in the heap behind the table (FITS
standard 4.0, section 10). A new tile goes to its old place if it fits there,
else into room that other changed tiles left, else to the end of the heap,
whose padding often has the room. All other tiles stay where they are.

PLIO holds no negative numbers: cfitsio puts unsigned 16-bit values into it as
they are, without the offset of BZERO that the other codecs have (see
`fits.load`).
"""

from __future__ import annotations

import gzip
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RefusedError, UnreadableError
from ..mosaic import Array
from . import fits_cards, fits_io

_ITEM = {"B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "A": 1, "L": 1}
_KINDS = {"RICE_ONE": "RICE_1"}
_GZIP_LEVEL = 6


@dataclass(frozen=True)
class Column:
    """A variable-length column: name, number, byte in the row, descriptor dtype, bytes per element."""

    name: str
    number: int
    start: int
    descriptor: str
    item: int


@dataclass(frozen=True, eq=False)
class Table:
    """What the header of a compressed image says of its table and its tiles."""

    kind: str
    bitpix: int
    shape: tuple[int, ...]
    tile: tuple[int, ...]
    row: int
    rows: int
    heap: int
    size: int
    columns: tuple[Column, ...]
    quantised: bool
    settings: dict[str, float]

    @property
    def grid(self) -> tuple[int, ...]:
        """Tiles along each axis, slowest first."""
        return tuple(-(-n // t) for n, t in zip(self.shape, self.tile, strict=True))

    @property
    def lossy(self) -> str:
        """Why the codec does not give values back exactly; empty if it does."""
        if self.quantised:
            return "its floats are quantised"
        if self.kind == "HCOMPRESS_1" and self.settings.get("SCALE", 0) > 0:
            return "HCOMPRESS_1 with a scale above 0"
        return ""

    def slices(self, tile: int) -> tuple[slice, ...]:
        """Where a tile lies in the image."""
        at = np.unravel_index(tile, self.grid)
        return tuple(
            slice(int(i) * t, min((int(i) + 1) * t, n)) for i, t, n in zip(at, self.tile, self.shape, strict=True)
        )


def table_of(header: Any) -> Table:
    """Read the table's header (not the image's)."""
    naxis = int(header["ZNAXIS"])
    shape = tuple(int(header[f"ZNAXIS{n}"]) for n in range(naxis, 0, -1))
    default = [1] * (naxis - 1) + [shape[-1]]
    tile = tuple(int(header.get(f"ZTILE{n}", default[naxis - n])) for n in range(naxis, 0, -1))
    columns, start = [], 0
    for number in range(1, int(header["TFIELDS"]) + 1):
        form = re.match(r"\s*(\d*)([A-Z])([A-Z]?)", str(header[f"TFORM{number}"]))
        if form is None:
            raise ValueError(f"TFORM{number} cannot be read")
        repeat = int(form[1] or 1)
        if form[2] in "PQ":
            dtype = ">i4" if form[2] == "P" else ">i8"
            name = str(header[f"TTYPE{number}"]).strip().upper()
            columns.append(Column(name, number, start, dtype, _ITEM[form[3]]))
            start += repeat * 2 * np.dtype(dtype).itemsize
        else:
            start += (
                -(-repeat // 8) if form[2] == "X" else repeat * {"C": 8, "M": 16}.get(form[2], _ITEM.get(form[2], 1))
            )
    settings = {}
    for number in itertools.count(1):
        if f"ZNAME{number}" not in header:
            break
        settings[str(header[f"ZNAME{number}"]).strip().upper()] = float(header[f"ZVAL{number}"])
    kind = str(header["ZCMPTYPE"]).strip().upper()
    names = [str(header.get(f"TTYPE{n}", "")).strip().upper() for n in range(1, int(header["TFIELDS"]) + 1)]
    row, rows = int(header["NAXIS1"]), int(header["NAXIS2"])
    return Table(
        kind=_KINDS.get(kind, kind),
        bitpix=int(header["ZBITPIX"]),
        shape=shape,
        tile=tile,
        row=row,
        rows=rows,
        heap=int(header.get("THEAP", row * rows)),
        size=row * rows + int(header["PCOUNT"]),
        columns=tuple(columns),
        quantised=int(header["ZBITPIX"]) < 0
        and ("ZSCALE" in names or "ZSCALE" in header or not kind.startswith(("GZIP", "NOCOMPRESS"))),
        settings=settings,
    )


class _Rows:
    """The descriptors in a table's bytes."""

    def __init__(self, table: Table, data: bytearray) -> None:
        self.table, self.data = table, data

    def get(self, column: Column, tile: int) -> tuple[int, int]:
        """Elements and heap offset of a tile."""
        at = tile * self.table.row + column.start
        count, offset = np.frombuffer(self.data, column.descriptor, 2, at)
        return int(count), int(offset)

    def put(self, column: Column, tile: int, count: int, offset: int) -> None:
        at = tile * self.table.row + column.start
        pair = np.array([count, offset])
        if offset > np.iinfo(column.descriptor).max:
            raise RefusedError("the compressed heap is too large for its 32-bit descriptors")
        packed = pair.astype(column.descriptor).tobytes()
        self.data[at : at + len(packed)] = packed

    def extents(self) -> tuple[Array, Array]:
        """(N,) start and end of all tiles' bytes in the heap, those without bytes left out."""
        starts, ends = [], []
        for column in self.table.columns:
            rows = np.frombuffer(self.data, np.uint8, self.table.rows * self.table.row)
            width = 2 * np.dtype(column.descriptor).itemsize
            cells = rows.reshape(self.table.rows, self.table.row)[:, column.start : column.start + width]
            pairs = np.ascontiguousarray(cells).view(column.descriptor).astype(np.int64)
            some = pairs[:, 0] > 0
            starts.append(pairs[some, 1])
            ends.append(pairs[some, 1] + pairs[some, 0] * column.item)
        return np.concatenate(starts), np.concatenate(ends)


def rewrite(path: Path, place: fits_io.Place, values: Array, changed: Array, source: Path) -> bool:
    """Put new values into a compressed image of the unpacked file at `path`.

    Parameters
    ----------
    place : Place
        Of the image's table.
    values : array of the image's shape
        The stored codes after the repair, in native byte order.
    changed : (N,) int64 array
        Flat indices of the pixels that changed.
    source : Path
        The file's name for messages.

    Returns
    -------
    bool
        False, and nothing is written, if a changed tile is compressed with loss.

    Raises
    ------
    RefusedError
        The codec cannot hold the new values.
    UnreadableError
        The table is damaged.
    """
    try:
        table = table_of(place.header)
    except (KeyError, ValueError, TypeError) as error:
        raise UnreadableError(f"{source}: its table of tiles is damaged ({fits_io.first_line(error)})") from error
    with open(path, "rb") as stream:
        stream.seek(place.head)
        header = bytearray(stream.read(place.data - place.head))
        data = bytearray(stream.read(place.span))
        tail = place.data + place.span
    if len(data) < table.size or math.prod(table.grid) != table.rows or not table.columns:
        raise UnreadableError(f"{source}: its table of tiles is damaged")
    at = np.unravel_index(changed, table.shape)
    index = np.ravel_multi_index([a // t for a, t in zip(at, table.tile, strict=True)], table.grid)
    rows, tiles = _Rows(table, data), np.unique(index).tolist()
    homes = {tile: _home(table, rows, tile, source) for tile in tiles}
    if table.lossy and any(column.name == "COMPRESSED_DATA" for column in homes.values()):
        return False
    new = _encode(table, values, homes, source)
    grown = _place(table, rows, homes, new)
    _settle(header, table, homes, new, grown)
    padded = bytes(rows.data[:grown]) + b"\0" * (-grown % fits_cards.BLOCK)
    if grown <= table.size:
        padded = bytes(rows.data)  # the padding stays as it was, too
    _renew_original_sums(header, values, table)
    _write(path, place, bytes(header), padded, tail)
    return True


def _home(table: Table, rows: _Rows, tile: int, source: Path) -> Column:
    """The column in which a tile's bytes are."""
    for column in table.columns:
        if column.name in ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA"):
            count, offset = rows.get(column, tile)
            if count > 0:
                if offset < 0 or table.heap + offset + count * column.item > table.size:
                    raise UnreadableError(f"{source}: a compressed tile lies outside the file's heap")
                return column
    raise UnreadableError(f"{source}: a compressed tile is missing")


def _encode(table: Table, values: Array, homes: dict[int, Column], source: Path) -> dict[int, bytes]:
    """The new bytes of the changed tiles."""
    new: dict[int, bytes] = {}
    waiting: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for tile, column in homes.items():
        pixels = values[table.slices(tile)]
        kind = {"GZIP_COMPRESSED_DATA": "GZIP_1", "UNCOMPRESSED_DATA": "NOCOMPRESS"}.get(column.name, table.kind)
        big = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">"), copy=False))
        if kind == "NOCOMPRESS":
            new[tile] = big.tobytes()
        elif kind == "GZIP_1":
            new[tile] = gzip.compress(big.tobytes(), _GZIP_LEVEL, mtime=0)
        elif kind == "GZIP_2":
            shuffled = big.reshape(-1).view(np.uint8).reshape(-1, big.dtype.itemsize).T
            new[tile] = gzip.compress(shuffled.tobytes(), _GZIP_LEVEL, mtime=0)
        elif kind in ("RICE_1", "PLIO_1", "HCOMPRESS_1"):
            waiting[pixels.shape].append(tile)
        else:
            raise RefusedError(f"{source}: tiles compressed by {table.kind} cannot be rewritten; funpack it first")
    for shape, tiles in waiting.items():
        new.update(zip(tiles, _by_codec(table, [values[table.slices(t)] for t in tiles], shape, source), strict=True))
    return new


def _by_codec(table: Table, tiles: Sequence[Array], shape: tuple[int, ...], source: Path) -> list[bytes]:
    two_axes = tuple(n for n in shape if n != 1)
    flat = two_axes if table.kind == "HCOMPRESS_1" else (1, math.prod(shape))
    dtype = np.dtype(np.int32 if table.kind == "PLIO_1" else tiles[0].dtype)
    if table.kind == "RICE_1":
        if table.settings.get("BLOCKSIZE", 32) != 32:
            raise RefusedError(f"{source}: RICE_1 in blocks other than 32 cannot be rewritten; funpack it first")
        dtype = np.dtype({1: np.uint8, 2: np.int16, 4: np.int32}[int(table.settings.get("BYTEPIX", 4))])
    if table.kind == "PLIO_1" and min(int(tile.min()) for tile in tiles) < 0:
        raise RefusedError(f"{source}: PLIO_1 holds no negative numbers, a repair would need one; funpack it first")
    try:
        return fits_io.encoded(table.kind, [tile.astype(dtype).reshape(flat) for tile in tiles])
    except ValueError as error:
        raise RefusedError(f"{source}: its tiles cannot be compressed by {table.kind} again ({error})") from error


def _place(table: Table, rows: _Rows, homes: dict[int, Column], new: dict[int, bytes]) -> int:
    """Write the new bytes into the heap and their places into the rows; the data's new size."""
    free = _free(rows, homes)
    end = table.size - table.heap
    waiting = []
    for tile, column in homes.items():
        if tile in free and len(new[tile]) <= free[tile][1]:
            start, room = free.pop(tile)
            _put(table, rows, column, tile, new[tile], start)
            free[~tile] = (start + len(new[tile]), room - len(new[tile]))
        else:
            waiting.append(tile)
    for tile in waiting:
        size = len(new[tile])
        fitting = [(room, start, key) for key, (start, room) in free.items() if room >= size]
        if fitting:
            room, start, key = min(fitting)
            free[key] = (start + size, room - size)
        else:
            start, end = end, end + size
        _put(table, rows, homes[tile], tile, new[tile], start)
    return table.heap + end


def _free(rows: _Rows, homes: dict[int, Column]) -> dict[int, tuple[int, int]]:
    """Start and length of each changed tile's old bytes, those that another tile shares left out."""
    starts, ends = rows.extents()
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    before = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]])
    after = np.append(starts[1:], np.iinfo(np.int64).max)
    alone = {int(s): bool(b <= s and e <= a) for s, e, b, a in zip(starts, ends, before, after, strict=True)}
    free = {}
    for tile, column in homes.items():
        count, offset = rows.get(column, tile)
        if alone[offset]:
            free[tile] = (offset, count * column.item)
    return free


def _put(table: Table, rows: _Rows, column: Column, tile: int, data: bytes, start: int) -> None:
    at = table.heap + start
    if len(rows.data) < at + len(data):
        rows.data.extend(b"\0" * (at + len(data) - len(rows.data)))
    rows.data[at : at + len(data)] = data
    rows.put(column, tile, len(data) // column.item, start)


def _settle(header: bytearray, table: Table, homes: dict[int, Column], new: dict[int, bytes], size: int) -> None:
    """PCOUNT, and the greatest length that a TFORM states, where they grew."""
    if size > table.size and (card := fits_cards.find(header, "PCOUNT")) is not None:
        fits_cards.replace_integer(header, card, size - table.row * table.rows)
    longest: dict[Column, int] = defaultdict(int)
    for tile, column in homes.items():
        longest[column] = max(longest[column], len(new[tile]) // column.item)
    for column, most in longest.items():
        card = fits_cards.find(header, f"TFORM{column.number}")
        if card is None:
            continue
        stated = re.search(rb"'([^'(]*)\((\d+)\)", bytes(header[card : card + 80]))
        if stated and int(stated[2]) < most:
            fits_cards.replace_string(header, card, f"{stated[1].decode('latin-1')}({most})")


def _renew_original_sums(header: bytearray, values: Array, table: Table) -> None:
    """ZDATASUM and ZHECKSUM: those of the image that funpack will make, where the file states them."""
    summed, checked = fits_cards.find(header, "ZDATASUM"), fits_cards.find(header, "ZHECKSUM")
    if summed is None:
        return
    old = re.search(rb"=\s*'?\s*(\d+)", bytes(header[summed : summed + 80]))
    total = original_sum(values, table)
    before = bytes(header[summed : summed + 80])
    fits_cards.replace_string(header, summed, str(total))
    if checked is None or old is None:
        return
    letters = re.search(rb"'([^']{16})'", bytes(header[checked : checked + 80]))
    if letters is None:
        return
    # The unpacked header is not at hand; but what changes in it is the DATASUM card alone.
    after = bytes(header[summed : summed + 80])
    most = 0xFFFFFFFF
    rest = fits_cards.decode_checksum(letters[1].decode("latin-1"))
    change = total - int(old[1]) + fits_cards.ones_complement(after) - fits_cards.ones_complement(before)
    fits_cards.replace_string(header, checked, fits_cards.encode_checksum((rest + change) % most))


def original_sum(values: Array, table: Table) -> int:
    """DATASUM of the image without compression: big-endian values, padded to a block."""
    if table.kind == "PLIO_1" and values.dtype == np.uint16:
        values = values ^ np.uint16(0x8000)
    return fits_cards.ones_complement(values.astype(values.dtype.newbyteorder(">")).tobytes())


def _write(path: Path, place: fits_io.Place, header: bytes, data: bytes, tail: int) -> None:
    """Replace one HDU of a file; what follows moves if the size changed."""
    with open(path, "r+b") as stream:
        stream.seek(tail)
        rest = stream.read()
        stream.seek(place.head)
        stream.write(header + data + rest)
        stream.truncate()
        fits_cards.renew_checksums(stream, place.head, place.head + len(header), len(data))


def unpack(path: Path, place: fits_io.Place, index: int, values: Array) -> None:
    """Replace a compressed image by a plain one of the same header."""
    header = fits_io.image_header(path, index)
    data = values.astype(values.dtype.newbyteorder(">")).tobytes()
    _write(path, place, header, data + b"\0" * (-len(data) % fits_cards.BLOCK), place.data + place.span)
