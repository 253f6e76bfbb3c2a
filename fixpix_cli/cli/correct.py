"""``fixpix correct``."""

from pathlib import Path
from typing import Annotated

from . import options as o
from .plain import Option

FILLS = ("interpolate", "noise", "nan")
DNGS = ("repair", "opcode")


def command(
    paths: o.Paths,
    auto: Annotated[bool, Option("--auto", help="Also find bad pixels in the frames themselves.")] = False,
    map_files: Annotated[
        list[Path] | None,
        Option("--map", help="Map, mask, truth, or a folder of them; may be given several times."),
    ] = None,
    out: Annotated[Path | None, Option(help="Folder for the repaired frames.  [default: repaired]")] = None,
    in_place: Annotated[bool, Option("--in-place", help="Replace the frames themselves.")] = False,
    method: Annotated[
        str,
        Option(
            help="auto, mlp, vit, vit-blind, cnn (to 6 x 6, else mlp), prediction, least-squares, gradient, median."
        ),
    ] = "auto",
    fill: Annotated[
        str, Option(help="interpolate, noise (interpolate and add noise), nan (floats only).")
    ] = "interpolate",
    overwrite: o.Overwrite = False,
    resume: Annotated[bool, Option("--resume", help="Skip frames whose output is there and whole.")] = False,
    provenance: Annotated[
        bool, Option("--provenance", help="Say in the file what was done (FITS HISTORY, TIFF Software).")
    ] = False,
    dq: Annotated[
        bool, Option("--dq", help="FITS: add the repaired pixels' flags as an extension DQ, with DQ_DEF.")
    ] = False,
    dng: Annotated[
        str, Option("--dng", help="repair, or opcode (list bad pixels in OpcodeList1, change no pixel).")
    ] = "repair",
    recurse: o.Recurse = False,
    store: o.Store = None,
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
    """Repair bad pixels; everything else stays as it was, byte for byte.

    Bad are the pixels of the camera's map in the store, or of the maps given;
    with --auto also those that the frames show. Camera raws become DNG.

    \b
    Examples:
      fixpix correct lights/
      fixpix correct *.dng --auto --out clean
      fixpix correct a.fits --map camera.map.fits --in-place
      fixpix correct *.dng --dng opcode --out listed
    """
    if len(paths) > 1 or Path(paths[0]).is_dir():
        o.start()  # a single frame may do without
    from .. import jobs as work
    from ..errors import UsageError
    from ..report import Report

    if in_place and out is not None:
        raise UsageError("give --out or --in-place, not both")
    if fill not in FILLS:
        raise UsageError(f"--fill {fill}: use {', '.join(FILLS)}")
    if dng not in DNGS:
        raise UsageError(f"--dng {dng}: use {', '.join(DNGS)}")
    settings = o.common(
        cfa, black, white, camera, threshold, max_false, jobs, dry_run, max_memory, max_time,
        planes=planes, hdu=hdu, device=device, cluster=cluster,
    )  # fmt: skip
    folder = None if in_place else out or Path("repaired")
    how = work.Repair(auto, tuple(map_files or ()), folder, method, fill, overwrite, resume, provenance, dq, dng)
    settings = o.confident(settings, confidence)
    report = Report("repaired", as_json, quiet, verbose)
    report.follow(work.correct(paths, settings, how, store=o.store_folder(store), recurse=recurse, begun=report.expect))
    report.close()
    raise SystemExit(report.exit_code)
