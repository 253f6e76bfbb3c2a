"""Floor 2. Bad pixels in a DNG's OpcodeList1: read as a prior mask, written as an annotation.

Opcode 4 (FixBadPixelsConstant) calls every pixel bad that has one value, opcode
5 (FixBadPixelsList) lists points and rectangles, in coordinates of the full
stored image. Everything is big endian, whatever the file's order (DNG 1.7,
chapter 7). BayerPhase follows Adobe's SDK, not the text of DNG 1.3 and 1.4:
0 GRBG, 1 RGGB, 2 BGGR, 3 GBRG at stored pixel (0, 0).
"""

from __future__ import annotations

import struct

import numpy as np

from ..cfa import BGGR, GBRG, GRBG, RGGB, Cfa
from ..mosaic import Array, Bool

OPCODE_LIST_1 = 51008
CONSTANT, LIST = 4, 5
_VERSION = 0x01030000
_PHASES = (GRBG, RGGB, BGGR, GBRG)


def _split(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """(id, whole opcode, its parameters) of each opcode.

    Raises
    ------
    ValueError
        The list is malformed.
    """
    if len(data) < 4:
        raise ValueError("it is too short")
    found, place = [], 4
    for _ in range(struct.unpack_from(">I", data)[0]):
        if place + 16 > len(data):
            raise ValueError("it is cut off")
        number, _, _, length = struct.unpack_from(">4I", data, place)
        end = place + 16 + length
        if end > len(data):
            raise ValueError("it is cut off")
        found.append((number, data[place:end], data[place + 16 : end]))
        place = end
    if place != len(data):
        raise ValueError("it has bytes left over")
    return found


def _listed(parameters: bytes) -> tuple[Array, Array]:
    """(N, 2) points (row, col) and (M, 4) rectangles (top, left, bottom, right) of opcode 5."""
    if len(parameters) < 12:
        raise ValueError("FixBadPixelsList is too short")
    _, points, areas = struct.unpack_from(">3I", parameters)
    if len(parameters) != 12 + 8 * points + 16 * areas:
        raise ValueError("FixBadPixelsList has the wrong length")
    numbers = np.frombuffer(parameters, ">i4", offset=12).astype(np.int64)
    return numbers[: 2 * points].reshape(-1, 2), numbers[2 * points :].reshape(-1, 4)


def bad_pixels(data: bytes, codes: Array) -> tuple[Bool, int]:
    """What an OpcodeList1 calls bad.

    Parameters
    ----------
    data : bytes
        The tag's value.
    codes : (H, W) array
        Stored codes, before any linearisation.

    Returns
    -------
    (H, W) bool array, and how many points and rectangles lie outside the frame (they are left out)

    Raises
    ------
    ValueError
        The list is malformed.
    """
    bad, outside = np.zeros(codes.shape, bool), 0
    for number, _, parameters in _split(data):
        if number == CONSTANT:
            if len(parameters) != 8:
                raise ValueError("FixBadPixelsConstant has the wrong length")
            bad |= codes == struct.unpack_from(">I", parameters)[0]
        elif number == LIST:
            points, areas = _listed(parameters)
            inside = np.all((points >= 0) & (points < codes.shape), axis=1)
            bad[tuple(points[inside].T)] = True
            outside += int(np.count_nonzero(~inside))
            for top, left, bottom, right in areas.tolist():
                if not (0 <= top < bottom <= codes.shape[0] and 0 <= left < right <= codes.shape[1]):
                    outside += 1
                    continue
                bad[top:bottom, left:right] = True
    return bad, outside


def with_list(data: bytes, bad: Bool, cfa: Cfa) -> bytes:
    """An OpcodeList1 that also lists some pixels.

    Other opcodes stay as they are; the points of a FixBadPixelsList that is there
    already are joined with the new ones. Points are sorted by row and column, as
    Adobe's SDK writes them.

    Parameters
    ----------
    data : bytes
        The list of the file, or empty.
    bad : (H, W) bool array
    cfa : Cfa
        As seen from stored pixel (0, 0).

    Raises
    ------
    ValueError
        No Bayer pattern, or the list of the file is malformed.
    """
    if cfa not in _PHASES:
        raise ValueError(f"FixBadPixelsList knows Bayer patterns only, not {cfa.name}")
    kept, before, areas = [], np.zeros((0, 2), np.int64), np.zeros((0, 4), np.int64)
    for number, whole, parameters in _split(data) if data else []:
        if number == LIST:
            some, more = _listed(parameters)
            before, areas = np.concatenate([before, some]), np.concatenate([areas, more])
        else:
            kept.append(whole)
    points = np.unique(np.concatenate([before, np.argwhere(bad)]), axis=0)
    body = struct.pack(">3I", _PHASES.index(cfa), len(points), len(areas))
    body += points.astype(">i4").tobytes() + areas.astype(">i4").tobytes()
    kept.append(struct.pack(">4I", LIST, _VERSION, 0, len(body)) + body)
    return struct.pack(">I", len(kept)) + b"".join(kept)
