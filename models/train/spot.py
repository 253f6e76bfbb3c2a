"""Train and export the spot detector: the closer look at the candidates of a whole frame.

    python models/train/spot.py --data FOLDER          # or FIXPIX_DATA=FOLDER

The net sees `fixpix_cli.normalise.spots` of every candidate (`fixpix_cli.candidates`) and answers the log-likelihood
ratio of bad against good: in training the logit of the crop's true damage rate is added to its answer, so that at use
any rate can be the prior. A crop counts by the entropy of its rate, or one crop at 3 % would outweigh a hundred at
0.01 %. Outliers that a camera's frame has of its own are left out, since nobody knows what they are; in photographs
turned into raw and in simulated skies the truth is known, and sharp stars and glints are learnt as good.

First a pool of candidates is drawn and kept, then the net learns from it. Both can be stopped at any time: started
again, the run goes on from its last part or checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import data as data_
import numpy as np
import shipping
import torch
from torch import nn

from fixpix_cli.candidates import candidates
from fixpix_cli.inject import Injection, inject
from fixpix_cli.levels import Statistics
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.normalise import spots
from fixpix_cli.score import native_outliers

CODE = (
    "models/train/spot.py",
    "models/train/data.py",
    "fixpix_cli/candidates.py",
    "fixpix_cli/levels.py",
    "fixpix_cli/noise.py",
    "fixpix_cli/normalise/spots.py",
    "fixpix_cli/inject.py",
)
#: Crops of a part of the pool.
PART = 200


class Spot(nn.Module):
    """(LENGTH, n) features of one pattern, and which (1, patterns; 1 there) -> (n,) log-likelihood ratios."""

    def __init__(self, patterns: int, widths: list[int]) -> None:
        super().__init__()
        a, b = widths
        self.first = nn.Parameter(torch.randn(patterns, a, spots.LENGTH) * math.sqrt(2 / spots.LENGTH))
        self.bias = nn.Parameter(torch.zeros(patterns, a, 1))
        self.second, self.last = nn.Linear(a, b), nn.Linear(b, 1)

    def forward(self, window: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
        weight, bias = (torch.matmul(pattern, p.flatten(1)).reshape(p.shape[1:]) for p in (self.first, self.bias))
        x = torch.relu(torch.matmul(weight, window) + bias)
        x = torch.relu(torch.matmul(self.second.weight, x) + self.second.bias[:, None])
        return (torch.matmul(self.last.weight, x) + self.last.bias[:, None]).squeeze(0)


def crops(folder: Path, settings: dict[str, Any], rng: np.random.Generator, use: str) -> Iterator[list[np.ndarray]]:
    """Damaged crops without end: pattern, features, truth, weight and prior of their candidates."""
    for light, bad, ignored in damaged(folder, settings, rng, use):
        seen = Statistics.of(light)
        found = candidates(light, seen)
        kept, weight = thinned(found[~ignored[found] | bad[found]], bad, settings["most"], rng)
        factor, prior = importance(bad)
        weight *= factor
        for number, index, features in spots.encode(light, seen, kept):
            mine = len(index)
            yield [
                np.full(mine, number, np.int8),
                features.T.astype(np.float16),
                bad[kept[index]],
                weight[index].astype(np.float32),
                np.full(mine, prior, np.float32),
            ]
        yield []


def damaged(
    folder: Path, settings: dict[str, Any], rng: np.random.Generator, use: str
) -> Iterator[tuple[Mosaic, Any, Any]]:
    """Damaged crops without end; which of their pixels, row by row, are bad, and which stood out before."""
    scenes = data_.Scenes(folder, use)
    side, others = settings["side"], settings.get("others", 0.0)
    while True:
        if rng.random() < settings["made_share"]:
            scene = data_.made(side, rng, others)
        else:
            scene = scenes.draw(rng, side, settings["photo_share"], others)
        clean = scene.mosaic
        # The noiseless samples of a camera's frame are not known: they are its own.
        real = np.shares_memory(scene.clean, clean.samples)
        ignored = (native_outliers(clean) if real else np.zeros(clean.shape, bool)).reshape(-1)
        for _ in range(settings["times"]):
            (kind, pattern), rate = data_.drawn_damage(settings["damage"], rng)
            spec = Injection(rate, float(rng.uniform(*settings["delta"])), kind, pattern, seed=int(rng.integers(2**31)))
            hurt = inject(clean, spec, exposure=float(np.exp(rng.uniform(-3, 3))))
            bad = (hurt.dq != 0).reshape(-1)
            if 0 < np.count_nonzero(bad) < 0.5 * bad.size:
                yield clean.with_samples(hurt.samples), bad, ignored


def importance(bad: Any) -> tuple[float, float]:
    """What a pixel of a crop counts, by the entropy of the crop's damage rate, and the logit of that rate."""
    share = np.count_nonzero(bad) / bad.size
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    return 1 / ((entropy + 0.0005) * bad.size), math.log(share / (1 - share))


