"""Floor 2. What lossless JPEG and JPEG XL streams say of themselves, read without decoding them.

Codecs believe their input: libjpeg-turbo fills a truncated lossless tile with
wrong pixels and reports success, and a header can claim any size. So the size
is read here before anything is allocated, and `check_ljpeg` counts the bits
that the decoded pixels need against the bits that the stream has.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from ..mosaic import Array

#: Bits of the magnitude of a 16-bit difference d, by ``d & 0xFFFF`` (ITU-T T.81, table H.2).
_CATEGORY = np.frexp(np.minimum(np.arange(65536), np.arange(65536, 0, -1)))[1].astype(np.uint8)
#: Bytes that an encoder may leave unused after the last pixel.
_SLACK = 32
#: Bits of what has no code.
_NO_CODE = 255


class LossyError(ValueError):
    """The stream is a lossy one."""


@dataclass(frozen=True, eq=False)
class Ljpeg:
    """Header of a lossless JPEG stream (ITU-T T.81, annexes B and H).

    precision in bits; height, width, components; predictor 1 to 7; shift: point
    transform; restart: samples between restart markers, 0 without; lengths and codes:
    (17,) of the Huffman codes by category for each component; start: of the entropy coded data.
    """

    precision: int
    height: int
    width: int
    components: int
    predictor: int
    shift: int
    restart: int
    lengths: tuple[Array, ...]
    codes: tuple[Array, ...]
    start: int


def ljpeg_header(data: bytes) -> Ljpeg:
    """Read the markers up to the scan.

    Raises
    ------
    LossyError
        A baseline, extended or progressive frame.
    ValueError
        No lossless JPEG, or a damaged one.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError("no JPEG")
    place, restart = 2, 0
    frame: tuple[int, ...] = ()
    names: list[int] = []
    tables: dict[int, tuple[Array, Array]] = {}
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            raise ValueError("damaged JPEG markers")
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        length = struct.unpack_from(">H", data, place + 2)[0]
        body = data[place + 4 : place + 2 + length]
        if length < 2 or len(body) < length - 2:
            raise ValueError("truncated JPEG")
        if marker in (0xC0, 0xC1, 0xC2):
            raise LossyError("lossy JPEG")
        if marker == 0xC4:
            tables |= _huffman(body)
        elif marker == 0xDD and len(body) >= 2:
            restart = struct.unpack_from(">H", body)[0]
        elif marker == 0xC3:
            if len(body) < 6 or len(body) < 6 + 3 * body[5]:
                raise ValueError("truncated JPEG")
            frame = struct.unpack_from(">BHHB", body)
            names = [body[6 + 3 * n] for n in range(frame[3])]
            if any(body[7 + 3 * n] != body[7] for n in range(frame[3])):
                raise ValueError("JPEG with subsampled components")
        elif marker == 0xDA:
            return _scan(body, frame, names, tables, restart, place + 2 + length)
        place += 2 + length
    raise ValueError("truncated JPEG")


def _huffman(body: bytes) -> dict[int, tuple[Array, Array]]:
    """Lengths and codes by category of the tables in a DHT segment (T.81, annex C)."""
    tables, place = {}, 0
    while place + 17 <= len(body):
        counts = body[place + 1 : place + 17]
        symbols = body[place + 17 : place + 17 + sum(counts)]
        lengths, codes = np.zeros((2, 256), np.int64)
        code, last = 0, 0
        for symbol, length in zip(symbols, np.repeat(np.arange(1, 17), list(counts)).tolist(), strict=False):
            code <<= length - last
            lengths[symbol], codes[symbol] = length, code & 0xFFFF
            code, last = code + 1, length
        tables[body[place]] = lengths[:17], codes[:17]
        place += 17 + sum(counts)
    return tables


def _scan(
    body: bytes,
    frame: tuple[int, ...],
    names: list[int],
    tables: dict[int, tuple[Array, Array]],
    restart: int,
    start: int,
) -> Ljpeg:
    if not frame:
        raise ValueError("JPEG without a frame header")
    count = body[0] if body else 0
    if count != frame[3] or not 1 <= count <= 4 or len(body) < 4 + 2 * count:
        raise ValueError("JPEG in several scans")
    chosen = {body[1 + 2 * n]: body[2 + 2 * n] >> 4 for n in range(count)}
    if any(name not in chosen or chosen[name] not in tables for name in names):
        raise ValueError("JPEG without its Huffman tables")
    predictor, shift = body[1 + 2 * count], body[3 + 2 * count] & 15
    if not 1 <= predictor <= 7:
        raise ValueError(f"JPEG predictor {predictor}")
    precision, height, width, _ = frame
    lengths, codes = (tuple(tables[chosen[name]][part] for name in names) for part in (0, 1))
    return Ljpeg(precision, height, width, count, predictor, shift, restart, lengths, codes, start)


def check_ljpeg(data: bytes, header: Ljpeg, pixels: Array) -> None:
    """Prove that the stream holds the decoded pixels: the bits they need are the bits that are there.

    Parameters
    ----------
    data : bytes
    header : Ljpeg
    pixels : (height, width, components) uint8 or uint16 array

    Raises
    ------
    ValueError
        The entropy coded data are too short or too long for these pixels.
    """
    end = end_of(data, header)
    if header.restart:
        return  # differences then start anew within the tile; no camera writes that
    needed = costs(differences(pixels, header), header)
    if needed is None:
        raise ValueError("damaged JPEG, its pixels need codes that it does not have")
    coded = end - header.start - data.count(b"\xff\0", header.start, end)
    if not fits(coded, needed):
        raise ValueError("truncated or damaged JPEG, its pixels do not match its length")


