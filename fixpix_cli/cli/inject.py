"""``fixpix inject``."""

from pathlib import Path
from typing import Annotated

from . import options as o
from .plain import Option


def command(
    paths: o.Paths,
    out: Annotated[Path, Option(help="Folder for the damaged frames and their truths.", show_default=False)],
    rate: Annotated[str, Option(help="Share of the pixels: 0.001 or 0.1%.")] = "0.1%",
    delta: Annotated[float, Option(help="Least relative change d, above 0 and below 1.")] = 0.7,
    kind: Annotated[str, Option(help="relative, fixed (one factor per pixel) or sensor.")] = "relative",
    pattern: Annotated[str, Option(help="scattered, cluster:K, columns, rows or map:FILE.")] = "scattered",
    per_frame: Annotated[bool, Option("--per-frame", help="Other positions in every frame.")] = False,
    seed: Annotated[int, Option(min=0, help="The same seed makes the same damage.")] = 0,
    overwrite: o.Overwrite = False,
    recurse: o.Recurse = False,
    cfa: o.CfaOption = None,
    black: o.Black = None,
    white: o.White = None,
    camera: o.Camera = None,
    planes: o.Planes = False,
    hdu: o.Hdu = None,
    jobs: o.Jobs = 0,
    max_memory: o.MaxMemory = None,
    max_time: o.MaxTime = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Damage frames with known truth, to try a detection or a repair.

    Writes the damaged frame and STEM.truth.fits, which marks exactly the pixels that changed.

    \b
    Examples:
      fixpix inject lights/ --out damaged --rate 0.01%
      fixpix inject a.fits --out damaged --pattern cluster:3 --seed 7
      fixpix inject *.dng --out damaged --kind sensor --rate 0.001
    """
    o.start()
    from .. import jobs as work
    from ..inject import Injection
    from ..report import Report

    settings = o.common(
        cfa, black, white, camera, None, None, jobs, dry_run, max_memory, max_time, planes=planes, hdu=hdu
    )
    where = Path(pattern[4:]) if pattern.startswith("map:") else None
    spec = Injection(o.fraction(rate), delta, kind, "map" if where else pattern, seed)
    report = Report("damaged", as_json, quiet, verbose)
    report.follow(
        work.inject_frames(
            paths,
            settings,
            spec,
            out=out,
            where=where,
            per_frame=per_frame,
            overwrite=overwrite,
            recurse=recurse,
            begun=report.expect,
        )
    )
    report.close()
    raise SystemExit(report.exit_code)
