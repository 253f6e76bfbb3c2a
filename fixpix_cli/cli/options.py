"""Options that several commands share, and what they mean to the library."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..errors import UsageError
from .plain import Argument, Option

if TYPE_CHECKING:
    from ..jobs import Common

Paths = Annotated[
    list[str], Argument(metavar="PATHS...", help="Frames: files, directories, globs.", show_default=False)
]
Recurse = Annotated[bool, Option("-r", "--recurse", help="Go into subdirectories.")]
Jobs = Annotated[
    int,
    Option(
        "-j",
        "--jobs",
        min=0,
        help="Processes; 0: one per processor (of the control group's), as memory allows.",
        show_default=True,
    ),
]
Device = Annotated[
    str,
    Option(help="What the nets run on: cpu, cuda, openvino, coreml, directml, or auto, the first usable one."),
]
Cluster = Annotated[
    str | None,
    Option(
        metavar="ADDRESS",
        help="Dask scheduler: tcp://HOST:PORT, a scheduler file .json, or local:N for N processes here.",
        show_default=False,
    ),
]
Json = Annotated[bool, Option("--json", help="JSON Lines on stdout, nothing else there.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Say errors only.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Repeat every note for every frame.")]
DryRun = Annotated[bool, Option("--dry-run", help="Plan only; write nothing.")]
Store = Annotated[
    Path | None,
    Option("--store", envvar="FIXPIX_STORE", help="Folder of the camera maps.", show_default=False),
]
CfaOption = Annotated[
    str | None,
    Option("--cfa", help="RGGB, GRBG, GBRG, BGGR, XTRANS, MONO, ...: where the file does not say."),
]
Black = Annotated[str | None, Option("--black", help="Black level in DN: N, or N,N,N,N for a 2 x 2 tile.")]
White = Annotated[float | None, Option("--white", help="Saturation level in DN.")]
Camera = Annotated[str | None, Option("--camera", help="The camera's name: where the file does not say.")]
Hdu = Annotated[
    str | None,
    Option("--hdu", metavar="N[,N]", help="FITS: only these image HDUs, 0 is the primary one.  [default: all]"),
]
Planes = Annotated[
    bool, Option("--planes", help="Layers of a cube or pages of a stack are detectors of their own, not moments.")
]
Threshold = Annotated[
    float | None, Option("--threshold", min=0.0, max=1.0, help="Mean probability that makes a pixel bad.")
]
MaxFalse = Annotated[float | None, Option("--max-false", min=0.0, help="Or: expected good pixels flagged per frame.")]
Confidence = Annotated[
    float | None,
    Option("--confidence", min=0.0, max=1.0, help="Or: flag as many as keep the expected share of bad ones at this."),
]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace existing outputs.")]
MaxMemory = Annotated[
    str | None,
    Option(
        "--max-memory",
        help="Memory for all processes together, e.g. 4G; lowers --jobs.  [default: 3/4 of the machine's]",
        show_default=False,
    ),
]
MaxTime = Annotated[
    float | None,
    Option(
        "--max-time",
        min=1,
        help="CPU seconds for one frame.  [default: 120, and 30 per MB of its file]",
        show_default=False,
    ),
]

#: Less than this no process can start to work with.
_LEAST_MEMORY = 200_000_000


def common(
    cfa: str | None,
    black: str | None,
    white: float | None,
    camera: str | None,
    threshold: float | None,
    max_false: float | None,
    jobs: int,
    dry_run: bool,
    max_memory: str | None = None,
    max_time: float | None = None,
    planes: bool = False,
    hdu: str | None = None,
    device: str = "cpu",
    cluster: str | None = None,
) -> Common:
    """The library's settings from the options.

    Raises
    ------
    UsageError
        A value makes no sense.
    """
    from ..cfa import Cfa
    from ..jobs import Common
    from ..mosaic import Assume
    from ..workers import Budget

    if threshold is not None and max_false is not None:
        raise UsageError("give --threshold or --max-false, not both")
    levels = None
    if black is not None:
        try:
            levels = tuple(float(part) for part in black.split(","))
        except ValueError:
            raise UsageError(f"--black {black}: give a number, or four with commas") from None
        if len(levels) not in (1, 4):
            raise UsageError(f"--black {black}: give one number or four")
    memory = size(max_memory) if max_memory is not None else None
    if memory is not None and memory < _LEAST_MEMORY:
        raise UsageError(f"--max-memory {max_memory}: fixpix needs {_LEAST_MEMORY // 1_000_000}M at least")
    assume = Assume(Cfa.parse(cfa) if cfa else None, levels, white, camera, planes, _numbers(hdu))
    return Common(assume, threshold, max_false, jobs, dry_run, Budget(memory, max_time), device=device, cluster=cluster)


def confident(settings: Common, confidence: float | None) -> Common:
    """The settings with `--confidence`, which stands alone.

    Raises
    ------
    UsageError
        Another of the three is given, too.
    """
    if confidence is not None and (settings.threshold is not None or settings.max_false is not None):
        raise UsageError("give --threshold, --max-false or --confidence, one of them")
    return replace(settings, precision=confidence)


def start() -> None:
    """Start what takes time beside the loading of our own modules: the process that workers come from."""
    from ..workers import warm

    warm()


def _numbers(hdu: str | None) -> tuple[int, ...]:
    """The HDUs of ``1`` or ``1,2``."""
    try:
        numbers = tuple(int(part) for part in hdu.split(",")) if hdu is not None else ()
    except ValueError:
        raise UsageError(f"--hdu {hdu}: give a number, or several with commas") from None
    if any(number < 0 for number in numbers):
        raise UsageError(f"--hdu {hdu}: HDUs count from 0, the primary one")
    return numbers


def size(text: str) -> int:
    """Bytes of ``500M``, ``4G``, ``2GiB`` or a plain number."""
    units = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = number[-1:] if number[-1:] in "KMGT" else ""
    try:
        return int(float(number.removesuffix(unit) if unit else number) * units[unit])
    except ValueError:
        raise UsageError(f"{text}: not a size; write 500M or 4G") from None


def fraction(text: str) -> float:
    """A rate: ``0.0001`` or ``0.01%``."""
    try:
        return float(text[:-1]) / 100 if text.strip().endswith("%") else float(text)
    except ValueError:
        raise UsageError(f"{text}: not a rate; write 0.0001 or 0.01%") from None


def store_folder(store: Path | None) -> Path:
    """The store that is asked for, or the platform's user-data folder."""
    if store is not None:
        return store
    if home := os.environ.get("FIXPIX_STORE"):
        return Path(home)
    import platformdirs

    return Path(platformdirs.user_data_dir("fixpix", appauthor=False)) / "maps"
