"""Floor 2. PNG frames of 8 or 16 bits: gray, or RGB as three mono planes; alpha is no part of the frame.

All pixels of a PNG are one compressed stream, so that a repair encodes the IDAT
chunks anew; every other chunk stays as it was, byte for byte, in its place. The
pixels are decoded and encoded by imagecodecs (libpng). It gets the critical
chunks alone: what gAMA, tRNS or sBIT say is for viewers and changes no sample.

Source: PNG specification, third edition (W3C).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cfa import MONO
from ..errors import RefusedError, UnreadableError
from ..mosaic import Array, Assume, Edit, Frame, Identity, Mosaic

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Colour type -> name, samples per pixel, and how many of them are the image.
_KINDS = {0: ("gray", 1, 1), 2: ("RGB", 3, 3), 3: ("palette", 1, 0), 4: ("gray with alpha", 2, 1), 6: ("RGBA", 4, 3)}
#: Deflate packs no better than 1032 to 1.
_MOST_PER_BYTE = 1040
#: Level of a zlib stream by what it says of itself (RFC 1950, FLEVEL).
_LEVELS = (1, 3, 6, 9)


@dataclass(frozen=True)
class Chunk:
    """One chunk: its name, the place of its first byte in the file, and its data."""

    name: bytes
    place: int
    data: bytes

    def packed(self) -> bytes:
        """Length, name, data and CRC."""
        body = self.name + self.data
        return struct.pack(">I", len(self.data)) + body + struct.pack(">I", zlib.crc32(body))


@dataclass(frozen=True)
class Header:
    """The IHDR chunk: size, bits per sample, colour type, interlaced or not."""

    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool

    @property
    def samples(self) -> int:
        """Per pixel."""
        return _KINDS[self.colour][1]

    @property
    def raw_size(self) -> int:
        """Bytes of the unpacked stream of an image that is not interlaced: each row begins with its filter."""
        return self.height * (1 + self.width * self.samples * self.bits // 8)


def load(path: Path, assume: Assume) -> Frame:
    """Read a PNG; see `fixpix_cli.files.load`."""
    header, chunks, _ = _read(path)
    samples = _decode(path, header, chunks)
    colours = _KINDS[header.colour][2]
    if colours > 1 and assume.cfa is not None:
        raise RefusedError(f"{path}: is an RGB image: it has no colour filter array, leave --cfa out for it")
    assumed = []
    if assume.cfa is None and colours == 1:
        assumed.append("cfa MONO")
    if assume.black is None:
        assumed.append("black 0")
    if assume.white is None:
        assumed.append(f"white {(1 << header.bits) - 1}")
    levels = assume.black or (0.0,)
    black = (levels,) if len(levels) == 1 else (levels[:2], levels[2:])
    white = assume.white or float((1 << header.bits) - 1)
    cfa = assume.cfa or MONO
    mosaics = tuple(Mosaic(np.ascontiguousarray(samples[..., n]), cfa, black, white) for n in range(colours))
    identity = Identity(model=assume.camera or "", shape=mosaics[0].shape, cfa=cfa.name, planes=colours)
    return Frame(mosaics, path, tuple(range(colours)), identity, container="png", assumed=tuple(assumed))


def is_gray(path: Path) -> bool:
    """True for a file that begins like a PNG with one channel and no palette; False where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(26)
    except OSError:
        return False
    return head.startswith(_SIGNATURE) and len(head) == 26 and head[25] == 0


def _read(path: Path) -> tuple[Header, list[Chunk], bytes]:
    """The chunks, each checked by its CRC, and what follows IEND.

    Raises
    ------
    UnreadableError
        Not PNG, damaged or truncated.
    RefusedError
        A kind of PNG that is not handled.
    """
    data = path.read_bytes()
    if not data.startswith(_SIGNATURE):
        raise UnreadableError(f"{path}: is not a PNG file")
    chunks: list[Chunk] = []
    place = len(_SIGNATURE)
    while not chunks or chunks[-1].name != b"IEND":
        if place + 12 > len(data):
            raise UnreadableError(f"{path}: is truncated (its end chunk is missing)")
        size = int.from_bytes(data[place : place + 4], "big")
        end = place + 12 + size
        if end > len(data):
            raise UnreadableError(f"{path}: is truncated (in a chunk of {size} bytes)")
        chunk = Chunk(data[place + 4 : place + 8], place, data[place + 8 : end - 4])
        if chunk.packed()[-4:] != data[end - 4 : end]:
            raise UnreadableError(f"{path}: is damaged (the CRC of chunk {chunk.name.decode('latin-1')!r} is wrong)")
        chunks.append(chunk)
        place = end
    return _header(path, chunks, len(data)), chunks, data[place:]


