"""Floor 2. The store: a folder with one map file per camera identity, written under a lock."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .. import safe
from ..errors import StoreError
from ..evidence import Evidence
from ..mosaic import Identity
from .fitsmap import CameraMap, read_map, write_map


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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of one map file; a dead holder's lock is free at once.

    Raises
    ------
    StoreError
        The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path.parent / f".{path.name}.lock", "a+b")  # noqa: SIM115 (held over the block)
    except OSError as error:
        raise StoreError(
            f"{path.parent}: the map store cannot be written ({safe.reason(error)}); "
            "use --store or FIXPIX_STORE for another folder"
        ) from error
    with stream:
        _lock(stream)
        yield


def _lock(stream: IO[bytes]) -> None:
    """Wait for the exclusive lock on an open file; it is freed when the file is closed."""
    if os.name == "nt":
        import msvcrt

        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX)


def add(path: Path, identity: Identity, parts: list[Evidence], **settings: object) -> tuple[CameraMap, set[str]]:
    """Add frames to a map file under its lock; create it if it is missing.

    Parameters
    ----------
    parts : list of Evidence
        One per frame.
    settings
        row_order, threshold, detector, keys of a map that is created.

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
    with locked(path):
        if path.exists():
            camera = read_map(path)
            if key_of(camera.identity) != key_of(identity):
                raise StoreError(
                    f"{path}: is the map of {camera.identity.camera} "
                    f"({camera.identity.shape[1]} x {camera.identity.shape[0]}), the frames are of {identity.camera} "
                    f"({identity.shape[1]} x {identity.shape[0]}); give another --map"
                )
        else:
            camera = CameraMap(identity, Evidence(), **settings)  # type: ignore[arg-type]
        known: set[str] = set()
        evidence = camera.evidence
        for part in parts:
            if part.frames.keys() & evidence.frames.keys():
                known |= set(part.frames)
            else:
                evidence = evidence + part
        camera = CameraMap(camera.identity, evidence, camera.row_order, camera.threshold, camera.detector, camera.keys)
        write_map(path, camera)
    return camera, known
