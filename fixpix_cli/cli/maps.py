"""``fixpix maps``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from . import hub
from . import options as o

app = typer.Typer(help="Look at the cameras' defect maps.", no_args_is_help=True, rich_markup_mode=None)
app.command("export")(hub.export)
app.command("import")(hub.import_)


@app.command("list")
def list_(store: o.Store = None, as_json: o.Json = False) -> None:
    """List the maps of the store.

    \b
    Example:
      fixpix maps list
    """
    from .. import maps
    from ..errors import StoreError

    worst = 0
    for path in maps.Store(o.store_folder(store)).maps():
        try:
            camera = maps.read_map(path)
        except StoreError as error:
            typer.echo(f"error: {error}", err=True)
            worst = error.exit_code
            continue
        facts = _facts(path, camera)
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            typer.echo(f"{facts['camera']}: {facts['defects']} bad pixels from {facts['frames']} frames, {path}")
    raise typer.Exit(worst)


@app.command()
def show(
    which: Annotated[str, typer.Argument(metavar="MAP", help="A map or mask file, or part of a camera's name.")],
    store: o.Store = None,
    threshold: o.Threshold = None,
    max_false: o.MaxFalse = None,
    as_json: o.Json = False,
) -> None:
    """Show a map: camera, frames by condition, defects by type.

    \b
    Examples:
      fixpix maps show camera.map.fits
      fixpix maps show stl-1001
    """
    from .. import maps
    from ..errors import UsageError

    path = Path(which)
    if not path.is_file():
        known = maps.Store(o.store_folder(store)).maps()
        found = [p for p in known if which.lower() in p.name.lower()]
        if len(found) != 1:
            raise UsageError(f"{which}: {'no such map' if not found else 'fits several maps'}; see `fixpix maps list`")
        path = found[0]
    mask = maps.read_mask(path)
    if mask.camera is None:
        facts: dict[str, Any] = {"path": str(path), "defects": sum(map(len, mask.planes)), "types": _types(mask.planes)}
    else:
        camera = maps.read_map(path)
        level = camera.threshold if threshold is None else threshold
        views = [camera.evidence.view(n, level, max_false) for n in range(camera.identity.planes)]
        chosen = [view for view in views if view is not None]
        facts = _facts(path, camera) | {
            "defects": sum(map(len, chosen)),
            "types": _types(chosen),
            "threshold": level if max_false is None else None,
            "max_false": max_false,
            "conditions": [
                {"plane": plane, "bin": str(bin_), "frames": tally.frames, "suspects": len(tally.entries)}
                for (plane, bin_), tally in camera.evidence.tallies.items()
            ],
        }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        if name == "conditions":
            for line in value:
                typer.echo(f"  {line['bin']}: {line['frames']} frames, {line['suspects']} suspects")
        elif name == "types":
            typer.echo("types: " + (", ".join(f"{count} {kind}" for kind, count in value.items()) or "none"))
        elif value is not None:
            typer.echo(f"{name}: {value}")


def _types(planes: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for plane in planes:
        for kind, count in plane.counts().items():
            total[kind] = total.get(kind, 0) + count
    return total


def _facts(path: Path, camera: Any) -> dict[str, Any]:
    rows, cols = camera.identity.shape
    return {
        "path": str(path),
        "camera": camera.identity.camera,
        "size": f"{cols} x {rows}",
        "cfa": camera.identity.cfa,
        "frames": len(camera.evidence.frames),
        "defects": camera.defects,
        "detector": camera.detector,
    }
