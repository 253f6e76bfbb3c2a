"""Floor 2. TIFF directories, read with every offset checked against the file.

Only the tree of entries is read here, with the place of each value in the
file, so that a keeper can patch single values and leave all other bytes alone.
Classic TIFF and BigTIFF, both byte orders (TIFF 6.0, section 2).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import RefusedError, UnreadableError

SUB_IFDS, EXIF_IFD = 330, 34665
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
#: A stack has a directory per page; how deep they may lie in each other; tags of one.
_MOST_IFDS, _MOST_DEPTH, _MOST_ENTRIES = 1 << 17, 16, 4096


@dataclass(frozen=True)
class Entry:
    """One tag: its type and count, where its value lies in the file, and where the entry itself does."""

    tag: int
    type: int
    count: int
    place: int
    slot: int = 0

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return _SIZES[self.type] * self.count


@dataclass(frozen=True)
class Ifd:
    """One directory and those below it."""

    offset: int
    entries: dict[int, Entry]
    children: tuple[Ifd, ...] = ()
    exif: Ifd | None = None

    def all(self) -> Iterator[Ifd]:
        """This directory and the SubIFDs below it."""
        yield self
        for child in self.children:
            yield from child.all()


@dataclass
class Tree:
    """The directories of one file.

    Parameters
    ----------
    path : Path
    data : bytes-like
        The whole file (a memory map).
    """

    path: Path
    data: Any
    order: str = "<"
    big: bool = False
    chain: tuple[Ifd, ...] = ()
    _seen: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, path: Path, data: Any) -> Tree:
        """Parse the directories.

        Raises
        ------
        UnreadableError
            Not TIFF, or an offset leads outside the file or in a circle.
        """
        tree = cls(path, data)
        head = bytes(data[:16])
        if head[:2] not in (b"II", b"MM") or len(head) < 8:
            raise UnreadableError(f"{path}: is not a TIFF or DNG file")
        tree.order = "<" if head[:2] == b"II" else ">"
        magic = tree.unpack("H", 2)[0]
        if magic not in (42, 43):
            raise UnreadableError(f"{path}: is not a TIFF or DNG file (magic number {magic})")
        tree.big = magic == 43
        start = tree.unpack("Q", 8)[0] if tree.big else tree.unpack("I", 4)[0]
        chain = []
        while start:
            ifd, start = tree._ifd(start)
            chain.append(ifd)
        tree.chain = tuple(chain)
        if not chain:
            raise UnreadableError(f"{path}: has no image directory")
        return tree

    def unpack(self, codes: str, place: int) -> tuple[Any, ...]:
        """Values at a place of the file."""
        form = self.order + codes
        if place < 0 or place + struct.calcsize(form) > len(self.data):
            raise UnreadableError(f"{self.path}: is truncated or damaged (an offset leads outside the file)")
        return struct.unpack_from(form, self.data, place)

    def _ifd(self, offset: int, depth: int = 0) -> tuple[Ifd, int]:
        if offset in self._seen or len(self._seen) >= _MOST_IFDS or depth > _MOST_DEPTH:
            raise UnreadableError(f"{self.path}: is damaged (its image directories run in a circle)")
        self._seen.add(offset)
        head, step, word = ("Q", 20, 8) if self.big else ("H", 12, 4)
        count = self.unpack(head, offset)[0]
        if count > _MOST_ENTRIES:
            raise UnreadableError(f"{self.path}: is damaged (an image directory with {count} entries)")
        first = offset + (8 if self.big else 2)
        entries: dict[int, Entry] = {}
        for place in range(first, first + step * count, step):
            tag, kind = self.unpack("HH", place)
            number = self.unpack("Q" if self.big else "I", place + 4)[0]
            size = _SIZES.get(kind, 1) * number
            value = place + step - word
            if size > word:
                value = self.unpack("Q" if self.big else "I", value)[0]
            if kind in _SIZES and value + size <= len(self.data):
                entries.setdefault(tag, Entry(tag, kind, number, value, place))
        following = self.unpack("Q" if self.big else "I", first + step * count)[0]
        ifd = Ifd(offset, entries)
        children = [self._ifd(place, depth + 1)[0] for place in self.values(ifd, SUB_IFDS)]
        exif = [self._ifd(place, depth + 1)[0] for place in self.values(ifd, EXIF_IFD)[:1]]
        return Ifd(offset, entries, tuple(children), exif[0] if exif else None), following

    def values(self, ifd: Ifd, tag: int) -> tuple[Any, ...]:
        """The numbers of a tag; () where it is missing. Rationals become floats."""
        entry = ifd.entries.get(tag)
        if entry is None:
            return ()
        if entry.type in (5, 10):
            pairs = self.unpack(("I" if entry.type == 5 else "i") * 2 * entry.count, entry.place)
            return tuple(a / b if b else 0.0 for a, b in zip(pairs[::2], pairs[1::2], strict=True))
        if entry.type in (2, 7):
            return tuple(self.raw(ifd, tag))
        return self.unpack(f"{entry.count}{_CODES[entry.type]}", entry.place)

    def raw(self, ifd: Ifd, tag: int) -> bytes:
        """The bytes of a tag's value."""
        entry = ifd.entries.get(tag)
        return b"" if entry is None else bytes(self.data[entry.place : entry.place + entry.size])

    def text(self, ifd: Ifd | None, *tags: int) -> str:
        """The first text among some tags, up to its NUL."""
        for tag in tags:
            if ifd is not None and (text := self.raw(ifd, tag).split(b"\0")[0].decode("utf-8", "replace").strip()):
                return text
        return ""

    def number(self, ifd: Ifd | None, *tags: int) -> float | None:
        """The first number among some tags."""
        for tag in tags:
            if ifd is not None and (values := self.values(ifd, tag)):
                return float(values[0])
        return None

    def added(self, ifd: Ifd, tag: int, kind: int, data: bytes) -> list[tuple[int, bytes]]:
        """What to write where (place, bytes) so that a directory has a tag with a value of single bytes.

        A tag that is there is pointed to its new value at the end of the file. For
        a new one the directory is copied to the end, and what led to it leads there.
        Nothing else moves, so that offsets inside of maker notes stay right.

        Raises
        ------
        RefusedError
            A classic TIFF would grow beyond 4 GB.
        """
        head, step, word = ("Q", 20, 8) if self.big else ("H", 12, 4)
        code = "Q" if self.big else "I"
        end = len(self.data) + len(self.data) % 2
        value = struct.pack(self.order + code, end) if len(data) > word else data.ljust(word, b"\0")
        entry = struct.pack(f"{self.order}HH{code}", tag, kind, len(data)) + value
        writes = [(end, data)] if len(data) > word else []
        if tag in ifd.entries:
            writes.append((ifd.entries[tag].slot, entry))
        else:
            count = self.unpack(head, ifd.offset)[0]
            first = ifd.offset + struct.calcsize(head)
            old = [bytes(self.data[first + step * n : first + step * (n + 1)]) for n in range(count)]
            following = bytes(self.data[first + step * count : first + step * count + word])
            entries = sorted([*old, entry], key=lambda e: int(struct.unpack_from(self.order + "H", e)[0]))
            place = end + len(data) * bool(writes)
            place += place % 2
            writes.append((place, struct.pack(self.order + head, count + 1) + b"".join(entries) + following))
            link, code = self._pointer(ifd)
            writes.append((link, struct.pack(self.order + code, place)))
        if max(place + len(text) for place, text in writes) >= 1 << 32 and not self.big:
            raise RefusedError(f"{self.path}: would grow beyond the 4 GB of a classic TIFF")
        return writes

    def _pointer(self, wanted: Ifd) -> tuple[int, str]:
        """Where in the file the offset of a directory stands, and its type."""
        head, step, code = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        link = 8 if self.big else 4
        for ifd in self.chain:
            if ifd is wanted:
                return link, code
            link = ifd.offset + struct.calcsize(head) + step * self.unpack(head, ifd.offset)[0]
        for parent in (ifd for top in self.chain for ifd in top.all()):
            for number, child in enumerate(parent.children):
                if child is wanted:
                    entry = parent.entries[SUB_IFDS]
                    return entry.place + number * _SIZES[entry.type], _CODES[entry.type]
        raise ValueError("the directory is not of this file")

    def renumbered(self, entry: Entry, values: list[int], end: int) -> list[tuple[int, bytes]]:
        """What to write where (place, bytes) so that an integer tag has other values, as many as before.

        Values that its type cannot hold (writers store small offsets and counts as SHORT) get a wider
        type; if they do not fit into the entry, either, they go to `end` of the file.
        """
        with contextlib.suppress(struct.error):
            return [(entry.place, struct.pack(f"{self.order}{entry.count}{_CODES[entry.type]}", *values))]
        kind, code, word = (16, "Q", 8) if self.big else (4, "I", 4)
        data = struct.pack(f"{self.order}{entry.count}{code}", *values)
        place = entry.slot + (12 if self.big else 8) if len(data) <= word else end + end % 2
        pointer = b"" if len(data) <= word else struct.pack(self.order + code, place)
        head = struct.pack(f"{self.order}HH{code}", entry.tag, kind, entry.count)
        return [(entry.slot, head + pointer), (place, data)]
