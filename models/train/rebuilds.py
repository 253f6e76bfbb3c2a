"""The vit against the baselines and the mlp on the validation cameras, with the mask and blind.

    python models/train/rebuilds.py --data FOLDER [--vit FILE] [--blind] [--damage 70%,5x5] [--side 480]

Excess error of a repair: squared error minus the noise variance of the pixel (the frame's noise model), summed over
the damaged pixels of one frame per camera. Every figure is the mean over cameras of a ratio on the same pixels: over
the best baseline of that camera and damage, and of each other method over least squares. Damage: relative, d = 0.7.
Needs OpenCV (opencv-python-headless) for its inpainting.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import onnx
import shipping
from measure import cameras

from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Area, Bool, Mosaic
from fixpix_cli.nets import cards, registry
from fixpix_cli.nets.correctors import MlpCorrector
from fixpix_cli.nets.detectors import detect
from fixpix_cli.nets.reconstructors import BlindVit, VitCorrector
from fixpix_cli.noise import NoiseModel
from fixpix_cli.repair import Corrector, gradient, least_squares, linear, median, repair, repairable

DAMAGE = (
    ("1%", 0.01, "scattered"),
    ("10%", 0.1, "scattered"),
    ("20%", 0.2, "scattered"),
    ("40%", 0.4, "scattered"),
    ("55%", 0.55, "scattered"),
    ("70%", 0.7, "scattered"),
    ("85%", 0.85, "scattered"),
    ("92%", 0.92, "scattered"),
    ("2x2", 0.01, "cluster:2"),
    ("3x3", 0.01, "cluster:3"),
    ("4x4", 0.01, "cluster:4"),
    ("5x5", 0.01, "cluster:5"),
    ("6x6", 0.01, "cluster:6"),
    ("columns", 0.01, "columns"),
)
BASELINES = ("least squares", "linear", "median", "gradient", "opencv")


def opencv(mosaic: Mosaic, bad: Bool) -> np.ndarray:
    """OpenCV's inpainting (Telea, radius 3) of every colour plane, 16 bits."""
    out = np.full(mosaic.shape, np.nan)
    for r, c in mosaic.cfa.positions:
        plane = (slice(r, None, mosaic.cfa.period[0]), slice(c, None, mosaic.cfa.period[1]))
        samples = mosaic.samples[plane].astype(np.uint16)
        out[plane] = cv2.inpaint(samples, bad[plane].astype(np.uint8), 3, cv2.INPAINT_TELEA)
    return out[bad]


def measure(
    folder: Path, methods: dict[str, Corrector], damages: Iterable[tuple[str, float, str]], side: int
) -> dict[str, dict]:
    """Per damage and camera: pixels, energy, noise, and the squared error of every method, DN^2."""
    found: dict[str, dict] = {}
    scenes = {camera: _centre(frames[0], side) for camera, frames in cameras(folder).items()}
    for name, rate, pattern in damages:
        found[name] = {"rate": rate, "pattern": pattern, "cameras": {}}
        for camera, frame in scenes.items():
            found[name]["cameras"][camera] = _errors(frame, rate, pattern, methods)
        print(line(name, found[name], methods), flush=True)
    return found


