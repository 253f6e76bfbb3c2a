"""``fixpix evaluate``."""

from pathlib import Path
from typing import Annotated, Any

from . import options as o
from .plain import Option


def command(
    truth: Annotated[Path, Option(help="Folder of STEM.truth.fits.", show_default=False)],
    masks: Annotated[Path | None, Option(help="Folder of STEM.mask.fits to score.", show_default=False)] = None,
    clean: Annotated[Path | None, Option(help="Folder of undamaged frames.", show_default=False)] = None,
    repaired: Annotated[Path | None, Option(help="Folder of repaired frames.", show_default=False)] = None,
    ignore: Annotated[
        Path | None, Option(help="Folder of masks whose pixels count for nothing.", show_default=False)
    ] = None,
    cfa: o.CfaOption = None,
    black: o.Black = None,
    white: o.White = None,
    planes: o.Planes = False,
    hdu: o.Hdu = None,
    jobs: o.Jobs = 0,
    max_memory: o.MaxMemory = None,
    max_time: o.MaxTime = None,
    cluster: o.Cluster = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Score masks or repairs against the truth; files pair by their stem.

    \b
    Examples:
      fixpix evaluate --truth damaged --masks masks
      fixpix evaluate --truth damaged --clean lights --repaired repaired
    """
    o.start()
    from .. import jobs as work
    from ..errors import UsageError
    from ..report import Report

    if (masks is None) == (clean is None or repaired is None) or (masks and (clean or repaired)):
        raise UsageError("give --masks, or --clean and --repaired")
    settings = o.common(
        cfa, black, white, None, None, None, jobs, False, max_memory, max_time, planes=planes, hdu=hdu, cluster=cluster
    )
    sums = work.Scores()
    report = Report("in the truth", as_json, quiet=True)
    outcomes = list(
        work.evaluate(settings, truth=truth, masks=masks, clean=clean, repaired=repaired, ignore=ignore, result=sums)
    )
    report.follow(outcomes)
    total = (sums.detection if masks else sums.correction).ratios()
    if as_json:
        report.close(None, **total)
    elif not quiet:
        rows = [(Path(outcome.path).name, outcome.metrics) for outcome in outcomes if outcome.metrics]
        _table([*rows, ("all", total)])
    raise SystemExit(report.exit_code)


def _table(rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Figures as a plain table on stdout."""
    names = list(rows[-1][1])
    width = max(len(name) for name, _ in rows)
    print("  ".join([" " * width, *(f"{name:>16}" for name in names)]))
    for name, figures in rows:
        cells = ["-" if figures.get(n) is None else f"{figures[n]:.6g}" for n in names]
        print("  ".join([f"{name:<{width}}", *(f"{cell:>16}" for cell in cells)]))
