"""Rows a and b: one frame's detection, the calibration of its probabilities, and the promise of `--max-false`.

Bad is what the command line takes for bad by default: the probability of `nets.detectors.detect`, told to a `Tally`,
at `evidence.DEFAULT_THRESHOLD`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peers
import scenes
import sums
from tasks import Task

from fixpix_cli import classical, score
from fixpix_cli.cfa import Cfa
from fixpix_cli.detection import Detection
from fixpix_cli.evidence import DEFAULT_THRESHOLD, Tally
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Array, Bool
from fixpix_cli.nets.detectors import detect

ROW = "detection"
RATES = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.4, 0.7)
#: kind, d, rates
DAMAGE = (
    ("relative", 0.7, RATES),
    ("relative", 0.3, RATES),
    ("relative", 0.2, (0.0001, 0.01)),
    ("fixed", 0.7, (0.001, 0.01)),
    ("fixed", 0.3, (0.001, 0.01)),
    ("sensor", 0.7, (0.001, 0.01)),
)
#: Promises of false positives per frame that are tried.
PROMISES = (1, 10, 100)
#: L.A.Cosmic takes a second per megapixel and finds bright pixels only: these rates show what it is worth.
_SLOW = {"L.A.Cosmic": (0.0001, 0.01, 0.2)}
OURS, RULES = "fixpix", "fixpix, rules alone"


def tasks(folder: Path, quick: bool = False) -> list[Task]:
    """One task per frame."""
    shots = scenes.cameras(folder, quick) + scenes.from_photographs(folder, quick)
    return [
        Task(ROW, f"{shot.camera}, {shot.name}", 35 * shot.megapixels, lambda shot=shot: measure(shot, quick))
        for shot in shots
    ]


def seeds(rate: float, quick: bool) -> range:
    """More damage of the same kind where one frame holds few bad pixels."""
    return range({0.0001: 4, 0.001: 2}.get(rate, 1) if not quick else 1)


def measure(shot: scenes.Shot, quick: bool) -> list[dict[str, Any]]:
    """One frame under every damage, by every finder.

    Returns
    -------
    list of dict
        camera, kind, delta, rate, who, pixels; hits, misses, false; of ours also ``positions`` (name of the CFA
        position -> hits, misses, false), ``calibration`` (`sums.calibration`) and ``promises`` (promise -> what the
        probabilities expect, what was false).
    """
    rivals = {name: peer for name, peer in peers.finders().items() if peer.knows(shot.mosaic.cfa)}
    places = positions(shot.mosaic.cfa, shot.mosaic.shape)
    out = []
    for kind, delta, rates in DAMAGE:
        damages, heads = [], []
        for rate in rates:
            for seed in seeds(rate, quick):
                damage = inject(shot.mosaic, Injection(rate, delta, kind, seed=100 + seed), frame_key=shot.name)
                damaged, truth = shot.mosaic.with_samples(damage.samples), damage.dq != 0
                head = {"camera": shot.camera, "kind": kind, "delta": delta, "rate": rate, "seed": seed}
                damages.append((damaged, truth))
                heads.append(head)
                found = detect(damaged)
                tally = Tally.of(damaged, found)
                flags = tally.view(DEFAULT_THRESHOLD).bad
                counts = _counts(flags, truth, shot.native)
                counted = ~(shot.native & ~truth)
                out.append(
                    {**head, "who": OURS, "method": found.method, **counts}
                    | {"positions": _by_position(flags, truth, counted, places)}
                    | {"calibration": sums.calibration(found.probability, truth, counted)}
                    | {"promises": {str(n): _promise(tally, n, truth, counted) for n in PROMISES}}
                )
                if seed == 0:
                    rules = (
                        Tally.of(damaged, Detection.of(classical.detect(damaged).probability))
                        .view(DEFAULT_THRESHOLD)
                        .bad
                    )
                    out.append({**head, "who": RULES, **_counts(rules, truth, shot.native)})
        if kind != "relative" or delta < 0.3:
            continue
        for name, peer in rivals.items():
            chosen = [i for i, head in enumerate(heads) if head["seed"] < 2 and head["rate"] in _SLOW.get(name, RATES)]
            for i, flags in zip(chosen, peer.call([damages[i][0] for i in chosen]), strict=True):
                out.append({**heads[i], "who": name, **_counts(flags, damages[i][1], shot.native)})
    return out


def _counts(flags: Bool, truth: Bool, native: Bool) -> dict[str, int]:
    found = score.detection(flags, truth, native)
    return {"hits": found.hits, "misses": found.misses, "false": found.false, "pixels": found.pixels}


def positions(cfa: Cfa, shape: tuple[int, int]) -> dict[str, Bool]:
    """Name -> (H, W) mask: R, Gr, Gb, B of a Bayer pattern (greens by the colour of their row), else the colours."""
    out: dict[str, Bool] = {}
    rows, cols = cfa.period
    for r, c in cfa.positions:
        colour = cfa.colour(r, c)
        if cfa.is_bayer and colour == "G":
            colour = f"G{cfa.colour(r, c + 1).lower()}"
        out.setdefault(colour, np.zeros(shape, bool))[r::rows, c::cols] = True
    return out


def _by_position(flags: Bool, truth: Bool, counted: Bool, places: dict[str, Bool]) -> dict[str, list[int]]:
    parts = (flags & truth, truth & ~flags, flags & ~truth & counted)
    return {name: [int(np.count_nonzero(part & place)) for part in parts] for name, place in places.items()}


def _promise(tally: Tally, promised: float, truth: Bool, counted: Bool) -> list[float]:
    """Expected and true number of good pixels among those that `--max-false` takes."""
    chosen = tally.chosen(max_false=promised)
    pixels: Array = tally.entries["pixel"][chosen]
    mine = counted.reshape(-1)[pixels]
    false = int(np.count_nonzero(mine & ~truth.reshape(-1)[pixels]))
    return [float((1 - tally.mean[chosen])[mine].sum()), false]