def _centre(mosaic: Mosaic, side: int) -> Mosaic:
    height, width = mosaic.shape
    top, left = (max(0, n - side) // 4 * 2 for n in (height, width))
    return mosaic.cropped(Area(top, left, min(height, top + side), min(width, left + side)))


def _errors(frame: Mosaic, rate: float, pattern: str, methods: dict[str, Corrector]) -> dict[str, float]:
    damage = inject(frame, Injection(rate, pattern=pattern, seed=4242))
    damaged = frame.with_samples(damage.samples)
    bad = repairable(frame, damage.dq != 0)
    rows, cols = np.nonzero(bad)
    truth = frame.samples[rows, cols].astype(np.float64)
    noise = NoiseModel.of(frame).sigma(truth - frame.black_at(rows, cols)) ** 2
    sums = {"pixels": float(len(rows)), "energy": float((truth**2).sum()), "noise": float(noise.sum())}
    for name, method in methods.items():
        answer = repair(damaged, bad, method)[rows, cols].astype(np.float64)
        sums[name] = float(((answer - truth) ** 2).sum())
    return sums


def excess(sums: dict[str, float], method: str) -> float:
    """Excess error of a method, DN^2; at least a thousandth of the noise, below which no difference is left."""
    return max(sums[method] - sums["noise"], 1e-3 * sums["noise"], 1e-9)


def ratios(facts: dict, method: str, over: str | None = None) -> list[float]:
    """Excess error of a method over another (default: the best baseline), camera by camera."""
    out = []
    for sums in facts["cameras"].values():
        best = excess(sums, over) if over else min(excess(sums, b) for b in BASELINES)
        out.append(excess(sums, method) / best)
    return out


def line(name: str, facts: dict, methods: dict[str, Corrector]) -> str:
    """Over the best baseline: mean and worst camera of ours; over least squares: the mean of all."""
    ours = [m for m in methods if m not in BASELINES]
    first = "  ".join(f"{m} {np.mean(r):.3f} (worst {max(r):.3f})" for m in ours if (r := ratios(facts, m)))
    second = "  ".join(f"{m} {np.mean(ratios(facts, m, 'least squares')):.3f}" for m in methods if m != "least squares")
    return f"{name:8} over the best baseline: {first} | over least squares: {second}"


def summary(found: dict[str, dict], methods: dict[str, Corrector]) -> dict:
    """For the cards: excess error over the best baseline (mean, worst camera) and over the mlp (mean) by damage."""
    out: dict = {"baseline": "the best of " + ", ".join(BASELINES) + ", same pixels; below 1 is better", "damage": {}}
    out["mlp"] = registry.read("mlp").sha256  # from whose estimates the net began here
    for name, facts in found.items():
        row = out["damage"][name] = {"rate": facts["rate"], "pattern": facts["pattern"]}
        for method in [m for m in methods if m not in BASELINES]:
            over = ratios(facts, method)
            row[method] = {"mean": round(float(np.mean(over)), 3), "worst": round(max(over), 3)}
        row["vit over mlp"] = round(float(np.mean(ratios(facts, "vit", "mlp"))), 3)
        if "vit-blind" in methods:
            row["vit-blind over vit"] = round(float(np.mean(ratios(facts, "vit-blind", "vit"))), 3)
    return out


def ship(path: Path, metrics: dict) -> None:
    """A model of a run as a shipped one, with what was measured on its card."""
    model = onnx.load(path)
    text = next(entry.value for entry in model.metadata_props if entry.key == cards.KEY)
    shipping.write(model, dataclasses.replace(cards.Card.parse(text, str(path)), metrics=metrics))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("FIXPIX_DATA"))
    parser.add_argument("--vit", default="vit")
    parser.add_argument("--blind", action="store_true", help="also without the mask")
    parser.add_argument("--damage", default="", help="only these, for example 70%%,5x5")
    parser.add_argument("--side", type=int, default=480, help="pixels of the central part of each frame")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ship", action="store_true", help="put the net, with the figures on its card, in models/")
    options = parser.parse_args()
    vit = VitCorrector.open(options.vit)
    methods: dict[str, Corrector] = {
        "least squares": least_squares,
        "linear": linear,
        "median": median,
        "gradient": gradient,
        "opencv": opencv,
        "mlp": MlpCorrector.open("mlp"),
        "vit": vit,
    }
    if options.blind:
        methods["vit-blind"] = BlindVit(vit, lambda light: detect(light).probability)
    wanted = [d for d in DAMAGE if not options.damage or d[0] in options.damage.split(",")]
    found = measure(Path(options.data), methods, wanted, options.side)
    for name, facts in found.items():
        print(name, {c: round(r, 3) for c, r in zip(facts["cameras"], ratios(facts, "vit"), strict=True)})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if options.ship:
        ship(Path(options.vit), summary(found, methods))


if __name__ == "__main__":
    main()