def _header(path: Path, chunks: Sequence[Chunk], there: int) -> Header:
    names = [chunk.name for chunk in chunks]
    if names[0] != b"IHDR" or len(chunks[0].data) != 13 or b"IDAT" not in names:
        raise UnreadableError(f"{path}: is damaged (it has no image header or no pixels)")
    width, height, bits, colour, packing, filtering, interlace = struct.unpack(">IIBBBBB", chunks[0].data)
    if not width or not height or (packing, filtering) != (0, 0) or interlace > 1 or colour not in _KINDS:
        raise UnreadableError(f"{path}: is damaged (an image of {width} x {height}, colour type {colour})")
    if b"acTL" in names:
        raise RefusedError(f"{path}: is an animated PNG; give its frames as files of their own")
    kind, samples, image = _KINDS[colour]
    if not image or bits not in (8, 16):
        raise RefusedError(f"{path}: is a {kind} PNG of {bits} bits; fixpix handles gray and RGB of 8 or 16 bits")
    header = Header(width, height, bits, colour, bool(interlace))
    if width * height * samples * bits // 8 > there * _MOST_PER_BYTE:
        raise UnreadableError(f"{path}: claims {width} x {height} pixels, too many for a file of {there} bytes")
    return header


def _stream(chunks: Sequence[Chunk]) -> bytes:
    """The compressed pixels."""
    return b"".join(chunk.data for chunk in chunks if chunk.name == b"IDAT")


def _decode(path: Path, header: Header, chunks: Sequence[Chunk]) -> Array:
    """(H, W, S) uint8 or uint16 samples.

    Raises
    ------
    UnreadableError
        The stream is damaged, ends early, or holds another number of pixels.
    """
    import imagecodecs

    stream = _stream(chunks)
    _check_stream(path, header, stream)
    bare = [chunks[0], Chunk(b"IDAT", 0, stream), Chunk(b"IEND", 0, b"")]
    try:
        values = np.asarray(imagecodecs.png_decode(_SIGNATURE + b"".join(chunk.packed() for chunk in bare)))
    except (ValueError, RuntimeError, TypeError) as error:
        raise UnreadableError(f"{path}: its pixels cannot be decoded ({error})") from error
    return values.reshape(header.height, header.width, header.samples)


def _check_stream(path: Path, header: Header, stream: bytes) -> None:
    """Unpack the stream piece by piece: it has to end, and to be as long as the image."""
    unpacker = zlib.decompressobj()
    size = 0
    try:
        while stream and not unpacker.eof:
            piece = unpacker.decompress(stream, 1 << 20)
            size, stream = size + len(piece), unpacker.unconsumed_tail
            if size > 2 * header.raw_size + 1024:
                raise UnreadableError(f"{path}: is damaged (more pixels than its header says)")
    except zlib.error as error:
        raise UnreadableError(f"{path}: its pixels cannot be decoded ({error})") from error
    if not unpacker.eof or (not header.interlaced and size != header.raw_size):
        raise UnreadableError(f"{path}: is truncated (pixels are missing)")


def rewrite(frame: Frame, edits: Sequence[Edit], temporary: Path) -> None:
    """Write the file again with new IDAT chunks in the place of the old ones."""
    import imagecodecs

    path = frame.source
    header, chunks, rest = _read(path)
    if header.interlaced:
        raise RefusedError(
            f"{path}: is interlaced; a repair would change how it is stored: save it without interlacing"
        )
    samples = _decode(path, header, chunks)
    for number, edit in enumerate(edits):
        samples[edit.rows, edit.cols, number] = edit.values
    old = _stream(chunks)
    level = _LEVELS[old[1] >> 6]
    values = samples[..., 0] if header.samples == 1 else samples
    made = imagecodecs.png_encode(np.ascontiguousarray(values), level=level)
    fresh = _split(bytes(made))
    if fresh[0].data != chunks[0].data or not np.array_equal(_decode(path, header, fresh), samples):
        raise RefusedError(f"{path}: its pixels do not survive encoding; nothing was written")
    first = next(n for n, chunk in enumerate(chunks) if chunk.name == b"IDAT")
    kept = [chunk for chunk in chunks if chunk.name != b"IDAT"]
    kept[first:first] = _pieces(_stream(fresh), len(chunks[first].data))
    temporary.write_bytes(_SIGNATURE + b"".join(chunk.packed() for chunk in kept) + rest)


def _split(data: bytes) -> list[Chunk]:
    """The chunks of a PNG that has just been encoded."""
    chunks, place = [], len(_SIGNATURE)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        chunks.append(Chunk(data[place + 4 : place + 8], place, data[place + 8 : end - 4]))
        place = end
    return chunks


def _pieces(stream: bytes, size: int) -> list[Chunk]:
    """IDAT chunks of the length that the file had before."""
    size = max(size, 8192)
    return [Chunk(b"IDAT", 0, stream[start : start + size]) for start in range(0, len(stream), size)]


def sign(path: Path, provenance: Any) -> bool:
    """Add a tEXt chunk with the keyword Software before the end."""
    _, chunks, rest = _read(path)
    text = Chunk(b"tEXt", 0, b"Software\0" + str(provenance).encode("latin-1", "replace"))
    with open(path, "r+b") as stream:
        stream.seek(chunks[-1].place)
        stream.write(text.packed() + chunks[-1].packed() + rest)
    return True