def thinned(found: Any, bad: Any, most: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """At most so many good and so many bad candidates, each with the number that it stands for."""
    kept, weights = [], []
    for mine in (found[~bad[found]], found[bad[found]]):
        chosen = mine if len(mine) <= most else np.sort(rng.choice(mine, most, replace=False))
        kept.append(chosen)
        weights.append(np.full(len(chosen), len(mine) / max(1, len(chosen))))
    return np.concatenate(kept), np.concatenate(weights)


def pool(folder: Path, settings: dict[str, Any], seed: int, run: Path, use: str = "train") -> list[Path]:
    """The parts of the pool, drawn where they are not there yet. Of validation scenes a twentieth as many."""
    share = 1.0 if use == "train" else 0.05
    parts, started = max(1, round(share * settings["draws"] * settings["times"] / PART)), time.monotonic()
    files = []
    for number in range(parts):
        path = run / f"{use}-{number:03}.npz"
        if not path.exists():
            if time.monotonic() - started > share * settings["seconds"]:
                break
            drawn: list[list[np.ndarray]] = []
            count = 0
            for arrays in crops(folder, settings, np.random.default_rng([seed, number, use == "train"]), use):
                count += not arrays
                if arrays:
                    drawn.append(arrays)
                if count == PART:
                    break
            whole = [np.concatenate(arrays) for arrays in zip(*drawn, strict=True)]
            part = path.with_suffix(".part.npz")
            np.savez(part, pattern=whole[0], features=whole[1], bad=whole[2], weight=whole[3], prior=whole[4])
            part.replace(path)
            print(f"{path.name}: {len(whole[0])} candidates, {time.monotonic() - started:.0f} s", flush=True)
        files.append(path)
    return files


class Pool:
    """All candidates of some parts, in memory.

    arrays : pattern (N,), features (N, LENGTH) float16, bad (N,), weight (N,) of mean 1, prior (N,)
    """

    def __init__(self, files: list[Path]) -> None:
        loaded = [np.load(file) for file in files]
        self.arrays = [
            np.concatenate([part[name] for part in loaded])
            for name in ("pattern", "features", "bad", "weight", "prior")
        ]
        self.arrays[3] /= self.arrays[3].mean()

    def batches(self, size: int, rng: np.random.Generator | None) -> Iterator[list[torch.Tensor]]:
        """Once through, shuffled or not."""
        order = np.arange(len(self.arrays[0])) if rng is None else rng.permutation(len(self.arrays[0]))
        for start in range(0, len(order), size):
            chosen = np.sort(order[start : start + size])
            yield [torch.from_numpy(array[chosen]) for array in self.arrays]


def misjudged(features: torch.Tensor, spread: float) -> torch.Tensor:
    """The same (N, LENGTH) features as if each frame's noise had been taken for more or less than it is.

    Its estimate errs where a camera has a fixed pattern, or smooths; a net that trusts it calls a fifth of such a
    frame's candidates bad.
    """
    factor = torch.exp(spread * torch.randn(len(features), 1))
    window, beside = features[:, : spots.WINDOW], features[:, spots.WINDOW :].clone()
    size = window.abs().clamp(max=0.9995)
    u = factor * size / (1 - size)  # in units of 4 sigma
    beside[:, 2:5] = torch.log1p(torch.expm1(4 * beside[:, 2:5]) * factor) / 4
    return torch.cat([torch.sign(window) * u / (1 + u), beside], dim=1)


def loss_of(net: Spot, batch: list[torch.Tensor]) -> torch.Tensor:
    """Weighted cross-entropy under each crop's own rate as the prior."""
    pattern, features, bad, weight, prior = batch
    total = torch.zeros(())
    for number in torch.unique(pattern):
        mine = pattern == number
        which = nn.functional.one_hot(number.long()[None], len(spots.patterns())).float()
        ratio = net(features[mine].float().T, which)
        part = nn.functional.binary_cross_entropy_with_logits(
            ratio + prior[mine], bad[mine].float(), weight[mine], reduction="sum"
        )
        total = total + part
    return total / len(pattern)


def train(parts: Pool, held: Pool, settings: dict[str, Any], run: Path) -> tuple[Spot, dict[str, Any]]:
    """The loop: cosine schedule, checkpoints, validation."""
    loop = settings["loop"]
    torch.manual_seed(settings["seed"])
    net = Spot(len(spots.patterns()), settings["net"]["widths"])
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop["rate"], weight_decay=loop["decay"])
    step, spent = 0, 0.0
    checkpoint = shipping.Checkpoint(run / "checkpoint.pt", settings)
    if kept := checkpoint.read():
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        step, spent = kept["step"], kept["spent"]
        print(f"resumed at step {step}")
    started, shown, progress = time.monotonic() - spent, [], 0.0
    while progress < 1:
        for batch in parts.batches(loop["batch"], np.random.default_rng([settings["seed"], step])):
            progress = max(step / loop["steps"], (time.monotonic() - started) / loop["seconds"])
            if progress >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = loop["rate"] * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * progress))
            batch[1] = misjudged(batch[1].float(), loop["noise_spread"])
            loss = loss_of(net, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            step += 1
            shown.append(loss.item())
            if step % loop["checkpoint"] == 0:
                with torch.no_grad():
                    validated = np.mean([loss_of(net, part).item() for part in held.batches(loop["batch"], None)])
                seconds = time.monotonic() - started
                print(
                    f"step {step}  loss {np.mean(shown):.4f}  validation {validated:.4f}  {seconds:.0f} s", flush=True
                )
                shown = []
                checkpoint.keep_run(net, optimiser, step, seconds)
    checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    return net.eval(), {"steps": step, "seconds": round(time.monotonic() - started), "candidates": len(parts.arrays[0])}


def shipped(net: Spot, settings: dict[str, Any], facts: dict[str, Any], folder: Path) -> Any:
    """The net as ONNX and its card."""
    which = torch.eye(len(spots.patterns()))[1:2]
    example = {"window": torch.randn(spots.LENGTH, 500), "pattern": which}
    shapes: dict[str, tuple[int | str, ...]] = {"window": (spots.LENGTH, "n"), "pattern": tuple(which.shape)}
    model = shipping.export(net, example, {"ratio": ("n",)}, shapes)
    facts = facts | {
        "parameters": shipping.parameters(net),
        "torch_onnxruntime_difference": shipping.agreement(net, model, example),
    }
    return model, shipping.card(
        settings["name"],
        "detect",
        "spot",
        folder,
        inputs=shapes,
        outputs={"ratio": ("n",)},
        normalisation=spots.NORMALISATION,
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR", "XTRANS", "QUAD_RGGB"),
        serving=settings.get("serve", {}),
        training=settings | facts,
        metrics={},
        limits=("damage up to a few percent", "trained without modern DSLR stills and without real X-Trans frames"),
        code=shipping.code(*CODE),
    )


def main() -> None:
    options = shipping.options(__doc__ or "", "spot.toml")
    settings, run = options.recipe, options.run
    parts, held = (
        Pool(pool(options.data, settings["data"], settings["seed"], run, use)) for use in ("train", "validate")
    )
    net, facts = train(parts, held, settings, run)
    shipping.write(*shipped(net, settings, facts, options.data), run)


if __name__ == "__main__":
    main()
