"""What the recipes of small nets share that judge single pixels: a pool drawn once, the net, the loop, the card.

A pool is kept in parts of some crops. Both it and the loop can be stopped at any time: started again, a run goes on
from its last part or checkpoint.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shipping
import torch
from torch import nn

from fixpix_cli.nets import judges as detectors
from fixpix_cli.nets.correctors import shipped_mlp

#: Features (n, LENGTH), truth (n,), weight (n,), and the log-odds (n,) that are added to the net's answers in training.
Crop = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
#: Data folder, the recipe's data section, random numbers and the use ("train", "validate") -> crops without end.
Crops = Callable[[Path, dict[str, Any], np.random.Generator, str], Iterator[Crop]]
_NAMES = ("features", "bad", "weight", "prior")


class Judge(nn.Module):
    """(n, length) features -> (n,) answers."""

    def __init__(self, length: int, widths: list[int]) -> None:
        super().__init__()
        sizes = [length, *widths]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(sizes[-1], 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = features
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.last(x).reshape(-1)


def pool(crops: Crops, folder: Path, recipe: dict[str, Any], run: Path, use: str) -> list[Path]:
    """The parts of the pool, drawn where they are not there yet. Of validation scenes a thirtieth as many."""
    settings, seed = recipe["data"], recipe["seed"]
    share, started, files = 1.0 if use == "train" else 1 / 30, time.monotonic(), []
    for number in range(max(1, round(share * settings["draws"] / settings["part"]))):
        path = run / f"{use}-{number:03}.npz"
        if not path.exists():
            if time.monotonic() - started > share * settings["seconds"]:
                break
            draw_part(crops, folder, settings, np.random.default_rng([seed, number, use == "train"]), use, path)
            print(f"{path.name}: {time.monotonic() - started:.0f} s", flush=True)
        files.append(path)
    return files


def draw_part(
    crops: Crops, folder: Path, settings: dict[str, Any], rng: np.random.Generator, use: str, path: Path
) -> None:
    """One part of the pool, as a file that is there as a whole or not at all."""
    drawn = itertools.islice(crops(folder, settings, rng, use), settings["part"])
    whole = [np.concatenate(arrays) for arrays in zip(*drawn, strict=True)]
    part = path.with_suffix(".part.npz")
    np.savez(part, **dict(zip(_NAMES, whole, strict=True)))
    part.replace(path)


def loaded(files: list[Path]) -> list[torch.Tensor]:
    """Features (N, LENGTH), truth (N,), weight (N,) of mean 1, prior (N,)."""
    parts = [np.load(file) for file in files]
    features, bad, weight, prior = (np.concatenate([p[k] for p in parts]) for k in _NAMES)
    return [torch.from_numpy(a.astype(np.float32)) for a in (features, bad, weight / weight.mean(), prior)]


def train(
    length: int, files: list[Path], held: list[Path], recipe: dict[str, Any], run: Path
) -> tuple[Judge, dict[str, Any]]:
    """The loop: cosine schedule, checkpoints, validation; beside it the loss of the first feature alone times 8.

    With the setting ``noise`` the features are learnt with so many of their standard deviations of noise, as if the
    frames were other cameras'. Without it the net that judges candidates learns its training cameras: a validation loss
    of .040 instead of .033 (.061 unjudged).
    """
    loop = recipe["loop"]
    torch.manual_seed(recipe["seed"])
    net = Judge(length, recipe["net"]["widths"])
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop["rate"], weight_decay=loop["decay"])
    checkpoint = shipping.Checkpoint(run / "checkpoint.pt", recipe)
    step, spent, steps = 0, 0.0, loop["steps"]
    if kept := checkpoint.read():
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        step, spent = kept["step"], kept["spent"]
    known, validation = loaded(files), loaded(held)
    started, shown = time.monotonic() - spent, []
    spread = loop.get("noise", 0.0) * known[0].std(0)
    before = _cross_entropy(8 * validation[0][:, 0], validation).item()
    while step < steps:
        rng = torch.Generator().manual_seed(recipe["seed"] + step)
        chosen = torch.randint(len(known[0]), (loop["batch"],), generator=rng)
        for group in optimiser.param_groups:
            group["lr"] = loop["rate"] * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        batch = [array[chosen] for array in known]
        noise = spread * torch.randn(batch[0].shape, generator=rng)
        loss = _cross_entropy(net(batch[0] + noise), batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        step += 1
        shown.append(loss.item())
        if step % loop["checkpoint"] == 0:
            with torch.no_grad():
                validated = _cross_entropy(net(validation[0]), validation).item()
            seconds = time.monotonic() - started
            print(
                f"step {step}  loss {np.mean(shown):.4f}  validation {validated:.4f} (unjudged {before:.4f})"
                f"  {seconds:.0f} s",
                flush=True,
            )
            shown = []
            checkpoint.keep_run(net, optimiser, step, seconds)
    return net.eval(), {"steps": step, "seconds": round(time.monotonic() - started), "pixels": len(known[0])}


def shipped(
    net: Judge,
    recipe: dict[str, Any],
    facts: dict[str, Any],
    folder: Path,
    detector: type[detectors.Judge],
    output: str,
    limits: tuple[str, ...],
    code: tuple[str, ...],
) -> Any:
    """The net as ONNX and its card, for the class that serves it."""
    example = {"features": torch.randn(500, detector.LENGTH)}
    model = shipping.export(net, example, {output: ("n",)})
    facts = facts | {
        "parameters": shipping.parameters(net),
        "torch_onnxruntime_difference": shipping.agreement(net, model, example),
        "mlp": shipped_mlp().session.sha256,
    }
    return model, shipping.card(
        recipe["name"],
        "detect",
        detector.FAMILY,
        folder,
        inputs={"features": ("n", detector.LENGTH)},
        outputs={output: ("n",)},
        normalisation=detector.NORMALISATION,
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR"),
        serving=recipe["serve"],
        training={k: v for k, v in recipe.items() if k != "serve"} | facts,
        metrics={},
        limits=("trained without modern DSLR stills", *limits),
        code=shipping.code("models/train/judges.py", *code),
    )


def _cross_entropy(answers: torch.Tensor, batch: list[torch.Tensor]) -> torch.Tensor:
    _, bad, weight, prior = batch
    return nn.functional.binary_cross_entropy_with_logits(answers + prior, bad, weight)
