"""Floor 2. The keeper of the program exiftool, which carries metadata from a camera raw into a fresh DNG.

It knows the maker notes of all makers; nobody should write that again. It runs
where it is installed, and a DNG is good without it: colours, levels, camera,
exposure and ISO are ours.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

#: Of the raw, not of the DNG: its previews, and how its own image is stored or shown.
_NOT = ("Orientation", "Software", "CFAPattern", "ThumbnailImage", "PreviewImage", "JpgFromRaw", "OtherImage")
_SECONDS = 120


def carried(source: Path, target: Path) -> bytes:
    """The bytes of `target`, a DNG, with EXIF, GPS, XMP, IPTC and the maker notes of `source`.

    Raises
    ------
    ValueError
        exiftool is not installed, or fails; the message is for a user.
    """
    program = shutil.which("exiftool")
    if program is None:
        raise ValueError("exiftool is not installed")
    groups = ("-EXIF:all<all", "-GPS:all", "-XMP:all", "-IPTC:all", "-MakerNotes")
    command = [program, "-q", "-q", "-m", "-o", "-", "-TagsFromFile", str(source.absolute()), *groups]
    command += [f"--{tag}" for tag in _NOT]
    try:
        done = subprocess.run(
            [*command, str(target.absolute())], capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"exiftool failed ({type(error).__name__})") from error
    if done.returncode or not done.stdout:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"exiftool failed ({lines[-1] if lines else 'without a word'})")
    return done.stdout
