"""The paper's table 2: a cluster of 5 x 5 in a window of 15 x 15, by its two small nets and by ours.

The reference nets (models/reference/cluster-*.onnx) see the window alone; ours and the classical methods see the frame
in which the clusters lie, 32 pixels apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scenes
from rows_correction import OURS, corrected
from tasks import Task

from fixpix_cli import repair
from fixpix_cli.jobs import Repair
from fixpix_cli.mosaic import Array, Bool, Mosaic
from fixpix_cli.nets import registry
from fixpix_cli.nets.sessions import Session, open_session
from fixpix_cli.normalise import window15
from fixpix_cli.normalise.window15 import MIDDLE, WINDOW

ROW = "cluster"
SPACING = 32
BASELINES = {"least squares": repair.least_squares, "median": repair.median, "linear": repair.linear}


def references() -> dict[str, Session]:
    """Name -> net of the paper's table that is there."""
    found = {}
    for path in sorted((registry.folder() / "reference").glob("cluster-*.onnx")):
        session = open_session(path.read_bytes(), str(path), "")
        session.card.require(str(path), "correct", path.stem, window15.NORMALISATION)
        found[path.stem] = session
    return found


def tasks(folder: Path, quick: bool = False) -> list[Task]:
    """One task per camera frame."""
    return [
        Task(ROW, f"{shot.camera}, {shot.name}", 3 * len(OURS) * shot.megapixels, lambda shot=shot: measure(shot))
        for shot in scenes.cameras(folder, quick)
    ]


def measure(shot: scenes.Shot) -> list[dict[str, Any]]:
    """One frame by every method: camera, who, and the sums of squared error and of squares over the clusters, DN^2."""
    mosaic = shot.mosaic
    corners = clusters(mosaic)
    bad = np.zeros(mosaic.shape, bool)
    for row, col in corners:
        bad[row : row + WINDOW, col : col + WINDOW][MIDDLE, MIDDLE] = True
    hidden = mosaic.samples.copy()
    hidden[bad] = 0
    damaged = mosaic.with_samples(hidden)
    answers = {name: _by_net(net, damaged, bad, corners) for name, net in references().items()}
    answers |= {name: repair.repair(damaged, bad, method) for name, method in BASELINES.items()}
    answers |= {method: corrected(damaged, Repair(method=method), bad)[0] for method in OURS}
    truth = mosaic.samples[bad].astype(np.float64)
    head = {"camera": shot.camera, "energy": float((truth**2).sum())}
    return [{**head, "who": who, "error": float(((a[bad] - truth) ** 2).sum())} for who, a in answers.items()]


def clusters(mosaic: Mosaic) -> list[tuple[int, int]]:
    """First row and column of every window; those of a Bayer pattern begin with red."""
    cfa = mosaic.cfa
    first = next((r, c) for r, c in cfa.positions if cfa.is_mono or cfa.colour(r, c) == "R")
    starts = [range(f, n - WINDOW + 1, SPACING) for f, n in zip(first, mosaic.shape, strict=True)]
    return [(row, col) for row in starts[0] for col in starts[1]]


def _by_net(session: Session, damaged: Mosaic, bad: Bool, corners: Sequence[tuple[int, int]]) -> Array:
    windows = np.stack([damaged.samples[r : r + WINDOW, c : c + WINDOW] for r, c in corners])
    given, level, unit = window15.encode(windows)
    answer = session.run(window=given)["middle"] * unit + level
    out = damaged.samples.astype(np.float64)
    for (r, c), values in zip(corners, answer, strict=True):
        out[r : r + WINDOW, c : c + WINDOW][MIDDLE, MIDDLE] = values.reshape(window15.HOLE, window15.HOLE)
    return repair.quantise(np.where(bad, out, damaged.samples), damaged)
