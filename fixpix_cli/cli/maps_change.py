"""``fixpix maps`` diff, merge, prune, remove and recover."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .maps import Overwrite, Which, app, facts_of, month, path_of

Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write a mask of the pixels that differ.")]


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A map or mask file, or part of a map's name.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    out: Out = None,
    overwrite: Overwrite = False,
    store: o.Store = None,
    threshold: o.Threshold = None,
    max_false: o.MaxFalse = None,
    as_json: o.Json = False,
) -> None:
    """Compare two maps or masks: pixels only in A, only in B, and of another type.

    --threshold or --max-false apply to camera maps; masks are what they are.

    \b
    Examples:
      fixpix maps diff january.map.fits june.map.fits
      fixpix maps diff a.mask.fits b.mask.fits --out changed.fits --json
    """
    import numpy as np

    from .. import maps
    from ..defects import DefectMap
    from ..errors import UsageError

    if threshold is not None and max_false is not None:
        raise UsageError("give --threshold or --max-false, not both")
    one, two = (_flags(path_of(which, store), threshold, max_false) for which in (first, second))
    planes, notes = maps.for_frame(two, [plane.shape for plane in one.planes], one.row_order)
    found: dict[str, list[list[int]]] = {"only_first": [], "only_second": [], "other_type": []}
    marks = []
    for number, (a, b) in enumerate(zip(one.planes, planes, strict=True)):
        differences = maps.differences_of(a, b)
        for name, places in differences.items():
            found[name] += [[number, *divmod(int(place), a.shape[1])] for place in places]
        changed = np.sort(np.concatenate(list(differences.values())))
        marks.append(DefectMap.listed(a.shape, changed, a.at(changed) | b.at(changed)))
    if out is not None:
        maps.write_mask(out, marks, row_order=one.row_order, overwrite=overwrite)
    facts = {
        "first": str(one.path),
        "second": str(two.path),
        "both": sum(len(np.intersect1d(a.bad_pixels, b.bad_pixels)) for a, b in zip(one.planes, planes, strict=True)),
        **found,
        "out": str(out) if out is not None else None,
        "notes": notes,
    }
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"in both: {facts['both']}, of another type: {len(found['other_type'])}")
    for name, path in (("only_first", one.path), ("only_second", two.path)):
        shown = ", ".join(f"({row}, {col})" for _, row, col in found[name][:5])
        more = ", ..." if len(found[name]) > 5 else ""
        typer.echo(f"only in {path}: {len(found[name])}{' at (row, col) ' if shown else ''}{shown}{more}")


@app.command()
def merge(
    which: Annotated[list[str], typer.Argument(metavar="MAPS...", help="Two or more maps of one camera.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to; it may be one of the maps.")],
    overwrite: Overwrite = False,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Of evidence that overlaps leave out the smaller part.")
    ] = False,
    store: o.Store = None,
    as_json: o.Json = False,
) -> None:
    """Merge maps of one camera, made on several machines.

    Exact: as if all frames had been calibrated into one map, each counted once.
    Merge again when the maps have grown: what is known already does not count
    twice. Evidence that two machines share only in part cannot be added exactly:
    that is refused, or the smaller part is left out with --leave-out.

    \b
    Examples:
      fixpix maps merge a.map.fits b.map.fits --out all.map.fits
      fixpix maps merge all.map.fits b.map.fits --out all.map.fits
    """
    from .. import maps
    from ..errors import UsageError

    if len(which) < 2:
        raise UsageError("give two maps or more to merge")
    paths = [path_of(one, store) for one in which]
    merged = maps.merge(paths, out, overwrite=overwrite, leave_out=leave_out)
    names = sorted({counted.name for part in merged.left_out for counted in part.evidence.frames.values()})
    notes = list(merged.notes)
    if names:
        notes.append(f"{len(names)} frames may be left out, calibrate them again: {', '.join(names)}")
    facts = facts_of(out, merged.camera) | {"merged": list(map(str, paths)), "left_out": names, "notes": notes}
    _tell(facts, notes, as_json)


@app.command()
def prune(
    which: Which,
    conditions: Annotated[
        list[str] | None,
        typer.Option("--conditions", metavar="TEXT", help="Drop conditions that begin so, as `show` writes them."),
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="DATE", help="Drop frames of months before this, YYYY-MM[-DD].")
    ] = None,
    below: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Drop suspects below this probability in the whole map.")
    ] = None,
    store: o.Store = None,
    as_json: o.Json = False,
) -> None:
    """Drop evidence from a map. The version before is kept, see `recover --back`.

    Dropped frames can be calibrated again. Frames without a time are never
    dropped by --before. Merging with a map that still has the evidence brings it back.

    \b
    Examples:
      fixpix maps prune stl-1001 --conditions "light"
      fixpix maps prune stl-1001 --before 2025-01 --below 0.01
    """
    from .. import maps
    from ..errors import UsageError

    if not conditions and before is None and below is None:
        raise UsageError("nothing to prune: give --conditions, --before or --below")
    path = path_of(which, store)
    first = month(before) if before is not None else ""
    old, new = maps.prune(path, conditions=conditions or (), before=first, below=below)
    suspects = [sum(len(tally.entries) for tally in camera.evidence.tallies.values()) for camera in (old, new)]
    dropped = {
        "frames": len(old.evidence.frames) - len(new.evidence.frames),
        "suspects": suspects[0] - suspects[1],
        "defects": old.defects - new.defects,
    }
    note = f"dropped {dropped['frames']} frames and {dropped['suspects']} suspects, {dropped['defects']} bad pixels"
    _tell(facts_of(path, new) | {"dropped": dropped}, [note], as_json)


@app.command()
def remove(
    which: Which,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: o.Store = None,
    as_json: o.Json = False,
) -> None:
    """Remove a map and its previous version, for good.

    \b
    Examples:
      fixpix maps remove stl-1001
      fixpix maps remove old.map.fits --yes
    """
    from .. import maps
    from ..errors import UsageError

    path = path_of(which, store)
    if not path.name.endswith(".map.fits") and maps.read_mask(path).camera is None:
        raise UsageError(f"{path}: is no camera map")
    if not yes:
        if not sys.stdin.isatty() or as_json:
            raise UsageError(f"{path}: would be removed for good; say --yes")
        if not typer.confirm(f"Remove {path} for good?", err=True):
            raise typer.Exit(0)
    maps.remove(path)
    typer.echo(json.dumps({"path": str(path), "removed": True}) if as_json else f"removed {path}")


@app.command()
def recover(
    which: Which,
    back: Annotated[bool, typer.Option("--back", help="Also if the map is whole: undo its last change.")] = False,
    store: o.Store = None,
    as_json: o.Json = False,
) -> None:
    """Bring back the version of a map before its last change.

    A damaged file is kept beside it as NAME.damaged. Frames that were counted in
    the last change count again when they are calibrated again.

    \b
    Examples:
      fixpix maps recover stl-1001
      fixpix maps recover camera.map.fits --back
    """
    from .. import maps

    path = Path(which) if which.endswith(".fits") else path_of(which, store)
    camera = maps.recover(path, back=back)
    _tell(facts_of(path, camera), [f"{path}: is the version before the last change again"], as_json)


def _flags(path: Path, threshold: float | None, max_false: float | None) -> Any:
    """The flags of a map or mask file, a map's at another threshold on request."""
    from dataclasses import replace

    from .. import maps
    from ..defects import DefectMap

    mask = maps.read_mask(path)
    if mask.camera is None or (threshold is None and max_false is None):
        return mask
    camera = maps.read_map(path)
    level = camera.threshold if threshold is None else threshold
    views = [camera.evidence.view(n, level, max_false) for n in range(camera.identity.planes)]
    return replace(mask, planes=tuple(view or DefectMap.empty(camera.identity.shape) for view in views))


def _tell(facts: dict[str, Any], notes: list[str], as_json: bool) -> None:
    for note in notes:
        typer.echo(note, err=True)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{facts['camera']}: {facts['defects']} bad pixels from {facts['frames']} frames, {facts['path']}")
