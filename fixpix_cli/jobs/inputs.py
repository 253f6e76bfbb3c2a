"""Which frames the path arguments mean, and where each output goes."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import files
from ..errors import UsageError


@dataclass(frozen=True, slots=True)
class Source:
    """One input: its path, and its place below the directory argument it came from."""

    path: Path
    below: Path


def natural(text: str) -> list[Any]:
    return [(int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", text)]


def find(paths: Sequence[str | Path], *, recurse: bool = False, exclude: Sequence[Path] = ()) -> list[Source]:
    """The frames that some path arguments mean, in natural order, each once.

    Parameters
    ----------
    paths : files, directories (their supported files), and globs
    recurse : bool
        Go into subdirectories.
    exclude : folders whose contents are never inputs (the output folder)

    Raises
    ------
    UsageError
        A path does not exist, a glob matches nothing, or there is nothing to read.
    """
    found: dict[Path, Source] = {}
    left_out: list[Path] = []
    places: dict[Path, Path] = {}  # one object for all frames of a folder: there may be very many
    barred = [folder.resolve() for folder in exclude]

    def take(path: Path, below: Path) -> None:
        real = Path(os.path.realpath(path))  # Path.resolve raises on links that run in a circle
        if any(real.is_relative_to(folder) for folder in barred):
            left_out.append(path)
        else:
            found.setdefault(real, Source(path, places.setdefault(below, below)))

    for text in map(str, paths):
        path = Path(text)
        if path.exists() or path.is_symlink():
            matches = [path]
        elif glob.has_magic(text):
            matches = [Path(p) for p in sorted(glob.glob(text, recursive=recurse), key=natural)]
            if not matches:
                raise UsageError(f"{text}: nothing matches")
        else:
            raise UsageError(f"{text}: no such file or directory")
        for match in matches:
            if match.is_dir():
                pattern = "**/*" if recurse else "*"
                inside = sorted(match.glob(pattern), key=lambda p: natural(str(p)))
                for child in inside:
                    hidden = any(part.startswith(".") for part in child.relative_to(match).parts)
                    # A pipe, a socket or a broken link by a frame's name is taken, too, and fails by its name.
                    folder_of_frames = recurse and child.is_dir()
                    if not hidden and not folder_of_frames and files.is_supported(child):
                        take(child, child.relative_to(match).parent)
            elif not match.name.lower().endswith(files.SIDECARS) and not (
                match.name.startswith(".") and len(matches) > 1
            ):
                take(match, Path())
    if not found and left_out:
        raise UsageError(f"{left_out[0]}: lies in the output folder itself; choose another --out, or use --in-place")
    if not found:
        raise UsageError(f"nothing to read in {', '.join(map(str, paths))}")
    return list(found.values())


def plan(sources: Sequence[Source], folder: Path, name: Callable[[Path], str]) -> list[Path]:
    """Where each output goes: below `folder`, in the structure of the directory arguments.

    Raises
    ------
    UsageError
        Two inputs would have one output name, or an output is one of the inputs (by a link, say).
    """
    targets = [folder / source.below / name(source.path) for source in sources]
    first: dict[str, Path] = {}
    originals = {os.path.realpath(source.path) for source in sources}
    for target in targets:
        if os.path.realpath(target) in originals:
            raise UsageError(f"{target}: is one of the frames to read; choose another --out")
    for source, target in zip(sources, targets, strict=True):
        key = str(target).casefold()
        if key in first:
            raise UsageError(
                f"{first[key]} and {source.path} would both become {target}; run them apart, with different --out"
            )
        first[key] = source.path
    return targets
