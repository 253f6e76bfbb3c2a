"""Rows d to h: repair with the true mask, repair without one, holes, the strategy's crossing, collateral.

Ours goes through `jobs.correct`, on FITS files, as the command line does; the classical methods are baselines.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import scenes
from astropy.io import fits
from tasks import Task

from fixpix_cli import files, jobs, maps, strategy
from fixpix_cli.defects import DefectMap
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Array, Assume, Bool, Mosaic
from fixpix_cli.repair import CLASSICAL, repairable

ROW = "correction"
#: name: rate, pattern, side of the part of the frame that is measured, seeds
SCATTERED = {
    "0.01%": (0.0001, "scattered", 800, 3),
    "0.1%": (0.001, "scattered", 800, 2),
    "1%": (0.01, "scattered", 800, 1),
    "5%": (0.05, "scattered", 512, 1),
    "20%": (0.2, "scattered", 384, 1),
    "40%": (0.4, "scattered", 384, 1),
    "70%": (0.7, "scattered", 384, 1),
    "85%": (0.85, "scattered", 384, 1),
}
HOLES = {f"{side}x{side}": (0.01, f"cluster:{side}", 512, 1) for side in range(2, 7)}
DAMAGE = {**SCATTERED, **HOLES, "columns": (0.01, "columns", 512, 1)}
#: Of the colour planes of photographs.
PLANE_DAMAGE = ("1%", *HOLES)
OURS = tuple(method for method in strategy.METHODS if method not in CLASSICAL)
AUTO, BLIND = "auto", "blind"


def tasks(folder: Path, quick: bool = False) -> list[Task]:
    """One task per frame."""
    shots = scenes.cameras(folder, quick) + scenes.from_photographs(folder, quick)
    planes = scenes.colour_planes(folder, quick)
    jobs_of = [(shot, tuple(DAMAGE)) for shot in shots] + [(shot, PLANE_DAMAGE) for shot in planes]
    return [
        Task(
            ROW,
            f"{shot.camera}, {shot.name}",
            3 * shot.megapixels * len(names),
            lambda shot=shot, names=names: measure(shot, names, quick),
        )
        for shot, names in jobs_of
    ]


def measure(shot: scenes.Shot, names: tuple[str, ...], quick: bool) -> list[dict[str, Any]]:
    """One frame under some damages, by every method.

    Returns
    -------
    list of dict
        camera, damage, who, used (what auto took); pixels, and sums over the damaged pixels in DN^2: error, noise
        (variance), energy, energy_black, and span2 (white^2 per pixel); of the blind repair also ``good_changed``
        (native outliers apart) and ``frame`` (pixels).
    """
    out = []
    for name in names:
        rate, pattern, side, seeds = DAMAGE[name]
        part = shot.centre(side)
        for seed in range(1 if quick else seeds):
            damage = inject(part.mosaic, Injection(rate, pattern=pattern, seed=300 + seed), frame_key=shot.name)
            damaged, truth = part.mosaic.with_samples(damage.samples), repairable(part.mosaic, damage.dq != 0)
            head = {"camera": shot.camera, "damage": name, "seed": seed, **_scale(part, truth)}
            for who, peer in peers.repairers().items():
                if peer.knows(damaged.cfa):
                    out.append({**head, "who": who, "error": _error(part.mosaic, peer.call(damaged, truth), truth)})
            for who, (samples, used) in ours(damaged, truth).items():
                row = {**head, "who": who, "used": used, "error": _error(part.mosaic, samples, truth)}
                if who == BLIND:
                    changed = (samples != part.mosaic.samples) & ~truth & ~part.native
                    row |= {"good_changed": int(np.count_nonzero(changed)), "frame": truth.size}
                out.append(row)
    return out


def ours(damaged: Mosaic, truth: Bool) -> dict[str, tuple[Array, str]]:
    """Method -> repaired samples and what was used: each method with the true mask, and auto without any.

    A method that auto has taken for the whole frame is not run again.
    """
    auto = corrected(damaged, jobs.Repair(), truth)
    found = {
        method: auto if method == auto[1] else corrected(damaged, jobs.Repair(method=method), truth)
        for method in OURS
        if method != AUTO
    }
    return {AUTO: auto, **found, BLIND: corrected(damaged, jobs.Repair(auto=True))}


def corrected(mosaic: Mosaic, how: jobs.Repair, mask: Bool | None = None) -> tuple[Array, str]:
    """What ``fixpix correct`` makes of a plane: the samples, and the method that its outcome names.

    Parameters
    ----------
    mosaic : Mosaic
        With one black level.
    how : jobs.Repair
        Its maps and folder are filled in.
    mask : (H, W) bool array, optional
        The bad pixels, given as ``--map``.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fits.PrimaryHDU(mosaic.samples).writeto(folder / "in.fits")
        given: tuple[Path, ...] = ()
        if mask is not None:
            given = (folder / "in.truth.fits",)
            maps.write_mask(given[0], [DefectMap.of(mask)])
        common = jobs.Common(Assume(mosaic.cfa, mosaic.black[0][:1], mosaic.white, "bench"))
        how = replace(how, maps=given, out=folder / "out")
        outcome = next(jobs.correct([folder / "in.fits"], common, how, store=folder / "store"))
        if outcome.error or outcome.output is None:
            raise RuntimeError(f"correct failed: {outcome.error}")
        return files.load(outcome.output, common.assume).mosaics[0].samples, outcome.method or ""


def _scale(shot: scenes.Shot, truth: Bool) -> dict[str, float]:
    clean = shot.mosaic
    rows, cols = np.nonzero(truth)
    value = clean.samples[truth].astype(np.float64)
    above = value - clean.black_at(rows, cols)
    span = clean.white - float(np.mean(clean.black))
    return {
        "pixels": len(value),
        "energy": float((value**2).sum()),
        "energy_black": float((above**2).sum()),
        "noise": float(shot.variance(above).sum()),
        "span2": span**2 * len(value),
    }


def _error(clean: Mosaic, samples: Array, truth: Bool) -> float:
    difference = samples[truth].astype(np.float64) - clean.samples[truth]
    return float((difference**2).sum())
