"""``fixpix maps export`` and ``fixpix maps import``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from . import options as o

if TYPE_CHECKING:
    from ..jobs import Outcome

Like = Annotated[
    Path | None,
    typer.Option("--like", metavar="FRAME", help="A frame of the camera: tells size, margins, row order, name."),
]


def export(
    which: Annotated[str, typer.Argument(metavar="MAP", help="A map or mask file, or part of a camera's name.")],
    name: Annotated[str, typer.Option("--format", metavar="NAME", help="One of the formats above.")],
    out: Annotated[
        Path | None, typer.Option(help="File or folder.  [default: a file here, by the format's rules]")
    ] = None,
    like: Like = None,
    plane: Annotated[int | None, typer.Option("--plane", metavar="N", help="Only this plane, from 0.")] = None,
    threshold: o.Threshold = None,
    max_false: o.MaxFalse = None,
    store: o.Store = None,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write a map in the format of another program.

    What the format cannot hold is named as lost. dcraw and RawTherapee count from the visible area and Siril counts
    rows by the kind of frame: give --like FRAME.

    \b
    Formats: dcraw rawtherapee rawpy siril pixinsight pixinsight-map phd2 fits jwst lsst lsst-fits edf fit2d npy matlab
    nexus xml csv png tiff

    \b
    Examples:
      fixpix maps export stl-1001 --format siril --like light.fits --out bad.lst
      fixpix maps export camera.map.fits --format dcraw --like IMG_0001.CR2 --out .badpixels
      fixpix maps export frame.mask.fits --format edf --out mask.edf
    """
    from ..jobs.exchanging import Wanted, export_map

    common = o.common(None, None, None, None, threshold, max_false, 1, dry_run)
    wanted = Wanted(out, name, like, plane=plane, overwrite=overwrite, common=common)
    _say(export_map(_found(which, store), wanted), as_json, quiet)


def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A map of another program.")],
    out: Annotated[Path, typer.Option(metavar="MASK.fits", help="The mask to write.")],
    name: Annotated[
        str, typer.Option("--format", metavar="NAME", help="As for export.  [default: by content]", show_default=False)
    ] = "",
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="HxW", help="Rows and columns, where the file does not say.")
    ] = None,
    like: Like = None,
    zero_is_bad: Annotated[
        bool | None, typer.Option("--zero-is-bad/--zero-is-good", help="Of mask images.", show_default=False)
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out, naming them.")] = False,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Make a mask of another program's map; `correct --map MASK.fits` takes it.

    A list with lines that cannot be used is refused, and they are named, unless --skip-bad leaves them out.

    \b
    Examples:
      fixpix maps import bad.lst --like light.fits --out camera.mask.fits
      fixpix maps import .badpixels --like IMG_0001.CR2 --out camera.mask.fits
      fixpix maps import mask.png --zero-is-bad --out camera.mask.fits
      fixpix maps import list.txt --format phd2 --shape 960x1280 --out camera.mask.fits
    """
    from ..jobs.exchanging import Wanted, import_map

    common = o.common(None, None, None, None, None, None, 1, dry_run)
    wanted = Wanted(
        out,
        name,
        like,
        _shape(shape),
        zero_is_bad=zero_is_bad,
        skip_bad=skip_bad,
        overwrite=overwrite,
        common=common,
    )
    _say(import_map(path, wanted), as_json, quiet)


def _shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    rows, _, cols = text.lower().partition("x")
    if not (rows.isdecimal() and cols.isdecimal() and int(rows) and int(cols)):
        raise UsageError(f"--shape {text}: write rows x columns, as 960x1280")
    return int(rows), int(cols)


def _found(which: str, store: Path | None) -> Path:
    """A map file by its path or by part of the camera's name."""
    from .. import maps

    path = Path(which)
    if path.is_file():
        return path
    found = [p for p in maps.Store(o.store_folder(store)).maps() if which.lower() in p.name.lower()]
    if len(found) != 1:
        raise UsageError(f"{which}: {'no such map' if not found else 'fits several maps'}; see `fixpix maps list`")
    return found[0]


def _say(outcome: Outcome, as_json: bool, quiet: bool) -> None:
    """Print what became of it, and leave with its exit code."""
    from ..report import record

    if as_json:
        print(json.dumps(record(outcome)), flush=True)
    elif outcome.error:
        print(f"error: {outcome.error}", file=sys.stderr)
    elif not quiet:
        did = "would be written" if outcome.status == "planned" else "written"
        print(f"{outcome.output}: {did}, {outcome.defects} bad pixels, {outcome.method}", file=sys.stderr)
        for note in outcome.notes:
            print(f"  note: {note}", file=sys.stderr)
    raise typer.Exit(outcome.exit_code)
