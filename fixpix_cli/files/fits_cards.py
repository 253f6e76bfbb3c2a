"""Floor 2. FITS headers as bytes: cards of 80 letters, edited in place, and the checksums over them.

astropy would write a card anew and lose its spacing, comment or odd spelling.
"""

from __future__ import annotations

import re
from typing import Any, BinaryIO

import numpy as np

BLOCK = 2880
_CARD = 80


def find(header: bytes | bytearray, key: str) -> int | None:
    """Where the first card of a key begins, or None."""
    name = f"{key:<8}=".encode()
    return next((c for c in range(0, len(header), _CARD) if header[c : c + 9].upper() == name), None)


def end_of(header: bytes | bytearray) -> int | None:
    """Where the END card begins, or None."""
    return next((c for c in range(0, len(header), _CARD) if header[c : c + _CARD].rstrip(b" \0\r\n") == b"END"), None)


def replace_string(header: bytearray, card: int, value: str) -> None:
    """Put a string value into a card, keeping its comment where the old value gave it room.

    The quote goes to column 11: CHECKSUM's letters count by their place in a 4-byte word.
    """
    text = bytes(header[card : card + _CARD]).decode("latin-1")
    match = re.match(r".{8}= +'(?:[^']|'')*'(.*)$", text)
    new = f"{text[:10]}'{value:<8}'"
    if match is not None:
        rest = match[1]
        shrink = len(new) + len(rest) - _CARD
        if shrink > 0 and rest.startswith(" " * (shrink + 1)):
            rest = rest[shrink:]
        elif shrink < 0 and rest.lstrip().startswith("/"):
            rest = " " * -shrink + rest
        new += rest
    header[card : card + _CARD] = f"{new:<80}"[:_CARD].encode("latin-1")


def replace_integer(header: bytearray, card: int, value: int) -> None:
    """Put an integer into a card, right-aligned as before where it fits."""
    text = bytes(header[card : card + _CARD]).decode("latin-1")
    match = re.match(r".{8}=( *[+-]?\d+)(.*)$", text)
    width, rest = (len(match[1]), match[2]) if match else (21, "")
    header[card : card + _CARD] = f"{text[:9]}{value:>{width}}{rest:<80}"[:_CARD].encode("latin-1")


def ones_complement(data: Any, total: int = 0) -> int:
    """The 32-bit ones' complement sum (FITS standard 4.0, appendix J) of bytes, or of an array of big-endian words."""
    if not isinstance(data, np.ndarray):
        data = np.frombuffer(bytes(data) + b"\0" * (-len(data) % 4) if len(data) % 4 else data, ">u4")
    total += int(data.sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def encode_checksum(total: int) -> str:
    """The 16 letters of a CHECKSUM card (FITS standard 4.0, appendix J.2)."""
    value = ~total & 0xFFFFFFFF
    letters = [[0] * 4 for _ in range(4)]
    for i in range(4):
        byte = value >> (24 - 8 * i) & 0xFF
        quotient, remainder = byte // 4 + 48, byte % 4
        four = [quotient + remainder, quotient, quotient, quotient]
        barred = set(range(0x3A, 0x41)) | set(range(0x5B, 0x61))
        while any(c in barred for c in four):
            for j in (0, 2):
                if four[j] in barred or four[j + 1] in barred:
                    four[j] += 1
                    four[j + 1] -= 1
        for j in range(4):
            letters[j][i] = four[j]
    text = "".join(chr(letters[j][i]) for j in range(4) for i in range(4))
    return text[-1] + text[:-1]


def decode_checksum(text: str) -> int:
    """The sum that the 16 letters of a CHECKSUM card stand for; the inverse of `encode_checksum`."""
    turned = (text[1:] + text[:1]).encode("latin-1")
    value = ones_complement(bytes((byte - 0x30) & 0xFF for byte in turned))
    return ~value & 0xFFFFFFFF


def has_checksums(stream: BinaryIO, head: int, data: int) -> bool:
    """Whether the header from byte `head` to `data` has a DATASUM or CHECKSUM card."""
    stream.seek(head)
    header = bytearray(stream.read(data - head))
    return find(header, "DATASUM") is not None or find(header, "CHECKSUM") is not None


def renew_checksums(stream: BinaryIO, head: int, data: int, span: int, change: tuple[int, int] | None = None) -> None:
    """Rewrite the DATASUM and CHECKSUM cards of one HDU in place, where it has them.

    With `change`, the sums of the words that changed as they were and as they are, an old DATASUM that the CHECKSUM
    vouches for tells the new one without a look at the other words: if these were damaged, the sum still says so.
    """
    stream.seek(head)
    header = bytearray(stream.read(data - head))
    summed, checked = find(header, "DATASUM"), find(header, "CHECKSUM")
    if summed is None and checked is None:
        return
    total = 0
    if summed is not None and checked is not None and change is not None:
        total = _changed(header, summed, change)
    if not total:
        stream.seek(data)
        total = ones_complement(stream.read(span))
    if summed is not None:
        replace_string(header, summed, str(total))
    if checked is not None:
        replace_string(header, checked, "0" * 16)
        replace_string(header, checked, encode_checksum(ones_complement(header, total)))
    stream.seek(head)
    stream.write(header)
    stream.flush()


def _changed(header: bytearray, card: int, change: tuple[int, int]) -> int:
    """The new sum from an old DATASUM card and what changed; 0 where the cards contradict each other, or it is one."""
    match = re.match(rb".{8}= +'? *(\d{1,10}) *'?", bytes(header[card : card + _CARD]))
    if match is None or ones_complement(header, int(match[1])) != 0xFFFFFFFF:
        return 0
    before, after = change
    return (int(match[1]) - before + after) % 0xFFFFFFFF
