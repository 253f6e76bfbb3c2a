"""Row c: what N frames of one camera say together, of a fixed pattern of 0.01 % (the paper's figure 4).

Beside what `calibrate` decides (`Tally.view`): the mean of the probabilities alone, and the accumulated log-odds alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scenes
from tasks import Task

from fixpix_cli import score
from fixpix_cli.evidence import DEFAULT_THRESHOLD, Tally
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Array, Bool
from fixpix_cli.nets.detectors import detect

ROW = "multiframe"
RATE = 0.0001
DELTAS = (0.1, 0.2, 0.4, 0.7)
#: Numbers of frames at which precision and recall are taken.
NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 20, 25, 30)
CALIBRATE, MEAN, SUM = "calibrate", "mean probability", "accumulated log-odds"


def tasks(folder: Path, quick: bool = False) -> list[Task]:
    """One task per sequence and d."""
    return [
        Task(
            ROW, f"{name}, d = {delta}", 1.5 * sum(shot.megapixels for shot in shots), _call(name, shots, delta, quick)
        )
        for name, shots in scenes.sequences(folder, quick).items()
        for delta in (DELTAS[1::2] if quick else DELTAS)
    ]


def _call(name: str, shots: list[scenes.Shot], delta: float, quick: bool) -> Any:
    def call() -> list[dict[str, Any]]:
        seeds = 1 if quick or shots[0].megapixels > 1 else 3
        return [row for seed in range(seeds) for row in measure(name, shots, delta, seed)]

    return call


def measure(name: str, shots: list[scenes.Shot], delta: float, seed: int) -> list[dict[str, Any]]:
    """Counts after the first N frames, by every way to add up.

    Pixels that stand out by themselves in any frame of the sequence count for nothing; nor do the real hot pixels of
    the night's camera.
    """
    spec = Injection(RATE, delta, "fixed", seed=200 + seed)
    damages = [inject(shot.mosaic, spec, frame_key=str(n)) for n, shot in enumerate(shots)]
    truth = np.logical_or.reduce([damage.dq != 0 for damage in damages])
    native = np.logical_or.reduce([shot.native for shot in shots])
    if name == scenes.NIGHT:
        native |= scenes.isolated(shots)
    tally = Tally(shots[0].mosaic.shape)
    out = []
    for number, (shot, damage) in enumerate(zip(shots, damages, strict=True), 1):
        damaged = shot.mosaic.with_samples(damage.samples)
        found = detect(damaged, thorough=True)
        tally = tally + Tally.of(damaged, found)
        if number in NUMBERS:
            flags = {
                CALIBRATE: tally.view(DEFAULT_THRESHOLD).bad,
                MEAN: _flags(tally, tally.mean),
                SUM: _flags(tally, tally.posterior),
            }
            for how, mine in flags.items():
                counts = score.detection(mine, truth, native)
                head = {"sequence": name, "delta": delta, "seed": seed, "frames": number, "how": how}
                out.append(head | {"hits": counts.hits, "misses": counts.misses, "false": counts.false})
    return out


def _flags(tally: Tally, confidence: Array) -> Bool:
    flags = np.zeros(tally.shape, bool)
    flags.reshape(-1)[tally.entries["pixel"][confidence >= DEFAULT_THRESHOLD]] = True
    return flags
