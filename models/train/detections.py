"""Detectors side by side on the validation cameras.

    python models/train/detections.py --data FOLDER [--model FILE.onnx] [--ship]

Relative damage, precision and recall at a probability of 0.5, native outliers ignored; large frames are measured
on their central part; few-pixel rates with several seeds. One line per camera, rate and d. `used` is what fixpix does
(`nets.detectors.detect`), `unjudged` the same without the last judgement by repair, `unets` without the spot detector;
`--ship` writes the means and the worst cameras on the cards of the shipped nets.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import shipping
from measure import cameras

from fixpix_cli import classical, score
from fixpix_cli.cfa import Cfa
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.nets import registry
from fixpix_cli.nets.detectors import detect
from fixpix_cli.nets.spots import SpotDetector, shipped_spot
from fixpix_cli.nets.unets import UnetDetector

RATES = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.4, 0.7)
DELTAS = (0.7, 0.3)


class NoSpot(SpotDetector):
    """A spot detector that knows no CFA, so that the unets look at every frame."""

    def supports(self, cfa: Cfa) -> bool:
        return False


def compare(
    frames: list[Mosaic], detectors: dict[str, Callable[[Mosaic], classical.Detection]], rate: float, delta: float
) -> dict[str, score.Detection]:
    """Counts per detector, summed over the frames and seeds."""
    sums = {name: score.Detection() for name in detectors}
    for frame in frames:
        native = score.native_outliers(frame)
        for seed in range(min(4, max(1, round(150 / (rate * frame.samples.size))))):
            hurt = inject(frame, Injection(rate, delta, seed=500 + seed))
            damaged = frame.with_samples(hurt.samples)
            for name, detector in detectors.items():
                flagged = detector(damaged).probability > 0.5
                sums[name] += score.detection(flagged, hurt.dq != 0, native)
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("FIXPIX_DATA"))
    parser.add_argument("--model", default="unet")
    parser.add_argument("--ship", action="store_true", help="write the figures on the cards of the shipped nets")
    options = parser.parse_args()
    net = UnetDetector.open(options.model)
    detectors = {
        "rules": classical.detect,
        "unet": net,
        "unets": lambda mosaic: detect(mosaic, net=net, spot=NoSpot(shipped_spot().session)),
        "unjudged": lambda mosaic: detect(mosaic, net=net, judged=False),
        "used": lambda mosaic: detect(mosaic, net=net),
    }
    found: dict[tuple[float, float, str], list[list[float]]] = {}
    for camera, frames in cameras(Path(options.data)).items():
        for delta, rate in itertools.product(DELTAS, RATES):
            line = f"{camera:32} d {delta} rate {rate:7.2%}"
            for name, counts in compare(frames, detectors, rate, delta).items():
                ratios = counts.ratios()
                pair = [float(ratios[k] or 0) for k in ("recall", "precision")]
                found.setdefault((delta, rate, name), []).append(pair)
                line += f"   {name} {pair[0]:.3f} / {pair[1]:.3f}"
            print(line, flush=True)
    rows: dict[str, dict[str, list[float]]] = {}
    for (delta, rate, name), pairs in found.items():
        row = [round(float(v), 4) for v in (*np.mean(pairs, axis=0), *np.min(pairs, axis=0))]
        rows.setdefault(f"d {delta}, {rate:.2%}", {})[name] = row
        print(
            f"d {delta} rate {rate:7.2%}  {name:6} mean {row[0]:.3f} / {row[1]:.3f}  worst {row[2]:.3f} / {row[3]:.3f}"
        )
    if options.ship:
        for name in ("spot", "verdict", "unet", "unet-dense", "unet-crowds", "doubt"):
            ship(name, rows)


def ship(name: str, rows: dict[str, Any]) -> None:
    """The shipped model again, with these figures on its card."""
    shown = registry.show(name)
    metrics = {"definition": "recall, precision: mean of the validation cameras; then the worst camera's", "rows": rows}
    shipping.write(onnx.load(shown.path), replace(shown.card, metrics=metrics))


if __name__ == "__main__":
    main()
