"""Train, export and measure the mlp corrector.

    python models/train/mlp.py --data FOLDER          # or FIXPIX_DATA=FOLDER
    python models/train/mlp.py --data FOLDER --table  # only measure the exported model and print the table

The net sees what `fixpix_cli.windows.encode` makes of a window and answers the residual over the first
estimate. A run can be stopped at any time: started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import data as data_
import numpy as np
import onnx
import shipping
import torch
from measure import best_below, measure, print_table, summary
from torch import nn

from fixpix_cli.nets import cards
from fixpix_cli.normalise import windows

#: What the hash of the training code covers, relative to the repository.
CODE = ("models/train/mlp.py", "models/train/data.py", "models/train/measure.py", "fixpix_cli/normalise/windows.py")


class Mlp(nn.Module):
    """(N, FEATURES) float32 -> (N,) float32 residual over the first estimate, in units."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise([windows.FEATURES, *widths]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(window))[:, 0]


def symmetries() -> torch.Tensor:
    """(8, FEATURES) indices that mirror and turn the window; the kinds of centre are the same in all."""
    side = 2 * windows.RADIUS + 1
    grid = np.arange(side * side).reshape(side, side)
    turned = [np.rot90(g, k) for g in (grid, grid.T) for k in range(4)]
    rest = np.arange(2 * side * side, windows.FEATURES)
    rows = [np.concatenate([t.ravel(), t.ravel() + side * side, rest]) for t in turned]
    return torch.from_numpy(np.stack(rows))


def pool(folder: Path, settings: dict[str, Any], run: Path) -> data_.Batch:
    """The training samples, drawn once per settings and kept in the run's folder."""
    key = hashlib.sha256(json.dumps([settings["data"], settings["seed"]]).encode()).hexdigest()[:12]
    path = run / f"pool-{key}.npz"
    if not path.exists():
        batch = data_.pool(folder, settings["data"], settings["seed"])
        np.savez(path, features=batch.features, target=batch.target, scale=batch.scale)
    with np.load(path) as stored:
        return data_.Batch(stored["features"], stored["target"], stored["scale"])


def train(batch: data_.Batch, settings: dict[str, Any], run: Path, device: str) -> tuple[Mlp, dict[str, Any]]:
    """The loop: Huber loss in root mean square errors of the first estimate, cosine schedule, checkpoints."""
    loop = settings["loop"]
    torch.manual_seed(settings["seed"])
    net = Mlp(settings["net"]["widths"]).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop["rate"], weight_decay=loop["decay"])
    features, target, scale = (torch.from_numpy(a) for a in (batch.features, batch.target, batch.scale))
    order = torch.Generator().manual_seed(settings["seed"])
    mirrored = symmetries()
    step, spent = 0, 0.0
    checkpoint = shipping.Checkpoint(run / "checkpoint.pt", settings)
    if kept := checkpoint.read():
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        step, spent = kept["step"], kept["spent"]
        order.manual_seed(settings["seed"] + step)
        print(f"resumed at step {step}")
    started, shown = time.monotonic() - spent, []
    while (progress := _progress(step, started, loop)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = loop["rate"] * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * progress))
        index = torch.randint(len(target), (loop["batch"],), generator=order)
        turn = mirrored[int(torch.randint(8, (1,), generator=order))]
        x = features[index].float()[:, turn].to(device)
        t, s = target[index].to(device), scale[index].to(device)
        loss = nn.functional.huber_loss(net(x) * s, t * s, delta=loop["knee"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            still = nn.functional.huber_loss(torch.zeros_like(t), t * s, delta=loop["knee"])
        shown.append((loss.item(), still.item()))
        if step % 250 == 0:
            a, b = np.mean(shown, axis=0)
            print(f"step {step}  loss {a:.4f}  of the first estimate {b:.4f}  {progress:.0%}", flush=True)
            shown = []
        if step % loop["checkpoint"] == 0:
            checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    return net.cpu().eval(), {"steps": step, "seconds": round(time.monotonic() - started), "device": device}


def _progress(step: int, started: float, loop: dict[str, Any]) -> float:
    return max(step / loop["steps"], (time.monotonic() - started) / loop["seconds"])


def export(net: Mlp) -> onnx.ModelProto:
    """The net as ONNX, written layer by layer: no exporter in between, the same bytes everywhere."""
    nodes, weights, name = [], [], "window"
    linears = [layer for layer in net.body if isinstance(layer, nn.Linear)] + [net.head]
    for number, layer in enumerate(linears):
        for suffix, tensor in (("w", layer.weight), ("b", layer.bias)):
            weights.append(onnx.numpy_helper.from_array(tensor.detach().numpy(), f"{suffix}{number}"))
        out = f"linear{number}"
        nodes.append(onnx.helper.make_node("Gemm", [name, f"w{number}", f"b{number}"], [out], transB=1))
        name = out
        if layer is not net.head:
            nodes.append(onnx.helper.make_node("Relu", [out], [f"relu{number}"]))
            name = f"relu{number}"
    weights.append(onnx.numpy_helper.from_array(np.array([-1], np.int64), "flat"))
    nodes.append(onnx.helper.make_node("Reshape", [name, "flat"], ["residual"]))
    window, residual = (
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape)
        for n, shape in (("window", ["n", windows.FEATURES]), ("residual", ["n"]))
    )
    graph = onnx.helper.make_graph(nodes, "mlp", [window], [residual], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def card_of(settings: dict[str, Any], facts: dict[str, Any], metrics: dict[str, Any], folder: Path) -> cards.Card:
    """The card, with the data's attribution by source and licence."""
    return shipping.card(
        settings["name"],
        "correct",
        "mlp",
        folder,
        inputs={"window": ("n", windows.FEATURES)},
        outputs={"residual": ("n",)},
        normalisation=f"filled-{windows.NORMALISATION}",
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR"),
        serving={"radius": windows.RADIUS, "best_below_rate": best_below(metrics)},
        training=settings | facts,
        metrics=metrics,
        limits=(
            "mono and Bayer only: no X-Trans, no Quad-Bayer",
            "no answer where the 7 x 7 window holds no good pixel",
            "trained without modern DSLR stills; mono frames in training come from photographs only",
        ),
        code=shipping.code(*CODE),
    )


def main() -> None:
    options = shipping.options(__doc__ or "", "mlp.toml")
    settings, folder, run = options.recipe, options.data, options.run
    if options.table:
        print_table(measure(shipping.MODELS / f"{settings['name']}.onnx", folder))
        return
    batch = pool(folder, settings, run)
    print(f"{len(batch.target)} samples")
    net, facts = train(batch, settings, run, options.device)
    model = export(net)
    facts |= {"samples": len(batch.target), "parameters": shipping.parameters(net)}
    example = {"window": torch.from_numpy(batch.features[:4096].astype(np.float32))}
    facts["torch_onnxruntime_difference"] = shipping.agreement(net, model, example)
    path = shipping.write(model, card_of(settings, facts, {}, folder))
    rows = measure(path, folder)
    print_table(rows)
    shipping.write(model, card_of(settings, facts, summary(rows), folder))


if __name__ == "__main__":
    main()
