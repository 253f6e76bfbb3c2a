"""The paper's table 2: a 5 x 5 cluster in the middle of a 15 x 15 window, by its two small nets and by ours.

    python models/train/cluster.py --data FOLDER          # trains both, exports them, prints the table
    python models/train/cluster.py --data FOLDER --table  # only measures and prints

cluster-vit: nine patches of 5 x 5, that of the cluster replaced by a learned token; two encoder and two decoder
layers of width 16 (FixPix, section 5.2). The width of its perceptrons is not given; here it is chosen for the
paper's 11.36 K parameters. cluster-cnn: the concatenated CNN of Lee, Hong and Kim (J. Med. Imaging 8, 023501) as far
as FixPix tells it, 26.84 K parameters and 203.89 KMac: two paths of convolutions (3 x 3 and 5 x 5), concatenated,
two dense layers.

Both see the window alone, in units of the mean absolute deviation of its 200 good samples from their mean, since the
paper's constant of one camera fits no other camera, and begin with red. Loss: mean squared error in these units.
Ours (mlp, vit, least squares) see the frame in which the same clusters lie.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data as data_
import numpy as np
import shipping
import torch
from measure import cameras
from torch import nn

from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.nets.correctors import MlpCorrector
from fixpix_cli.nets.reconstructors import VitCorrector
from fixpix_cli.nets.sessions import open_session
from fixpix_cli.normalise import patches
from fixpix_cli.normalise.window15 import HOLE, MIDDLE, NORMALISATION, WINDOW, encode
from fixpix_cli.repair import Corrector, least_squares, linear, median, repair

CODE = ("models/train/cluster.py", "models/train/data.py", "fixpix_cli/normalise/window15.py")
REFERENCE = shipping.REFERENCE
#: Rows and columns from one cluster of a validation frame to the next.
SPACING = 32
#: Rows and columns of a validation frame that are looked at.
SIDE = 480


class Attention(nn.Module):
    """Multi-head self-attention; (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        share = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(width / self.heads), -1)
        return self.out((share @ v).transpose(1, 2).reshape(n, tokens, width))


class Layer(nn.Module):
    """Attention and a perceptron, each after a normalisation and around a shortcut."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.before(x))
        return x + self.mlp(self.after(x))


class ClusterVit(nn.Module):
    """(N, 1, 15, 15), whatever the middle holds -> (N, 25)."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(HOLE * HOLE, width)
        self.masked = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, 9, width))
        self.layers = nn.Sequential(*(Layer(width, heads, hidden) for _ in range(2 * layers)))
        self.encoded, self.decoded = nn.LayerNorm(width), nn.LayerNorm(width)
        self.half = layers
        self.head = nn.Linear(width, HOLE * HOLE)

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        parts = window.reshape(-1, 3, HOLE, 3, HOLE).permute(0, 1, 3, 2, 4).reshape(-1, 9, HOLE * HOLE)
        tokens = self.embed(parts)
        masked = self.masked.expand(tokens.shape[0], 1, -1)
        tokens = torch.cat([tokens[:, :4], masked, tokens[:, 5:]], 1) + self.place
        tokens = self.encoded(self.layers[: self.half](tokens))
        return self.head(self.decoded(self.layers[self.half :](tokens)))[:, 4]


class ClusterCnn(nn.Module):
    """(N, 1, 15, 15) with zeros in the middle -> (N, 25)."""

    def __init__(self, channels: list[int], hidden: int) -> None:
        super().__init__()
        a, b = channels
        self.paths = nn.ModuleList(
            nn.Sequential(nn.Conv2d(1, a, side), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(a, b, 3), nn.ReLU())
            for side in (3, 5)
        )
        self.dense = nn.Sequential(nn.Linear(b * (16 + 9), hidden), nn.ReLU(), nn.Linear(hidden, HOLE * HOLE))

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return self.dense(torch.cat([path(window).flatten(1) for path in self.paths], 1))


NETS: dict[str, Callable[..., nn.Module]] = {"cluster-vit": ClusterVit, "cluster-cnn": ClusterCnn}


