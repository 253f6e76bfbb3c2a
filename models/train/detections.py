"""Detectors side by side on the validation cameras.

    python models/train/detections.py --data FOLDER [--model FILE.onnx]

Relative damage, precision and recall at a probability of 0.5, native outliers ignored; large frames are measured
on their central part; few-pixel rates with several seeds. One line per camera, rate and d.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from measure import cameras

from fixpix_cli import classical, score
from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.nets.detectors import UnetDetector, detect

RATES = (0.0001, 0.001, 0.01, 0.2, 0.7)
DELTAS = (0.7, 0.3)


def compare(frames: list[Mosaic], detectors: dict, rate: float, delta: float) -> dict[str, score.Detection]:
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
    options = parser.parse_args()
    net = UnetDetector.open(options.model)
    detectors = {"rules": classical.detect, "unet": net, "used": lambda mosaic: detect(mosaic, net=net)}
    means: dict[tuple[float, float, str], list[list[float]]] = {}
    for camera, frames in cameras(Path(options.data)).items():
        for delta in DELTAS:
            for rate in RATES:
                line = f"{camera:32} d {delta} rate {rate:7.2%}"
                for name, counts in compare(frames, detectors, rate, delta).items():
                    ratios = counts.ratios()
                    pair = [float(ratios[k] or 0) for k in ("recall", "precision")]
                    means.setdefault((delta, rate, name), []).append(pair)
                    line += f"   {name} {pair[0]:.3f} / {pair[1]:.3f}"
                print(line, flush=True)
    for (delta, rate, name), pairs in means.items():
        recall, precision = np.mean(pairs, axis=0)
        print(f"mean of cameras  d {delta} rate {rate:7.2%}  {name:6} recall {recall:.3f}  precision {precision:.3f}")


if __name__ == "__main__":
    main()
