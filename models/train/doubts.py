"""Train and export the net that judges doubtful pixels by their repair.

    python models/train/doubts.py --data FOLDER          # or FIXPIX_DATA=FOLDER

The net sees `fixpix_cli.normalise.doubts` of the pixels that the shipped detectors are not sure of, and answers their
log-odds anew. Outliers that a camera's frame has of its own are left out, since nobody knows what they are. A crop
counts by the root of its doubtful pixels, or dense damage alone would be learnt.

First a pool is drawn and kept, then the net learns from it. Both can be stopped at any time: started again, the run
goes on from its last part or checkpoint.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data as data_
import numpy as np
import shipping
import torch
import unet
from torch import nn

from fixpix_cli.inject import Injection, inject
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.nets.detectors import detect
from fixpix_cli.nets.doubts import features_of
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
#: Crops of a part of the pool.
PART = 50


class Doubt(nn.Module):
    """(n, LENGTH) features -> (n,) log-odds: what the detection said, and a correction."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        sizes = [doubts.LENGTH, *widths]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(sizes[-1], 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.last(x).reshape(-1)


def crops(
    folder: Path, settings: dict[str, Any], rng: np.random.Generator, use: str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Damaged crops without end: features, truth and weight of their doubtful pixels."""
    scenes, mlp = data_.Scenes(folder, use), shipped_mlp()
    damage, side = settings["damage"], settings["side"]
    shares = np.array([d[0] for d in damage])
    while True:
        _, kind, pattern, low, high = damage[int(rng.choice(len(damage), p=shares / shares.sum()))]
        rate = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        if rng.random() < settings["made_share"]:
            scene = data_.made(side, rng)
            clean = scene.mosaic
        else:
            scene = scenes.draw(rng, side, settings["photo_share"])
            clean = scene.mosaic
            if rng.random() < settings["bright_share"]:
                clean = unet.brightened(clean, rng)
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
        yield features_of(seen, pixels, mlp), bad[pixels], np.full(len(pixels), weight, np.float32)


def odds_of(probability: np.ndarray) -> np.ndarray:
    """The log-odds of probabilities, -13.8 to 13.8."""
    p = np.clip(probability, np.float32(1e-6), np.float32(1 - 1e-6))
    return np.asarray(np.log(p) - np.log1p(-p))


def pool(folder: Path, settings: dict[str, Any], seed: int, run: Path, use: str) -> list[Path]:
    """The parts of the pool, drawn where they are not there yet. Of validation scenes a thirtieth as many."""
    share, started, files = 1.0 if use == "train" else 1 / 30, time.monotonic(), []
    for number in range(max(1, round(share * settings["draws"] / PART))):
        path = run / f"{use}-{number:03}.npz"
        if not path.exists():
            if time.monotonic() - started > share * settings["seconds"]:
                break
            rng = np.random.default_rng([seed, number, use == "train"])
            drawn = zip(range(PART), crops(folder, settings, rng, use), strict=False)
            features, bad, weight = (np.concatenate(a) for a in zip(*(arrays for _, arrays in drawn), strict=True))
            part = path.with_suffix(".part.npz")
            np.savez(part, features=features, bad=bad, weight=weight)
            part.replace(path)
            print(f"{path.name}: {len(bad)} pixels, {time.monotonic() - started:.0f} s", flush=True)
        files.append(path)
    return files


def loaded(files: list[Path]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (N, LENGTH), truth (N,), weight (N,) of mean 1."""
    parts = [np.load(file) for file in files]
    features, bad, weight = (np.concatenate([p[k] for p in parts]) for k in ("features", "bad", "weight"))
    return torch.from_numpy(features), torch.from_numpy(bad).float(), torch.from_numpy(weight / weight.mean())


def train(files: list[Path], held: list[Path], settings: dict[str, Any], run: Path) -> tuple[Doubt, dict[str, Any]]:
    """The loop: cosine schedule, checkpoints, validation."""
    loop = settings["loop"]
    torch.manual_seed(settings["seed"])
    net = Doubt(settings["net"]["widths"])
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop["rate"], weight_decay=loop["decay"])
    checkpoint = shipping.Checkpoint(run / "checkpoint.pt", settings)
    step, spent, steps = 0, 0.0, loop["steps"]
    if kept := checkpoint.read():
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        step, spent = kept["step"], kept["spent"]
    features, bad, weight = loaded(files)
    validation, started, shown = loaded(held), time.monotonic() - spent, []
    while step < steps:
        rng = torch.Generator().manual_seed(settings["seed"] + step)
        chosen = torch.randint(len(bad), (loop["batch"],), generator=rng)
        for group in optimiser.param_groups:
            group["lr"] = loop["rate"] * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        loss = loss_of(net, features[chosen], bad[chosen], weight[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step += 1
        shown.append(loss.item())
        if step % loop["checkpoint"] == 0:
            with torch.no_grad():
                validated = loss_of(net, *validation).item()
                before = nn.functional.binary_cross_entropy_with_logits(
                    8 * validation[0][:, 0], validation[1], validation[2]
                ).item()
            seconds = time.monotonic() - started
            print(
                f"step {step}  loss {np.mean(shown):.4f}  validation {validated:.4f} (unjudged {before:.4f})"
                f"  {seconds:.0f} s",
                flush=True,
            )
            shown = []
            checkpoint.keep_run(net, optimiser, step, seconds)
    return net.eval(), {"steps": step, "seconds": round(time.monotonic() - started), "pixels": len(bad)}


def loss_of(net: Doubt, features: torch.Tensor, bad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return nn.functional.binary_cross_entropy_with_logits(net(features), bad, weight)


def shipped(net: Doubt, settings: dict[str, Any], facts: dict[str, Any], folder: Path) -> Any:
    """The net as ONNX and its card."""
    example = {"features": torch.randn(500, doubts.LENGTH)}
    model = shipping.export(net, example, {"odds": ("n",)})
    facts = facts | {
        "parameters": shipping.parameters(net),
        "torch_onnxruntime_difference": shipping.agreement(net, model, example),
        "mlp": shipped_mlp().session.sha256,
    }
    return model, shipping.card(
        settings["name"],
        "detect",
        "doubt",
        folder,
        inputs={"features": ("n", doubts.LENGTH)},
        outputs={"odds": ("n",)},
        normalisation=doubts.NORMALISATION,
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR"),
        serving=settings["serve"],
        training={k: v for k, v in settings.items() if k != "serve"} | facts,
        metrics={},
        limits=("trained without modern DSLR stills", "not for rare damage, nor for X-Trans and Quad-Bayer"),
        code=shipping.code(*CODE),
    )


def main() -> None:
    options = shipping.options(__doc__ or "", "doubts.toml")
    settings, run = options.recipe, options.run
    files, held = (pool(options.data, settings["data"], settings["seed"], run, use) for use in ("train", "validate"))
    net, facts = train(files, held, settings, run)
    shipping.write(*shipped(net, settings, facts, options.data), run)


if __name__ == "__main__":
    main()
