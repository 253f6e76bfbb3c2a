"""Floor 2, shared by the edges. Writing that cannot hurt: all of a file or nothing of it.

A target appears under its final name only when it is complete and on disk.
Until then the bytes live in a hidden temporary file of the same folder, which
is removed on any error and on Ctrl-C. Without `overwrite` the last step is a
hard link, which fails if somebody else made the target meanwhile.

What a killed run left behind is removed by the next one that writes there
(`sweep`): the writer of a temporary file holds a lock on it, which the system
lifts when the writer dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import FrameError, OutputExistsError, OutputFolderError, RefusedError

try:
    import fcntl
except ImportError:  # Windows: temporary files of killed runs stay there
    fcntl = None  # type: ignore[assignment]

TEMPORARY_PREFIX = ".fixpix-"
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def ensure_folder(folder: Path) -> None:
    """Create `folder` and its parents, and check that a file can be made in it.

    Raises
    ------
    OutputFolderError
        It cannot be created, is not a folder or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)
        os.close(handle)
        os.unlink(name)
        sweep(folder)
    except OSError as error:
        raise OutputFolderError(
            f"{folder}: cannot write here ({reason(error)}); choose another folder with --out"
        ) from error


def sweep(folder: Path) -> None:
    """Remove the temporary files in `folder` whose writers have died.

    A keeper may write others beside the one it was given, with its name and a further suffix: they go with it.
    The lock of a map is none of them, though that of a camera named "fixpix-..." begins like one.
    """
    there = sorted(path for path in folder.glob(f"{TEMPORARY_PREFIX}*") if path.suffix != ".lock")
    for path in there:
        guard = next(p for p in there if path.name.startswith(p.name))
        with contextlib.suppress(OSError):  # gone, locked, or on a filesystem without locks
            handle = os.open(guard if guard.exists() else path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if fcntl is not None and stat.S_ISREG(os.fstat(handle).st_mode):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            finally:
                os.close(handle)


def _temporary(target: Path) -> tuple[int, str]:
    """A new locked temporary file beside `target`: its handle and name."""
    while True:
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=target.suffix, dir=target.parent)
        if fcntl is None:
            return handle, name
        with contextlib.suppress(OSError):  # no locks on this filesystem: then nobody sweeps either
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(name):
            return handle, name
        os.close(handle)  # swept between its making and its locking


@contextlib.contextmanager
def replacing(target: Path, *, overwrite: bool = False, like: Path | None = None) -> Iterator[Path]:
    """A temporary path to write; on leaving the block it becomes `target`, whole.

    Parameters
    ----------
    target : Path
        Final name. A symbolic link is followed, so that the link survives.
    overwrite : bool
        Replace an existing target. One with several hard links is refused: the
        other names would keep the old bytes.
    like : Path, optional
        A file whose permissions and times the target takes over.

    Raises
    ------
    OutputExistsError
        `target` exists and `overwrite` is False.
    RefusedError
        `target` is a hard link to something else, or not a regular file, or it is `like` itself and
        nobody may write it.
    OutputFolderError
        The folder cannot be written.
    FrameError
        The disk is full or fails.
    """
    target = Path(os.path.realpath(target))
    if target.exists():
        if not overwrite:
            raise OutputExistsError(f"{target}: exists already; use --overwrite, --resume or another --out")
        status = target.stat()
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{target}: is not a regular file; choose another --out")
        if status.st_nlink > 1:
            raise RefusedError(f"{target}: has {status.st_nlink} hard links; write to another folder with --out")
        if like is not None and os.path.samefile(like, target) and not status.st_mode & _WRITABLE:
            raise RefusedError(
                f"{target}: is write-protected; write to another folder with --out, or allow it by chmod"
            )
    try:
        handle, name = _temporary(target)
    except OSError as error:
        raise OutputFolderError(
            f"{target.parent}: cannot write here ({reason(error)}); choose another folder with --out"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        _settle(temporary, like, target)
        _publish(temporary, target, overwrite)
    except OSError as error:
        raise FrameError(f"{target}: could not be written ({reason(error)}); nothing was left behind") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        os.close(handle)


def copy(source: Path, target: Path) -> None:
    """Copy the bytes of a file over another, within the kernel or by sharing blocks where the system can.

    Raises
    ------
    OSError
    """
    if hasattr(os, "copy_file_range"):
        with contextlib.suppress(OSError), open(source, "rb") as old, open(target, "wb") as new:
            size = left = os.fstat(old.fileno()).st_size
            while left and (done := os.copy_file_range(old.fileno(), new.fileno(), left)):
                left -= done
            if not left and size:
                return
    shutil.copyfile(source, target)  # another filesystem, or an old kernel


def _settle(temporary: Path, like: Path | None, target: Path) -> None:
    """Permissions, times, owner, and the bytes on the disk."""
    with open(temporary, "rb+") as stream:
        if like is not None:
            status = like.stat()
            with contextlib.suppress(OSError):  # only root may give files away
                if target.exists() and hasattr(os, "fchown"):
                    os.fchown(stream.fileno(), target.stat().st_uid, target.stat().st_gid)
            os.fchmod(stream.fileno(), stat.S_IMODE(status.st_mode) & 0o777)
            os.fsync(stream.fileno())
            os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        else:
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(stream.fileno(), 0o666 & ~mask)
            os.fsync(stream.fileno())


def _publish(temporary: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, target)
    else:
        try:
            os.link(temporary, target)
        except FileExistsError as error:
            raise OutputExistsError(
                f"{target}: appeared while this run was writing it; use --overwrite or another --out"
            ) from error
        except OSError as error:
            # Filesystems without hard links (FAT, some network shares).
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
                raise
            os.replace(temporary, target)
    with contextlib.suppress(OSError):  # not every filesystem can sync a folder
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def reason(error: OSError) -> str:
    """The system's words for an OSError, without number and path."""
    return (error.strerror or str(error)).lower()
