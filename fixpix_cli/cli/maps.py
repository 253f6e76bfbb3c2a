"""``fixpix maps``: list and show; maps_change.py has the commands that change maps or compare them."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from . import hub
from . import options as o
from .typed import App

app = App(
    help="Look at the cameras' defect maps, compare, merge and keep them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("export")(hub.export)
app.command("import")(hub.import_)

Which = Annotated[str, typer.Argument(metavar="MAP", help="A map file, or part of its name in the store.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


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
        facts = facts_of(path, camera)
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            typer.echo(f"{facts['camera']}: {facts['defects']} bad pixels from {facts['frames']} frames, {path}")
    raise typer.Exit(worst)


@app.command()
def show(
    which: Annotated[str, typer.Argument(metavar="MAP", help="A map or mask file, or part of a camera's name.")],
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="What is new, gone and worse since this month, YYYY-MM[-DD].")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the map as a PNG, coloured by type.")
    ] = None,
    overwrite: Overwrite = False,
    store: o.Store = None,
    threshold: o.Threshold = None,
    max_false: o.MaxFalse = None,
    confidence: o.Confidence = None,
    as_json: o.Json = False,
) -> None:
    """Show a map: camera, frames by condition and month, defects by type and shape, how sure they are.

    Evidence has the month of its frames' times. --since compares what the frames
    before that month say with what those from then on say, under the conditions
    that both know.

    \b
    Examples:
      fixpix maps show camera.map.fits
      fixpix maps show stl-1001 --picture map.png
      fixpix maps show stl-1001 --since 2026-03
    """
    from .. import maps
    from ..errors import StoreError, UnreadableError, UsageError

    if sum(one is not None for one in (threshold, max_false, confidence)) > 1:
        raise UsageError("give --threshold, --max-false or --confidence, one of them")
    path = path_of(which, store)
    try:
        mask = maps.read_mask(path)
    except UnreadableError as error:  # the same exit code whichever part of a map is damaged
        raise StoreError(str(error)) from error
    facts: dict[str, Any]
    if mask.camera is None:
        if since is not None:
            raise UsageError(f"{path}: is a mask, no camera map; it has no months to compare")
        facts, chosen = {"path": str(path), "defects": sum(map(len, mask.planes))}, list(mask.planes)
    else:
        camera = maps.read_map(path, parts=True)
        level = camera.threshold if threshold is None else threshold
        views = [camera.evidence.view(n, level, max_false, confidence) for n in range(camera.identity.planes)]
        chosen = [view for view in views if view is not None]
        facts = facts_of(path, camera) | _details(path, camera, level, max_false, sum(map(len, chosen)))
        if confidence is not None:
            facts |= {"threshold": None, "confidence": confidence}
        if since is not None:
            facts["trend"] = _trend(camera, month(since), level)
    facts |= {"types": _types(chosen), "shapes": _shapes(chosen)}
    if picture is not None:
        from ..plots import picture as drawn
        from ..plots import write_png

        write_png(picture, drawn(chosen), overwrite=overwrite)
        facts["picture"] = str(picture)
    typer.echo(json.dumps(facts) if as_json else "\n".join(_lines(facts)))


def path_of(which: str, store: Path | None) -> Path:
    """A map file that is named by its path or by part of its name in the store."""
    from .. import maps
    from ..errors import UsageError

    path = Path(which)
    if path.is_file():
        return path
    known = maps.Store(o.store_folder(store)).maps()
    found = [p for p in known if which.lower() in p.name.lower()]
    if len(found) != 1:
        raise UsageError(f"{which}: {'no such map' if not found else 'fits several maps'}; see `fixpix maps list`")
    return found[0]


def month(date: str) -> str:
    """``YYYY-MM`` of a date argument."""
    from .. import maps
    from ..errors import UsageError
    from ..mosaic import Conditions

    text = maps.month_of(Conditions(time=date))
    if not text:
        raise UsageError(f"{date}: is no date; write YYYY-MM or YYYY-MM-DD")
    return text


def facts_of(path: Path, camera: Any) -> dict[str, Any]:
    """What every command tells of a map."""
    rows, cols = camera.identity.shape
    return {
        "path": str(path),
        "camera": camera.identity.camera,
        "size": f"{cols} x {rows}",
        "binning": "{1} x {0}".format(*camera.identity.binning),
        "readout": camera.identity.readout or None,
        "cfa": camera.identity.cfa,
        "row_order": camera.row_order or None,
        "frames": len(camera.evidence.frames),
        "defects": camera.defects,
        "detector": camera.detector,
    }


def _details(path: Path, camera: Any, level: float, max_false: float | None, defects: int) -> dict[str, Any]:
    from .. import darkcurrent, maps

    previous = maps.previous_of(path)
    return {
        "defects": defects,
        "threshold": level if max_false is None else None,
        "max_false": max_false,
        "conditions": [
            {"plane": plane, "bin": str(bin_), "frames": tally.frames, "suspects": len(tally.entries)}
            for (plane, bin_), tally in camera.evidence.tallies.items()
        ],
        "months": maps.months(camera),
        "writers": len({part.writer for part in camera.apart}),
        "dark_current": darkcurrent.summary(camera.evidence) or None,
        "histograms": maps.spread(camera.evidence),
        "previous": str(previous) if previous.exists() else None,
    }


def _trend(camera: Any, since: str, level: float) -> dict[str, Any]:
    from .. import maps

    found = maps.trend(camera, since, level)
    return {
        "since": since,
        "frames_before": found.frames_before,
        "frames_since": found.frames_since,
        "frames_without_time": found.undated,
        "not_compared": list(found.apart),
        **{name: getattr(found, name).tolist() for name in ("new", "gone", "worse")},
    }


def _types(planes: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for plane in planes:
        for kind, count in plane.counts().items():
            total[kind] = total.get(kind, 0) + count
    return total


def _shapes(planes: Any) -> dict[str, Any]:
    """Singles, clusters and lines of all planes, and clusters by size."""
    from .. import shapes

    total: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for found in (shapes.found(plane.bad) for plane in planes):
        if found.crowded:
            total["crowded"] = total.get("crowded", 0) + 1
        for kind, count in found.counts().items():
            total[kind] = total.get(kind, 0) + count
        for size, count in found.sizes().items():
            sizes[str(size)] = sizes.get(str(size), 0) + count
    return total | ({"cluster_sizes": sizes} if sizes else {})


def _lines(facts: dict[str, Any]) -> list[str]:
    """The facts for people."""
    lines = []
    for name, value in facts.items():
        if name == "conditions":
            lines += [f"  {one['bin']}: {one['frames']} frames, {one['suspects']} suspects" for one in value]
        elif name in ("types", "shapes"):
            told = [f"{count} {kind}" for kind, count in value.items() if isinstance(count, int)]
            lines.append(f"{name}: {', '.join(told) or 'none'}")
            if sizes := value.get("cluster_sizes"):
                told = [f"{count} of {size}" for size, count in list(sizes.items())[:12]]
                lines.append(f"  clusters by pixels: {', '.join(told)}{', ...' if len(sizes) > 12 else ''}")
        elif name == "months":
            lines.append("months: " + ", ".join(f"{key or 'no time'} {count}" for key, count in value.items()))
        elif name == "dark_current" and value:
            lines += _dark_lines(value)
        elif name == "histograms":
            lines += _bars("mean probability of the suspects", value["probability"])
            lines += _bars("mean excess in sigma", value["excess"])
        elif name == "trend":
            lines += _trend_lines(value)
        elif value is not None:
            lines.append(f"{name}: {value}")
    return lines


def _bars(title: str, bins: list[dict[str, Any]]) -> list[str]:
    most = max((one["count"] for one in bins), default=0) or 1
    lines = [f"{title}:"]
    for one in bins:
        ends = [f"{'' if one[end] is None else format(one[end], 'g'):>6}" for end in ("from", "to")]
        lines.append(f"  {ends[0]} ..{ends[1]} {one['count']:>9} {'#' * -(-30 * one['count'] // most)}")
    return lines


def _dark_lines(dark: dict[str, Any]) -> list[str]:
    how = "measured" if dark["doubling_measured"] else "assumed"
    line = f"dark current: doubles in {dark['doubling_c']:.1f} +- {dark['doubling_error_c']:.1f} C ({how})"
    if dark["exponent"] is not None:
        line += f", grows with exposure to the power of {dark['exponent']:.3f} +- {dark['exponent_error']:.3f}"
    at = "" if dark["reference_c"] is None else f" at {dark['reference_c']:.0f} C"
    counts = ", ".join(f"{count} {kind}" for kind, count in dark["pixels"].items())
    return [line, f"  known down to {dark['faintest']:g} DN/s{at} above the neighbours; pixels: {counts}"]


def _trend_lines(trend: dict[str, Any]) -> list[str]:
    lines = [
        f"since {trend['since']}: {trend['frames_since']} frames, before {trend['frames_before']}, "
        f"without a time {trend['frames_without_time']}"
    ]
    for name in ("new", "gone", "worse"):
        places = [f"({row}, {col})" for _, row, col in trend[name][:5]]
        lines.append(f"  {name}: {len(trend[name])}{' at (row, col) ' if places else ''}{', '.join(places)}")
    if trend["not_compared"]:
        lines.append(f"  not compared, known on one side only: {'; '.join(trend['not_compared'])}")
    return lines


from . import maps_change  # noqa: E402, F401 (the commands that change maps register themselves)