def end_of(data: bytes, header: Ljpeg) -> int:
    """Where the end marker stands.

    Raises
    ------
    ValueError
        It is missing.
    """
    end = data.rfind(b"\xff\xd9")
    if end < header.start:
        raise ValueError("truncated JPEG, its end marker is missing")
    return end


def fits(coded: int, needed: Array) -> bool:
    """Whether so many bytes, without those that follow a byte of 255, hold codes of these (H, W, C) bits."""
    return 0 <= coded - (int(needed.sum(dtype=np.int64)) + 7) // 8 <= _SLACK


def costs(values: Array, header: Ljpeg) -> Array | None:
    """(H, W, C) uint8 bits that the (H, W, C) prediction errors take; None where one has no code."""
    extra = np.arange(17)
    extra[16] = 0  # the one difference of 32768 needs no further bits
    by_category = [np.where(lengths > 0, lengths + extra, _NO_CODE).astype(np.uint8) for lengths in header.lengths]
    category = _CATEGORY.take(values, mode="wrap")  # the fastest way: every index is within
    if all(np.array_equal(one, by_category[0]) for one in by_category):
        out = by_category[0].take(category, mode="wrap")
    else:
        out = np.stack([one.take(category[..., n], mode="wrap") for n, one in enumerate(by_category)], axis=-1)
    return None if int(out.max()) == _NO_CODE else out


def differences(pixels: Array, header: Ljpeg) -> Array:
    """(H, W, C) uint16 prediction errors modulo 2^16 (T.81, table H.1)."""
    pixels = pixels.astype(np.uint16, copy=False)
    left, above, corner = pixels[1:, :-1], pixels[:-1, 1:], pixels[:-1, :-1]
    out = np.empty_like(pixels)
    out[0, 0] = pixels[0, 0] - np.uint16(1 << (header.precision - 1))
    out[0, 1:] = pixels[0, 1:] - pixels[0, :-1]
    out[1:, 0] = pixels[1:, 0] - pixels[:-1, 0]
    if header.predictor <= 3:
        guess = (left, above, corner)[header.predictor - 1]
    elif header.predictor == 4:
        guess = left + above - corner
    else:
        a, b, c = (part.astype(np.int32) for part in (left, above, corner))
        wide = (a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)[header.predictor - 5]
        guess = wide.astype(np.uint16)
    np.subtract(pixels[1:, 1:], guess, out=out[1:, 1:])
    return out


@dataclass(frozen=True)
class Jxl:
    """Header of a JPEG XL image: size in pixels, bits per sample, float or not, coded in XYB (lossy) or not."""

    height: int
    width: int
    bits: int
    is_float: bool
    xyb: bool


def jxl_header(data: bytes) -> Jxl:
    """Read the size and the sample format (ISO/IEC 18181-1, annexes A and D; 18181-2 for the boxes).

    Raises
    ------
    ValueError
        No JPEG XL, or one with a preview, animation or extra channels.
    """
    bits = _Bits(_codestream(data))
    if bits.take(16) != 0x0AFF:
        raise ValueError("no JPEG XL")
    height, width = _jxl_size(bits)
    if bits.take(1):  # all defaults: 8 bits, XYB
        return Jxl(height, width, 8, False, True)
    if bits.take(1):
        orientation = bits.take(3)
        if bits.take(1):
            _jxl_size(bits)
        if orientation or bits.take(1) or bits.take(1):
            raise ValueError("JPEG XL with orientation, preview or animation")
    is_float = bool(bits.take(1))
    depth = bits.choose(((32, 0), (16, 0), (24, 0), (1, 6)) if is_float else ((8, 0), (10, 0), (12, 0), (1, 6)))
    if is_float:
        bits.take(4)
    bits.take(1)
    if bits.choose(((0, 0), (1, 0), (2, 4), (1, 12))):
        raise ValueError("JPEG XL with extra channels")
    return Jxl(height, width, depth, is_float, bool(bits.take(1)))


def _jxl_size(bits: _Bits) -> tuple[int, int]:
    small = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if small else bits.choose(((1, 9), (1, 13), (1, 18), (1, 30)))

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return height, side()
    above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height, height * above // below


def _codestream(data: bytes) -> bytes:
    """The start of the codestream, out of its boxes where it has some."""
    if data[:2] == b"\xff\x0a":
        return data[:64]
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1 and place + 16 <= len(data):
            size, head = struct.unpack_from(">Q", data, place + 8)[0], 16
        if kind in (b"jxlc", b"jxlp"):
            start = place + head + (4 if kind == b"jxlp" else 0)
            return data[start : start + 64]
        if size < head:
            break
        place += size
    raise ValueError("no JPEG XL")


class _Bits:
    """Bits of some bytes, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        """The next `count` bits as a number."""
        if count > self.left:
            raise ValueError("truncated JPEG XL")
        found = self.value & ((1 << count) - 1)
        self.value >>= count
        self.left -= count
        return found

    def choose(self, ways: tuple[tuple[int, int], ...]) -> int:
        """A number in one of four (offset, bits) forms."""
        offset, count = ways[self.take(2)]
        return offset + self.take(count)
