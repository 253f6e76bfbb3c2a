"""``fixpix detect``."""

from pathlib import Path
from typing import Annotated

from . import options as o
from .plain import Option


def command(
    paths: o.Paths,
    out: Annotated[Path, Option(help="Folder for the masks.")] = Path("masks"),
    map_file: Annotated[
        Path | None, Option("--map", help="Add the bad pixels of this map or mask.", show_default=False)
    ] = None,
    probability: Annotated[bool, Option("--probability", help="Add the probabilities as extension PROB.")] = False,
    recurse: o.Recurse = False,
    threshold: o.Threshold = None,
    max_false: o.MaxFalse = None,
    confidence: o.Confidence = None,
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
    """Find the bad pixels of each frame and write them as masks.

    A mask is STEM.mask.fits with an int32 extension DQ; existing masks are replaced.

    \b
    Examples:
      fixpix detect lights/
      fixpix detect *.dng --probability --out found
      fixpix detect frame.fits --cfa RGGB --max-false 5
    """
    o.start()
    from .. import jobs as work
    from ..report import Report

    settings = o.common(
        cfa, black, white, camera, threshold, max_false, jobs, dry_run, max_memory, max_time,
        planes=planes, hdu=hdu, device=device, cluster=cluster,
    )  # fmt: skip
    settings = o.confident(settings, confidence)
    report = Report("flagged", as_json, quiet, verbose)
    report.follow(
        work.detect(
            paths, settings, out=out, map_file=map_file, probability=probability, recurse=recurse, begun=report.expect
        )
    )
    report.close()
    raise SystemExit(report.exit_code)
