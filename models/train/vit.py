"""Train and export the vit reconstructor.

    python models/train/vit.py --data FOLDER          # or FIXPIX_DATA=FOLDER

The net sees frames with the shipped mlp's estimates in their holes: the true holes (mask-aware), or suspected ones
(blind).
Inputs and answers: `fixpix_cli/normalise/patches.py`. A run can be stopped at any time: started again, it goes on
from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data as data_
import numpy as np
import shipping
import torch
from torch import nn

from fixpix_cli.inject import Injection, inject
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.nets import registry
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.normalise import patches

CODE = (
    "models/train/vit.py",
    "models/train/data.py",
    "fixpix_cli/normalise/patches.py",
    "fixpix_cli/normalise/windows.py",
    "fixpix_cli/inject.py",
)
#: Tokens of a tile along one side.
GRID = patches.SIDE // patches.PATCH


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class Layer(nn.Module):
    """Attention and a two-layer perceptron, each after a normalisation and around a shortcut; (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.before(x)).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp(self.after(x))


class Vit(nn.Module):
    """(N, CHANNELS, 32, 32) features and (N, 2, 1, 1) flags -> (N, 4, 32, 32).

    Patches of 4 x 4 pixels, all of them, through the encoder; from its tokens, and from what the first convolutions
    made of the single pixels, the last ones make the answer.
    """

    def __init__(self, wide: int, width: int, layers: int, heads: int, refine: int, start: float) -> None:
        super().__init__()
        self.enter = nn.Conv2d(patches.CHANNELS, wide, 3, padding=1)
        self.flags = nn.Conv2d(2, wide, 1, bias=False)
        self.fine = Block(wide)
        self.patch = nn.Conv2d(wide, width, 2, stride=2)
        self.place = nn.Parameter(0.02 * torch.randn(1, GRID * GRID, width))
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.last = nn.LayerNorm(width)
        self.unpatch = nn.ConvTranspose2d(width, wide, 2, stride=2)
        self.refine = nn.Sequential(*(Block(wide) for _ in range(refine)))
        self.head = nn.Conv2d(wide, 4, 1)
        # What tokens say is small at first: with torch's own start the nets learned the damage rate of a tile in their
        # first hundreds of steps and nothing of its pixels.
        nn.init.normal_(self.unpatch.weight, std=0.01)
        nn.init.normal_(self.head.weight, std=start)
        nn.init.zeros_(self.head.bias)

    def forward(self, tiles: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:
        with torch.autocast(tiles.device.type, enabled=False):  # bfloat16 would round the features to 1 in 256
            entered = self.enter(tiles) + self.flags(flags)
        fine = self.fine(entered)
        tokens = self.patch(fine)
        n, width = tokens.shape[:2]
        tokens = self.last(self.layers(tokens.reshape(n, width, -1).transpose(1, 2) + self.place))
        tokens = tokens.transpose(1, 2).reshape(n, width, GRID, GRID)
        return self.head(torch.relu(self.refine(fine + self.unpatch(tokens))))


@dataclass(frozen=True, eq=False)
class Tiles:
    """Training tiles; all float16.

    features : (N, CHANNELS, 32, 32); flags : (N, 2, 1, 1); target, weight : (N, 4, 32, 32)
        The residual in units; units in root mean square errors of the first estimate in the crop, 0 where the pixel
        is good.
    """

    features: np.ndarray
    flags: np.ndarray
    target: np.ndarray
    weight: np.ndarray


NAMES = ("features", "flags", "target", "weight")


@dataclass(frozen=True, eq=False)
class Crop:
    """A damaged scene: the (H, W) samples that it should have, the damaged plane, where it is bad."""

    clean: np.ndarray
    damaged: Mosaic
    bad: np.ndarray


def crops(
    folder: Path, settings: dict[str, Any], seed: int, use: str, side: int
) -> Iterator[tuple[Crop, np.random.Generator]]:
    """Damaged crops without end, of at most side x side pixels; larger where few are damaged."""
    rng = np.random.default_rng(seed)
    scenes = data_.Scenes(folder, use)
    while True:
        (kind, pattern), rate = data_.drawn_damage(settings["damage"], rng)
        size = max(384, side) if rate <= 0.03 else side
        made = rng.random() < settings["made_share"]
        scene = data_.made(size, rng) if made else scenes.draw(rng, size, settings["photo_share"])
        if min(scene.mosaic.shape) < patches.SIDE:
            continue
        delta = float(rng.uniform(*settings["delta"]))
        hurt = inject(scene.mosaic, Injection(rate, delta, kind, pattern, seed=int(rng.integers(2**31))))
        if 0 < hurt.count < hurt.dq.size:
            yield Crop(scene.clean, scene.mosaic.with_samples(hurt.samples), hurt.dq != 0), rng


def corners(crop: Crop, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """First rows and columns of some tiles that hold damage, a few reaching beyond the edge of the crop."""
    phase = patches.phase_of(crop.damaged.cfa)
    tops, lefts = (
        2 * rng.integers(-8, (size - patches.SIDE) // 2 + 9, 8 * count) - first
        for size, first in zip(crop.bad.shape, phase, strict=True)
    )
    total = np.pad(crop.bad.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    t, b = np.clip(tops, 0, None), np.clip(tops + patches.SIDE, None, crop.bad.shape[0])
    le, r = np.clip(lefts, 0, None), np.clip(lefts + patches.SIDE, None, crop.bad.shape[1])
    held = total[b, r] - total[t, r] - total[b, le] + total[t, le]
    chosen = np.flatnonzero(held > 0)[:count]
    return tops[chosen], lefts[chosen]


def within(crop: Crop, tops: np.ndarray, lefts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(N, SIDE, SIDE) parts of an (H, W) array; 0 beyond its edge."""
    side = patches.SIDE
    wide = np.pad(values, side)
    return np.stack([wide[t + side : t + 2 * side, c + side : c + 2 * side] for t, c in zip(tops, lefts, strict=True)])


def suspected(crop: Crop, settings: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """What a detector might say: some bad samples are missed, those near the truth first; some good ones suspected."""
    off = np.abs(crop.damaged.samples.astype(np.float32) - crop.clean)
    typical = np.median(off[crop.bad])
    missed = rng.uniform(0, settings["missed"]) * (0.1 + np.exp(-off / max(float(typical), 1e-6)))
    false = rng.uniform(0, settings["false"])
    return np.where(crop.bad, rng.random(off.shape) >= missed, rng.random(off.shape) < false)


def rebuild_tiles(crop: Crop, settings: dict[str, Any], rng: np.random.Generator) -> Iterator[Tiles]:
    """Tiles for the rebuild net, with the true holes or with suspected ones."""
    if rng.random() < settings["blind_share"]:
        doubt = suspected(crop, settings, rng).astype(np.float32)
        seen = patches.Seen.unknown(crop.damaged, doubt, 0.5, shipped_mlp().refine)
    else:
        seen = patches.Seen.known(crop.damaged, crop.bad, shipped_mlp().refine)
    rms = error_of(crop, seen)
    tops, lefts = corners(crop, settings["tiles"], rng)
    if not len(tops) or not rms > 0:
        return
    features, unit = patches.encode(seen, tops, lefts)
    every = np.indices(crop.bad.shape)
    residual = (crop.clean - seen.filled.at(every[0], every[1])).astype(np.float32)
    seen_bad = within(crop, tops, lefts, crop.bad) & (unit > 0)
    target = within(crop, tops, lefts, residual) / np.where(unit > 0, unit, 1)
    yield Tiles(
        features.astype(np.float16),
        np.repeat(seen.flags, len(tops), 0).astype(np.float16),
        patches.pack_all(np.clip(target, -200, 200)).astype(np.float16),
        patches.pack_all(np.clip(seen_bad * unit / rms, 0, 200)).astype(np.float16),
    )


def error_of(crop: Crop, seen: patches.Seen) -> float:
    """Root mean square error of the first estimates of the bad pixels, DN; the greatest are cut at five times it.

    Three times over: of bad samples that nobody suspects little is left then.
    """
    rows, cols = np.nonzero(crop.bad)
    errors = (crop.clean[rows, cols] - seen.filled.at(rows, cols)) ** 2
    for _ in range(3):
        errors = np.minimum(errors, 25 * np.mean(errors))
    return float(np.sqrt(np.mean(errors)))


def pool(
    folder: Path,
    recipe: dict[str, Any],
    settings: dict[str, Any],
    make: Callable[[Crop, dict[str, Any], np.random.Generator], Iterator[Tiles]],
    use: str,
) -> Tiles:
    """As many crops as the settings say, or as fit into their time."""
    started, found = time.monotonic(), []
    drawn = crops(folder, recipe["data"], recipe["seed"] + (use != "train"), use, settings["side"])
    for count, (crop, rng) in enumerate(drawn, 1):
        found += make(crop, settings, rng)
        if count % 100 == 0:
            print(f"drawn {count} crops, {time.monotonic() - started:.0f} s", flush=True)
        if count >= settings["crops"] or time.monotonic() - started > settings["seconds"]:
            break
    return Tiles(*(np.concatenate([getattr(t, name) for t in found]) for name in NAMES))


def kept(path: Path, key: Any, make: Callable[[], Tiles]) -> Tiles:
    """A pool, drawn once per settings and kept in the run's folder."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    path = path.with_name(f"{path.name}-{digest}.npz")
    if not path.exists():
        np.savez(path, **dict(zip(NAMES, _arrays(make()), strict=True)))
    with np.load(path) as stored:
        return Tiles(*(stored[name] for name in NAMES))


def _arrays(tiles: Tiles) -> list[np.ndarray]:
    return [getattr(tiles, name) for name in NAMES]


def turned(batch: list[torch.Tensor], turn: int) -> list[torch.Tensor]:
    """Transposed and turned by 180 degrees, which leave green where it is; flags are the same in all."""
    out = []
    for t in batch:
        if t.shape[-1] > 1:
            if turn & 1:
                t = t.transpose(2, 3)[:, _order(t.shape[1], (0, 2, 1, 3))]
            if turn & 2:
                t = t.flip(2, 3)[:, _order(t.shape[1], (3, 2, 1, 0))]
        out.append(t)
    return out


def _order(channels: int, four: tuple[int, ...]) -> list[int]:
    return [4 * f + place for f in range(channels // 4) for place in four]


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def rebuild_loss(knee: float) -> Loss:
    """Huber loss in root mean square errors of the first estimate; every tile counts alike."""

    def loss(answer: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        errors = nn.functional.huber_loss(answer * weight, target * weight, delta=knee, reduction="none")
        holes = (weight > 0).sum(dim=(1, 2, 3)).clamp(min=16)
        return (errors.sum(dim=(1, 2, 3)) / holes).mean()

    return loss


def train(
    name: str,
    tiles: Tiles,
    held: Tiles,
    recipe: dict[str, Any],
    run: Path,
    device: str,
    loss: Loss,
    start: Path | None = None,
) -> tuple[Vit, dict[str, Any]]:
    """The loop: cosine schedule, checkpoints, the loss of held-back tiles; from the weights of another run, or none."""
    settings = recipe[name] | {"precision": recipe["loop"]["precision"]}
    loop = settings["loop"]
    torch.manual_seed(recipe["seed"])
    net = Vit(**settings["net"]).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop["rate"], weight_decay=loop["decay"])
    order = torch.Generator().manual_seed(recipe["seed"])
    step, spent, before = 0, 0.0, 0
    if start is not None:
        weights, before = shipping.weights_of(start)
        net.load_state_dict(weights)
    checkpoint = shipping.Checkpoint(run / f"{name}.pt", settings | {"seed": recipe["seed"]})
    if stored := checkpoint.read():
        net.load_state_dict(stored["net"])
        optimiser.load_state_dict(stored["optimiser"])
        step, spent = stored["step"], stored["spent"]
        order.manual_seed(recipe["seed"] + step)
        print(f"resumed at step {step}")
    arrays = [torch.from_numpy(a) for a in _arrays(tiles)]
    started, shown = time.monotonic() - spent, []
    while (progress := max(step / loop["steps"], (time.monotonic() - started) / loop["seconds"])) < 1:
        for group in optimiser.param_groups:
            group["lr"] = loop["rate"] * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * progress))
        index = torch.randint(len(arrays[0]), (loop["batch"],), generator=order)
        batch = turned([a[index] for a in arrays], int(torch.randint(4, (1,), generator=order)))
        value = lost(net, batch, settings["precision"], device, loss)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        shown.append(value.item())
        if step % 100 == 0:
            print(f"{name} step {step}  loss {np.mean(shown):.4f}  {time.monotonic() - started:.0f} s", flush=True)
            shown = []
        if step % loop["checkpoint"] == 0:
            print(f"{name} step {step}  validation {validated(net, held, settings, device, loss)}", flush=True)
            checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    net = net.to("cpu", memory_format=torch.contiguous_format).eval()
    facts = {"steps": step, "seconds": round(time.monotonic() - started), "tiles": len(arrays[0]), "device": device}
    return net, facts | {"steps_before": before, "validation_loss": validated(net, held, settings, "cpu", loss)}


def lost(net: Vit, batch: list[torch.Tensor], precision: str, device: str, loss: Loss) -> torch.Tensor:
    features, flags, target, weight = (t.float().to(device) for t in batch)
    features = features.to(memory_format=torch.channels_last)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"):
        answer = net(features, flags)
    return loss(answer.float(), target, weight)


@torch.no_grad()
def validated(net: Vit, held: Tiles, settings: dict[str, Any], device: str, loss: Loss) -> dict[str, float]:
    """The mean loss of held-back tiles with the mask, blind, and where the net answers nothing: always the same."""
    out = {}
    for mode, blind in (("mask", 0), ("blind", 1)):
        chosen = np.flatnonzero(held.flags[:, 1, 0, 0] == blind)
        if not len(chosen):
            continue
        parts = [[torch.from_numpy(a[i]) for a in _arrays(held)] for i in np.array_split(chosen, len(chosen) // 16 + 1)]
        ours = [lost(net, part, settings["precision"], device, loss).item() for part in parts]
        nothing = [loss(0 * part[2].float(), part[2].float(), part[3].float()).item() for part in parts]
        out |= {mode: round(float(np.mean(ours)), 4), f"{mode}, no answer": round(float(np.mean(nothing)), 4)}
    return out


def pools(
    folder: Path, recipe: dict[str, Any], settings: dict[str, Any], make: Any, path: Path, key: Any
) -> tuple[Tiles, Tiles]:
    """Tiles to train on, and some of validation cameras and photographs."""
    few = settings | {"crops": recipe["loop"]["validation"] // 4, "seconds": 1e9, "tiles": 4}
    key = [key, patches.NORMALISATION, registry.read("mlp").sha256, recipe["data"], settings, recipe["seed"]]
    tiles = kept(path, key, lambda: pool(folder, recipe, settings, make, "train"))
    held = kept(path.with_name(f"{path.name}-held"), key, lambda: pool(folder, recipe, few, make, "validate"))
    return tiles, held


def shipped(
    name: str, net: Vit, recipe: dict[str, Any], facts: dict[str, Any], metrics: dict[str, Any], folder: Path
) -> Any:
    """The net as ONNX and its card."""
    side = patches.SIDE // 2
    example = {
        "tiles": torch.randn(3, patches.CHANNELS, side, side),
        "flags": torch.tensor([[0.0, 1], [1, 0], [0, 0]]).reshape(3, 2, 1, 1),
    }
    output = "residual"
    shapes: dict[str, tuple[Any, ...]] = {
        "tiles": ("n", patches.CHANNELS, side, side),
        "flags": ("n", 2, 1, 1),
        output: ("n", 4, side, side),
    }
    model = shipping.export(net, example, {output: shapes[output]})
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = side
    facts = facts | {
        "first estimates": f"mlp, sha256 {registry.read('mlp').sha256}",
        "parameters": shipping.parameters(net),
        "torch_onnxruntime_difference": shipping.agreement(net, model, example),
    }
    return model, shipping.card(
        recipe[name]["name"],
        "correct",
        "vit",
        folder,
        inputs={key: shapes[key] for key in example},
        outputs={output: shapes[output]},
        normalisation=patches.NORMALISATION,
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR"),
        serving=recipe["serve"],
        training={k: v for k, v in recipe.items() if k != "rebuild"} | recipe[name] | facts,
        metrics=metrics,
        limits=("mono and Bayer only: no X-Trans, no Quad-Bayer", "trained without modern DSLR stills"),
        code=shipping.code(*CODE),
    )


def rebuild(options: Any) -> Path:
    """Train the rebuild net."""
    recipe, run, folder = options.recipe, options.run, options.data
    tiles, held = pools(folder, recipe, recipe["rebuild"]["pool"], rebuild_tiles, run / "rebuild", "rebuild")
    loss = rebuild_loss(recipe["rebuild"]["loop"]["knee"])
    net, facts = train("rebuild", tiles, held, recipe, run, options.device, loss, options.start)
    return shipping.write(*shipped("rebuild", net, recipe, facts, {}, folder), run)


def main() -> None:
    options = shipping.options(__doc__ or "", "vit.toml")
    rebuild(options)


if __name__ == "__main__":
    main()
