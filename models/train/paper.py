"""Train the FixPix paper's own MLP, 24-48-12-1, on our data: the reference row of the tables.

    python models/train/paper.py --data FOLDER

What the paper says (section 4, 5.1): the 24 neighbours of a 5 x 5 window, two hidden layers with ReLU, MSE, 50
epochs, learning rate 0.01, one model per error rate, trained with the bad neighbours at that rate, no mask. What it
does not say and we chose: values over white (`normalise.paper`), Adam with cosine decay, batches of 2048, Bayer
phases and mono together. Scenes, split and damage are those of `mlp.py`; here bad neighbours hold their bad values.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import data as data_
import numpy as np
import shipping
import torch
from torch import nn

from fixpix_cli.inject import Injection, inject
from fixpix_cli.normalise import paper

CODE = ("models/train/paper.py", "models/train/data.py", "fixpix_cli/normalise/paper.py")


class Paper(nn.Module):
    """(N, 24) float32 -> (N,) float32, both in units of white."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([paper.NEIGHBOURS, *widths]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return self.body(window).flatten()


def pools(folder: Path, settings: dict[str, Any]) -> dict[float, tuple[torch.Tensor, torch.Tensor]]:
    """Rate -> windows and true values over white; the same scenes at every rate."""
    rng = np.random.default_rng(settings["seed"])
    scenes, data = data_.Scenes(folder), settings["data"]
    found: dict[float, list[tuple[np.ndarray, np.ndarray]]] = {rate: [] for rate in settings["rates"]}
    for _ in range(data["draws"]):
        if rng.random() < data["sky_share"]:
            scene = data_.made(data["side"], rng)
        else:
            scene = scenes.draw(rng, data["side"], data["photo_share"])
        for rate, kept in found.items():
            damage = inject(scene.mosaic, Injection(rate, settings["delta"], seed=int(rng.integers(2**31))))
            rows, cols = np.nonzero(damage.dq)
            chosen = rng.permutation(len(rows))[: data["targets"]]
            rows, cols = rows[chosen], cols[chosen]
            window = paper.encode(scene.mosaic.with_samples(damage.samples), rows, cols)
            kept.append((window, (scene.clean[rows, cols] / scene.mosaic.white).astype(np.float32)))
    return {
        rate: (
            torch.from_numpy(np.concatenate([w for w, _ in kept])),
            torch.from_numpy(np.concatenate([t for _, t in kept])),
        )
        for rate, kept in found.items()
    }


def train(
    windows: torch.Tensor, truth: torch.Tensor, settings: dict[str, Any], checkpoint: shipping.Checkpoint
) -> Paper:
    """Mean squared error, Adam, cosine decay over the epochs."""
    loop = settings["loop"]
    torch.manual_seed(settings["seed"])
    net = Paper(settings["net"]["widths"])
    optimiser = torch.optim.Adam(net.parameters(), lr=loop["rate"])
    first = 0
    if state := checkpoint.read():
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    for epoch in range(first, loop["epochs"]):
        optimiser.param_groups[0]["lr"] = loop["rate"] * (0.5 + 0.5 * math.cos(math.pi * epoch / loop["epochs"]))
        order, total = torch.randperm(len(truth)), 0.0
        for index in order.split(loop["batch"]):
            loss = nn.functional.mse_loss(net(windows[index]), truth[index])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += loss.item() * len(index)
        checkpoint.keep_run(net, optimiser, epoch + 1, 0.0)
        print(
            f"{checkpoint.path.stem} epoch {epoch + 1}  root mean square error {math.sqrt(total / len(truth)):.5f}",
            flush=True,
        )
    return net.eval()


def main() -> None:
    options = shipping.options(__doc__ or "", "paper.toml")
    settings = options.recipe
    shipping.REFERENCE.mkdir(exist_ok=True)
    for rate, (windows, truth) in pools(options.data, settings).items():
        name = f"paper-mlp-{100 * rate:g}"
        net = train(windows, truth, settings, shipping.Checkpoint(options.run / f"{name}.pt", settings))
        model = shipping.export(net, {"window": windows[:16]}, {"value": ("n",)})
        facts = {
            "samples": len(truth),
            "parameters": shipping.parameters(net),
            "torch_onnxruntime_difference": shipping.agreement(net, model, {"window": windows[:4096]}),
        }
        card = shipping.card(
            name,
            "correct",
            "paper-mlp",
            options.data,
            inputs={"window": ("n", paper.NEIGHBOURS)},
            outputs={"value": ("n",)},
            normalisation=paper.NORMALISATION,
            cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR"),
            serving={"rate": rate},
            training=settings | facts,
            metrics={},
            limits=("a reference to compare with: sees no mask, no CFA phase, and is for one damage rate",),
            code=shipping.code(*CODE),
        )
        shipping.write(model, card, shipping.REFERENCE)


if __name__ == "__main__":
    main()
