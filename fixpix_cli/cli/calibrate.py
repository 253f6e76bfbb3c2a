"""``fixpix calibrate``."""

import sys
from pathlib import Path
from typing import Annotated

from . import options as o
from .plain import Option

KINDS = ("auto", "dark", "flat", "bias", "light")


def command(
    paths: o.Paths,
    map_file: Annotated[
        Path | None, Option("--map", help="One map file instead of the store; created if absent.")
    ] = None,
    kind: Annotated[str, Option(help="What the frames are: auto (from the file), dark, flat, bias, light.")] = "auto",
    recurse: o.Recurse = False,
    store: o.Store = None,
    threshold: o.Threshold = None,
    max_false: o.MaxFalse = None,
    cfa: o.CfaOption = None,
    black: o.Black = None,
    white: o.White = None,
    camera: o.Camera = None,
    planes: o.Planes = False,
    hdu: o.Hdu = None,
    jobs: o.Jobs = 0,
    max_memory: o.MaxMemory = None,
    max_time: o.MaxTime = None,
    device: o.Device = "cpu",
    cluster: o.Cluster = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Learn the bad pixels of cameras from frames.

    Each frame adds evidence to its camera's map; a frame counts once.

    \b
    Examples:
      fixpix calibrate darks/
      fixpix calibrate darks/*.fit --map camera.map.fits
      fixpix calibrate lights/ --kind light
    """
    o.start()
    from .. import jobs as work
    from ..errors import UsageError
    from ..report import Report

    if kind not in KINDS:
        raise UsageError(f"--kind {kind}: use {', '.join(KINDS)}")
    settings = o.common(
        cfa, black, white, camera, threshold, max_false, jobs, dry_run, max_memory, max_time,
        planes=planes, hdu=hdu, device=device, cluster=cluster,
    )  # fmt: skip
    fed = work.Calibrated()
    report = Report("suspected", as_json, quiet, verbose)
    report.follow(
        work.calibrate(
            paths,
            settings,
            store=o.store_folder(store),
            map_file=map_file,
            kind=None if kind == "auto" else kind,
            recurse=recurse,
            result=fed,
            begun=report.expect,
        )
    )
    lines = [
        {
            "path": str(path),
            "camera": camera_map.identity.camera,
            "frames": len(camera_map.evidence.frames),
            "defects": camera_map.defects,
        }
        for path, camera_map in fed.maps.items()
    ]
    report.close(lines)
    if not as_json and not quiet:
        for line in lines:
            print(
                f"{line['camera']}: {line['defects']} bad pixels from {line['frames']} frames, {line['path']}",
                file=sys.stderr,
            )
    raise SystemExit(report.exit_code)
