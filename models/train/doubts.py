"""Train and export the net that judges doubtful pixels by their repair.

    python models/train/doubts.py --data FOLDER          # or FIXPIX_DATA=FOLDER

The net sees `fixpix_cli.normalise.doubts` of the pixels that the shipped detectors are not sure of, and answers their
log-odds anew. Outliers that a camera's frame has of its own are left out, since nobody knows what they are. A crop
counts by the root of its doubtful pixels, or dense damage alone would be learnt.

First a pool is drawn and kept, then the net learns from it (`judges`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data as data_
import judges
import numpy as np
import shipping
import unet

from fixpix_cli.inject import Injection, inject
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.nets.detectors import detect
from fixpix_cli.nets.doubts import DoubtDetector, features_of
from fixpix_cli.normalise import doubts
from fixpix_cli.score import native_outliers

CODE = (
    "models/train/doubts.py",
    "models/train/data.py",
    "fixpix_cli/normalise/doubts.py",
    "fixpix_cli/normalise/windows.py",
    "fixpix_cli/nets/detectors.py",
    "fixpix_cli/nets/doubts.py",
    "fixpix_cli/inject.py",
)
LIMITS = ("not for rare damage, nor for X-Trans and Quad-Bayer",)


def crops(folder: Path, settings: dict[str, Any], rng: np.random.Generator, use: str) -> Iterator[judges.Crop]:
    """Damaged crops without end: features, truth and weight of their doubtful pixels; no prior."""
    scenes, mlp = data_.Scenes(folder, use), shipped_mlp()
    side = settings["side"]
    while True:
        (kind, pattern), rate = data_.drawn_damage(settings["damage"], rng)
        if rng.random() < settings["made_share"]:
            scene = data_.made(side, rng)
            clean = scene.mosaic
        else:
            scene = scenes.draw(rng, side, settings["photo_share"])
            clean = scene.mosaic
            if rng.random() < settings["bright_share"]:
                clean = unet.brightened(clean, rng)
            if rng.random() < settings["shade_share"]:
                clean = unet.shaded(clean, rng)
        spec = Injection(rate, float(rng.uniform(*settings["delta"])), kind, pattern, seed=int(rng.integers(2**31)))
        hurt = inject(clean, spec, exposure=float(np.exp(rng.uniform(-3, 3))))
        light = clean.with_samples(hurt.samples)
        found = detect(light, thorough=rng.random() < settings["thorough_share"], judged=False)
        if found.image is None or found.rate < settings["least_rate"]:  # candidates alone are not judged
            continue
        odds = odds_of(found.image)
        seen = doubts.Doubts(light, odds, found.rate)
        pixels, bad = seen.doubtful, (hurt.dq != 0).reshape(-1)
        # The noiseless samples of a camera's frame are not known: they are its own.
        if np.shares_memory(scene.clean, scene.mosaic.samples):
            pixels = pixels[~native_outliers(clean).reshape(-1)[pixels] | bad[pixels]]
        if not len(pixels):
            continue
        count = len(pixels)
        if count > settings["most"]:
            pixels = np.sort(rng.choice(pixels, settings["most"], replace=False))
        weight = math.sqrt(count) / len(pixels)
        weights, prior = np.full(len(pixels), weight, np.float32), np.zeros(len(pixels), np.float32)
        yield features_of(seen, pixels, mlp), bad[pixels], weights, prior


def odds_of(probability: np.ndarray) -> np.ndarray:
    """The log-odds of probabilities, -13.8 to 13.8."""
    p = np.clip(probability, np.float32(1e-6), np.float32(1 - 1e-6))
    return np.asarray(np.log(p) - np.log1p(-p))


def main() -> None:
    options = shipping.options(__doc__ or "", "doubts.toml")
    settings, run = options.recipe, options.run
    files, held = (judges.pool(crops, options.data, settings, run, use) for use in ("train", "validate"))
    net, facts = judges.train(doubts.LENGTH, files, held, settings, run)
    whole = judges.shipped(net, settings, facts, options.data, DoubtDetector, "odds", LIMITS, CODE)
    shipping.write(*whole, run)


if __name__ == "__main__":
    main()
