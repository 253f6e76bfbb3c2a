"""Floor 2. gzip around a FITS file: told by its content, packed again with the name and time that it states."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import safe
from ..errors import UnreadableError
from .fits_io import first_line

#: First bytes of packers that astropy would open without a word.
_PACKERS = {b"BZh": "bzip2", b"PK\x03\x04": "zip", b"\xfd7zXZ": "xz", b"\x1f\x9d": "compress"}
#: Bytes that a gunzipped file may hold behind its images: this many, and so many for each of its own bytes.
_MOST_BEHIND, _BEHIND_PER_BYTE = 64 << 20, 100


def is_gzip(path: Path) -> bool:
    """True for gzip content, whatever the name says.

    Raises
    ------
    UnreadableError
        The file is packed in another way.
    """
    with open(path, "rb") as stream:
        head = stream.read(6)
    for magic, name in _PACKERS.items():
        if head.startswith(magic):
            raise UnreadableError(f"{path}: is packed with {name}; unpack it first")
    return head.startswith(b"\x1f\x8b")


@contextlib.contextmanager
def unpacked(path: Path, temporary: Path) -> Iterator[Path]:
    """A plain copy of `path` to edit; on leaving the block it becomes `temporary`, gzipped if `path` is.

    `temporary` may be `path` itself.
    """
    if not is_gzip(path):
        if path != temporary:
            safe.copy(path, temporary)
        yield temporary
        return
    plain = temporary.with_name(temporary.name + ".plain")
    try:
        with gunzipped(path) as packed, open(plain, "wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        name, when, level = _header(path)
        yield plain
        with (
            open(plain, "rb") as stream,
            open(temporary, "wb") as out,
            gzip.GzipFile(fileobj=out, mode="wb", mtime=when, filename=name, compresslevel=level) as packed_out,
        ):
            shutil.copyfileobj(stream, packed_out, 1 << 20)
    finally:
        plain.unlink(missing_ok=True)


@contextlib.contextmanager
def gunzipped(path: Path) -> Iterator[Any]:
    """The unpacked bytes of a gzip file; damage is an UnreadableError."""
    try:
        with gzip.open(path, "rb") as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableError(f"{path}: is damaged ({first_line(error)})") from error


def to_the_end(path: Path, stream: Any) -> None:
    """Read the rest of a gunzipped stream: only its end tells damaged data, by a CRC.

    Raises
    ------
    UnreadableError
        Far more follows than a file of this size would hold behind its images.
    """
    most = _MOST_BEHIND + _BEHIND_PER_BYTE * path.stat().st_size
    while block := stream.read(1 << 20):
        most -= len(block)
        if most < 0:
            raise UnreadableError(f"{path}: unpacks to far more than its images; unpack it yourself if you trust it")


def _header(path: Path) -> tuple[str, int, int]:
    """Name, time and level that a gzip file states of itself (RFC 1952)."""
    with open(path, "rb") as stream:
        head = stream.read(1024)
    flags, when, extra = head[3], int.from_bytes(head[4:8], "little"), head[8]
    end = head.find(b"\0", 10)
    # Only a name that follows at once; the rarer extra fields are not carried over.
    name = head[10:end].decode("latin-1") if flags & 0x0C == 0x08 and end > 0 else ""
    return name, when, {2: 9, 4: 1}.get(extra, 6)