def macs(net: nn.Module, example: torch.Tensor) -> int:
    """Multiplications with accumulation for one window: dense layers, convolutions, and attention's two products."""
    total = 0

    def count(module: nn.Module, given: Any, answer: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += answer.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):
            total += answer.numel() * math.prod(module.weight.shape[1:])
        elif isinstance(module, Attention):
            total += 2 * answer.shape[1] * answer.numel()

    hooks = [module.register_forward_hook(count) for module in net.modules()]
    with torch.no_grad():
        net(example[:1])
    for hook in hooks:
        hook.remove()
    return total


def windows(folder: Path, recipe: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Training windows and the (N, 25) values of their middles, in units."""
    settings, rng = recipe["data"], np.random.default_rng(recipe["seed"])
    scenes, found, clean = data_.Scenes(folder), [], []
    for _ in range(settings["crops"]):
        made = rng.random() < settings["made_share"]
        scene = data_.made(256, rng) if made else scenes.draw(rng, 256, settings["photo_share"])
        first = patches.phase_of(scene.mosaic.cfa)
        for _ in range(settings["windows"]):
            row, col = (
                int(f + 2 * rng.integers((n - f - WINDOW) // 2 + 1))
                for f, n in zip(first, scene.mosaic.shape, strict=True)
            )
            part = (slice(row, row + WINDOW), slice(col, col + WINDOW))
            found.append(scene.mosaic.samples[part].astype(np.float64))
            clean.append(scene.clean[part][MIDDLE, MIDDLE].astype(np.float64).ravel())
    given, level, unit = encode(np.stack(found))
    target = (np.stack(clean) - level) / unit
    kept = np.abs(target).max(axis=1) < 50  # a star in a flat window would be all that the loss sees
    return given[kept], target[kept].astype(np.float32)


def train(
    name: str, given: np.ndarray, target: np.ndarray, recipe: dict[str, Any], run: Path, device: str
) -> tuple[nn.Module, dict[str, Any]]:
    """The loop: mean squared error, cosine schedule, checkpoints."""
    loop = recipe["loop"]
    torch.manual_seed(recipe["seed"])
    net = NETS[name](**recipe[name]).to(device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop["rate"], weight_decay=loop["decay"])
    checkpoint = shipping.Checkpoint(run / f"{name}.pt", {k: recipe[k] for k in ("seed", "data", "loop", name)})
    step, spent = 0, 0.0
    if kept := checkpoint.read():
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        step, spent = kept["step"], kept["spent"]
        print(f"resumed at step {step}")
    order = torch.Generator().manual_seed(recipe["seed"] + step)
    x, y = torch.from_numpy(given), torch.from_numpy(target)
    held = len(x) // 20
    started, shown = time.monotonic() - spent, []
    while (progress := max(step / loop["steps"], (time.monotonic() - started) / loop["seconds"])) < 1:
        for group in optimiser.param_groups:
            group["lr"] = loop["rate"] * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * progress))
        index = torch.randint(held, len(x), (loop["batch"],), generator=order)
        loss = nn.functional.mse_loss(net(x[index].to(device)), y[index].to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        shown.append(loss.item())
        if step % loop["checkpoint"] == 0:
            with torch.no_grad():
                other = nn.functional.mse_loss(net(x[:held].to(device)), y[:held].to(device)).item()
            print(f"{name} step {step}  loss {np.mean(shown):.4f}  held back {other:.4f}  {progress:.0%}", flush=True)
            shown = []
            checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    return net.cpu().eval(), {"steps": step, "seconds": round(time.monotonic() - started), "windows": len(x)}


def shipped(name: str, net: nn.Module, recipe: dict[str, Any], facts: dict[str, Any], folder: Path) -> Any:
    """The net as ONNX and its card."""
    example = {"window": torch.randn(4, 1, WINDOW, WINDOW)}
    shapes: dict[str, tuple[Any, ...]] = {"window": ("n", 1, WINDOW, WINDOW), "middle": ("n", HOLE * HOLE)}
    model = shipping.export(net, example, {"middle": shapes["middle"]})
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = WINDOW
    facts = facts | {
        "parameters": shipping.parameters(net),
        "macs": macs(net, example["window"]),
        "torch_onnxruntime_difference": shipping.agreement(net, model, example),
    }
    return model, shipping.card(
        name,
        "correct",
        name,
        folder,
        inputs={"window": shapes["window"]},
        outputs={"middle": shapes["middle"]},
        normalisation=NORMALISATION,
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR"),
        serving={},
        training={k: recipe[k] for k in ("seed", "data", "loop", name)} | facts,
        metrics={},
        limits=("a reference for tests/bench, never used by the program",),
        code=shipping.code(*CODE),
    )


def clusters(mosaic: Mosaic) -> tuple[np.ndarray, np.ndarray]:
    """First rows and columns of the windows of a validation frame; they begin with red and do not touch."""
    first = patches.phase_of(mosaic.cfa)
    rows, cols = (np.arange(f, n - WINDOW + 1, SPACING) for f, n in zip(first, mosaic.shape, strict=True))
    grid = np.meshgrid(rows, cols, indexing="ij")
    return grid[0].ravel(), grid[1].ravel()


def by_net(path: Path) -> Corrector:
    """One of the two small nets as a corrector of frames whose damage is `clusters`."""
    session = open_session(path.read_bytes(), str(path), "")

    def correct(mosaic: Mosaic, bad: np.ndarray) -> np.ndarray:
        rows, cols = clusters(mosaic)
        cut = np.stack([mosaic.samples[r : r + WINDOW, c : c + WINDOW] for r, c in zip(rows, cols, strict=True)])
        given, level, unit = encode(cut)
        answer = session.run(window=given)["middle"] * unit + level
        out = np.full(mosaic.shape, np.nan)
        for r, c, values in zip(rows, cols, answer, strict=True):
            out[r : r + WINDOW, c : c + WINDOW][MIDDLE, MIDDLE] = values.reshape(HOLE, HOLE)
        return out[bad]

    return correct


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """NMSE on stored values, by method and camera."""
    methods: dict[str, Corrector] = {
        **{name: by_net(REFERENCE / f"{name}.onnx") for name in NETS},
        "linear": linear,
        "median": median,
        "least squares": least_squares,
        "mlp": MlpCorrector.open("mlp"),
        "vit": VitCorrector.open("vit"),
    }
    found: dict[str, dict[str, float]] = {name: {} for name in methods}
    for camera, frames in cameras(folder).items():
        frame = frames[0].cropped(Area(0, 0, *(min(n, SIDE) for n in frames[0].shape)))
        bad = np.zeros(frame.shape, bool)
        for r, c in zip(*clusters(frame), strict=True):
            bad[r : r + WINDOW, c : c + WINDOW][MIDDLE, MIDDLE] = True
        truth = frame.samples[bad].astype(np.float64)
        hidden = frame.samples.copy()
        hidden[bad] = 0
        for name, method in methods.items():
            answer = repair(frame.with_samples(hidden), bad, method)[bad].astype(np.float64)
            found[name][camera] = float(((answer - truth) ** 2).sum() / (truth**2).sum())
    return found


def print_table(found: dict[str, dict[str, float]]) -> None:
    """NMSE x 1000: the mean of the cameras, and each camera."""
    print(f"{'method':16}{'parameters':>12}{'KMac':>9}{'mean':>9}" + "".join(f"{c[:14]:>16}" for c in found["mlp"]))
    for name, values in found.items():
        size = ("", "")
        if name in NETS:
            path = REFERENCE / f"{name}.onnx"
            facts = open_session(path.read_bytes(), str(path), "").card.training
            size = (str(facts["parameters"]), f"{facts['macs'] / 1000:.1f}")
        mean = 1000 * float(np.mean(list(values.values())))
        print(f"{name:16}{size[0]:>12}{size[1]:>9}{mean:9.3f}" + "".join(f"{1000 * v:16.3f}" for v in values.values()))


def main() -> None:
    options = shipping.options(__doc__ or "", "cluster.toml")
    if not options.table:
        REFERENCE.mkdir(exist_ok=True)
        given, target = windows(options.data, options.recipe)
        for name in NETS:
            net, facts = train(name, given, target, options.recipe, options.run, options.device)
            shipping.write(*shipped(name, net, options.recipe, facts, options.data), REFERENCE)
    found = measure(options.data)
    (options.run / "table.json").write_text(json.dumps(found, indent=1))
    print_table(found)


if __name__ == "__main__":
    main()
