"""Floor 2. Lossless JPEG with other values for a few pixels: their codes are exchanged, all others keep their bits.

A sample is coded as its difference from what its neighbours predict (ITU-T T.81, annex H): another value changes its
own code and those of the one to three samples that it helps to predict. With the decoded pixels at hand the place of
every code in the stream is known, so nothing need be decoded or encoded. A tile of 256 x 256 takes a third of the
time of encoding it again (``python tests/bench/speed.py --rows stages``).
"""

from __future__ import annotations

import numpy as np

from ..mosaic import Array
from .jpegs import Ljpeg, costs, differences, end_of, fits

#: With more changed codes than one in so many the tile is rather encoded again.
_MANY = 16


def spliced(data: bytes, header: Ljpeg, before: Array, after: Array) -> bytes | None:
    """The stream of `before` as one of `after`; None where that does not go.

    It does not go where a new difference has no code in the stream's tables or needs more bits than its precision,
    with restart markers, where many pixels change, or where the stream is not what `before` should have given.

    Parameters
    ----------
    data : bytes
    header : Ljpeg
        Of `data`.
    before, after : (height, width, components) uint8 or uint16 arrays
        What `data` decodes to, and what the result shall.
    """
    if header.restart or int(after.max()) >> header.precision:
        return None
    end = end_of(data, header)
    stored = data[header.start : end]
    coded = stored.replace(b"\xff\0", b"\xff")
    if coded.count(b"\xff") != len(stored) - len(coded):  # another marker
        return None
    old, new = differences(before, header), differences(after, header)
    changed = np.flatnonzero(old.reshape(-1) != new.reshape(-1))
    lengths = costs(old, header)
    if lengths is None or not fits(len(coded), lengths) or len(changed) * _MANY > old.size:
        return None
    if not len(changed):
        return data
    ends = np.cumsum(lengths.sum(axis=(1, 2), dtype=np.int64))
    codes, sizes = _codes(new.reshape(-1)[changed], changed % header.components, header)
    if not sizes.all():
        return None
    bits = np.unpackbits(np.frombuffer(coded, np.uint8), count=int(ends[-1]))
    starts = _starts(lengths, ends, changed)
    stops = starts + lengths.reshape(-1)[changed]
    inserted = np.split(codes[np.arange(32) >= 32 - sizes[:, None]], np.cumsum(sizes)[:-1])
    pieces, place = [], 0
    for start, stop, piece in zip(starts.tolist(), stops.tolist(), inserted, strict=True):
        pieces += [bits[place:start], piece]
        place = stop
    pieces.append(bits[place:])
    pieces.append(np.ones(-sum(map(len, pieces)) % 8, np.uint8))
    stuffed = np.packbits(np.concatenate(pieces)).tobytes().replace(b"\xff", b"\xff\0")
    return data[: header.start] + stuffed + data[end : end + 2]


def _starts(lengths: Array, ends: Array, chosen: Array) -> Array:
    """(N,) places of some samples' first bits, by the (H, W, C) bits of all and the (H,) ends of the rows."""
    rows, inside = np.divmod(chosen, lengths[0].size)
    touched, which = np.unique(rows, return_inverse=True)
    within = lengths[touched].reshape(len(touched), -1).cumsum(axis=1, dtype=np.int64)
    before = np.concatenate([[0], ends])[rows] + within[which, inside]
    return np.asarray(before - lengths.reshape(-1)[chosen])


def _codes(values: Array, component: Array, header: Ljpeg) -> tuple[Array, Array]:
    """(N, 32) bits, the code in the last ones, and (N,) their numbers, 0 where the tables have no code."""
    signed = values.astype(np.int64)
    signed = np.where(signed > 32768, signed - 65536, signed)
    category = np.frexp(np.abs(signed).astype(np.float64))[1]
    extra = np.where(category == 16, 0, category)  # the one difference of 32768 needs no further bits
    rest = np.where(signed < 0, signed + (1 << extra) - 1, np.where(category == 16, 0, signed))
    length = np.array(header.lengths)[component, category]
    word = (np.array(header.codes)[component, category] << extra | rest).astype(">u4")
    return np.unpackbits(word.view(np.uint8).reshape(-1, 4), axis=1), np.where(length > 0, length + extra, 0)
