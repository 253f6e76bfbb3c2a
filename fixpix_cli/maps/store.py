"""Floor 2. The store: a folder with one map file per camera identity, written under a lock.

The lock of a map is a hidden file beside it. It also holds the mark of the map
file as a writer of evidence (`parts`), together with its own inode: a copied
folder gets new marks, so that two copies that grow apart can be merged.

The version of a map before its last change is kept beside it, hidden
(`fitsmap.previous_of`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from .. import safe
from ..errors import StoreError, UnreadableError
from ..evidence import Evidence
from ..mosaic import Identity
from .fitsmap import CameraMap, read_identity, read_map, write_map
from .parts import flipped, grown


def key_of(identity: Identity) -> str:
    """What two frames must share to share a map.

    The CFA is left out: users may state it or not. The make counts only where
    the model does not begin with it: FITS files know the model alone.
    """
    parts = (
        identity.camera.strip().lower(),
        *identity.shape,
        *identity.binning,
        identity.readout.strip().lower(),
        identity.planes,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Store:
    """A folder of camera maps."""

    folder: Path

    def path_of(self, identity: Identity) -> Path:
        """Where the map of a camera is or will be: a readable name and a hash of the identity."""
        slug = re.sub(r"[^a-z0-9]+", "-", identity.camera.lower()).strip("-")[:60] or "camera"
        rows, cols = identity.shape
        return self.folder / f"{slug}-{cols}x{rows}-{key_of(identity)}.map.fits"

    def maps(self) -> list[Path]:
        """All map files, by name."""
        return sorted(self.folder.glob("*.map.fits")) if self.folder.is_dir() else []

    def find(self, identity: Identity) -> Path | None:
        """The map of a camera, if there is one."""
        path = self.path_of(identity)
        return path if path.is_file() else None

    def near(self, identity: Identity) -> list[str]:
        """Why the maps of the same model do not fit, one sentence each."""
        found = []
        for path in self.maps():
            with contextlib.suppress(UnreadableError):
                other = read_identity(path)
                if other.model.strip().lower() == identity.model.strip().lower() and identity.model:
                    found.append(f"{path.name} is of {', '.join(differences(other, identity))}")
        return found


def differences(one: Identity, other: Identity) -> list[str]:
    """What tells two cameras or two ways to read one out apart: ``binning 2 x 2 instead of 1 x 1``, ..."""
    names = (
        ("camera", one.camera, other.camera),
        ("size", "{1} x {0}".format(*one.shape), "{1} x {0}".format(*other.shape)),
        ("binning", "{1} x {0}".format(*one.binning), "{1} x {0}".format(*other.binning)),
        ("read-out", one.readout or "none", other.readout or "none"),
        ("planes", str(one.planes), str(other.planes)),
    )
    return [f"{name} {a} instead of {b}" for name, a, b in names if a.strip().lower() != b.strip().lower()]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[str]:
    """Hold the lock of one map file; a dead holder's lock is free at once.

    Yields
    ------
    str
        The map file's mark as a writer: random, since it has to differ from that of every other file.

    Raises
    ------
    StoreError
        The folder cannot be written.
    """
    path = Path(os.path.realpath(path))
    beside = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _held(beside)
    except OSError as error:
        raise StoreError(
            f"{path.parent}: the map store cannot be written ({safe.reason(error)}); "
            "use --store or FIXPIX_STORE for another folder"
        ) from error
    with stream:
        try:
            mark = _mark(stream)
        except OSError as error:
            raise StoreError(f"{beside}: cannot be written ({safe.reason(error)})") from error
        yield mark


def _held(beside: Path) -> IO[bytes]:
    """The lock file, locked; not one that its last holder removed with the map."""
    while True:
        stream = open(beside, "a+b")  # noqa: SIM115 (held by the caller)
        _lock(stream)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), beside.stat()):
                return stream
        stream.close()


def _mark(stream: IO[bytes]) -> str:
    """The mark in a lock file; a new one if it is another file's, copied, or there is none."""
    own = str(os.fstat(stream.fileno()).st_ino)
    stream.seek(0)
    words = stream.read(100).decode("ascii", "replace").split()
    if len(words) == 2 and re.fullmatch("[0-9a-f]{16}", words[0]) and words[1] == own:
        return words[0]
    mark = secrets.token_hex(8)
    stream.truncate(0)
    stream.write(f"{mark} {own}\n".encode())
    stream.flush()
    return mark


def forget(path: Path) -> None:
    """Let the next change of a map use a new mark; the caller holds the lock."""
    path = Path(os.path.realpath(path))
    with open(path.with_name(f".{path.name}.lock"), "r+b") as stream:
        stream.truncate(0)


def _lock(stream: IO[bytes]) -> None:
    """Wait for the exclusive lock on an open file; it is freed when the file is closed."""
    if os.name == "nt":
        import msvcrt

        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX)


def change(path: Path, how: Callable[[CameraMap], CameraMap]) -> CameraMap:
    """Change a map under its lock; the old version is kept beside it.

    Raises
    ------
    StoreError
        The map is damaged or cannot be written; it is as it was.
    """
    with locked(path):
        camera = how(read_map(path, parts=True))
        write_map(path, camera)
    return camera


def add(
    path: Path, identity: Identity, parts: Sequence[Evidence], *, row_order: str = "", **settings: object
) -> tuple[CameraMap, set[str]]:
    """Add frames to a map file under its lock; create it if it is missing.

    Parameters
    ----------
    parts : sequence of Evidence
        One per frame.
    row_order : str
        Of these frames. For a map of the opposite order their evidence is flipped.
    settings
        threshold, detector, keys of a map that is created.

    Returns
    -------
    CameraMap
        As written.
    set of str
        Digests that another process had counted meanwhile; they were left out.

    Raises
    ------
    StoreError
        The map is of another camera, damaged, or cannot be written.
    """
    with locked(path) as writer:
        if path.exists():
            camera = read_map(path, parts=True)
            if key_of(camera.identity) != key_of(identity):
                raise StoreError(
                    f"{path}: is the map of {camera.identity.camera} "
                    f"({camera.identity.shape[1]} x {camera.identity.shape[0]}), the frames are of {identity.camera} "
                    f"({identity.shape[1]} x {identity.shape[0]}); give another --map"
                )
        else:
            camera = CameraMap(identity, Evidence(), row_order, **settings)  # type: ignore[arg-type]
        known: set[str] = set()
        evidence, apart = camera.evidence, camera.apart
        opposite = row_order and camera.row_order and row_order != camera.row_order
        for part in parts:
            if part.frames.keys() & evidence.frames.keys():
                known |= set(part.frames)
            else:
                turned = flipped(part) if opposite else part
                evidence, apart = evidence + turned, grown(apart, writer, turned)
        if evidence is not camera.evidence or not path.exists():
            camera = replace(camera, evidence=evidence, parts=apart, row_order=camera.row_order or row_order)
            write_map(path, camera)
    return camera, known
