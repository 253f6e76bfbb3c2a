"""Train, export and measure the cnn corrector of isolated holes.

    python models/train/cnn.py --data FOLDER          # or FIXPIX_DATA=FOLDER
    python models/train/cnn.py --data FOLDER --table  # only measure the exported model: table and plot

The net sees `fixpix_cli.normalise.holes` and answers the residual over the first estimate of every pixel of a window;
only those of its hole count. A run can be stopped at any time: started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data as data_
import imagecodecs
import numpy as np
import shipping
import torch
from measure_holes import Row, from_side, measure, plot, print_table, summary
from torch import nn

from fixpix_cli.inject import Injection, positions
from fixpix_cli.mosaic import Mosaic
from fixpix_cli.normalise import holes, windows

#: What the hash of the training code covers, relative to the repository.
CODE = (
    "models/train/cnn.py",
    "models/train/data.py",
    "fixpix_cli/normalise/holes.py",
    "fixpix_cli/normalise/windows.py",
)


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class Cnn(nn.Module):
    """(N, LAYERS, h, w) windows and (N, ABOUT) numbers -> (N, h, w) residuals, in units.

    The first layer steps by two pixels, the last one goes back: in between, every 2 x 2 block is one place.
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(holes.LAYERS, width, 6, stride=2, padding=2)
        self.about = nn.Linear(holes.ABOUT, width)
        self.body = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.ConvTranspose2d(width, 1, 2, stride=2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, window: torch.Tensor, about: torch.Tensor) -> torch.Tensor:
        with torch.autocast(window.device.type, enabled=False):  # bfloat16 would round the values to 1 in 256
            entered = self.enter(window) + self.about(about)[:, :, None, None]
        return self.head(torch.relu(self.body(entered)))[:, 0]


@dataclass(frozen=True, eq=False)
class Pool:
    """Training samples: window and about as `holes.encode` gives them, in float16; target (N, SIDE, SIDE) float16,
    units, 0 outside the hole; scale (N,) float32, from units to root mean square errors of the first estimate."""

    window: np.ndarray
    about: np.ndarray
    target: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.scale)

    @classmethod
    def joined(cls, parts: list[Pool]) -> Pool:
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))

    def batch(self, index: Any, device: str) -> tuple[torch.Tensor, ...]:
        arrays = (self.window, self.about, self.target, self.scale)
        return tuple(torch.from_numpy(a[index]).to(device).float() for a in arrays)


def scene(scenes: data_.Scenes, settings: dict[str, Any], rng: np.random.Generator) -> data_.Scene:
    """A crop of a mosaic, of one channel of an RGB photograph as it is, or a simulated sky or dark."""
    if rng.random() < settings["made_share"]:
        return data_.made(settings["side"], rng)
    if rng.random() >= settings["plane_share"]:
        return scenes.draw(rng, settings["side"], settings["photo_share"])
    while True:
        photo = imagecodecs.imread(scenes.photos[int(rng.integers(len(scenes.photos)))])
        top, left = (int(rng.integers(max(1, n - settings["side"] + 1))) for n in photo.shape[:2])
        plane = photo[top : top + settings["side"], left : left + settings["side"], int(rng.integers(3))]
        if np.ptp(plane) > 0:
            return data_.Scene(Mosaic(np.ascontiguousarray(plane), white=255.0), plane)


def damaged(mosaic: Mosaic, settings: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool: squares of one side m, sometimes ragged, sometimes among scattered bad pixels."""
    shares = np.array(settings["sides"])
    side = 1 + int(rng.choice(len(shares), p=shares / shares.sum()))
    low, high = settings["holes"]
    count = np.exp(rng.uniform(np.log(low), np.log(high)))
    rate = float(min(0.2, count * side * side / mosaic.samples.size))
    pattern = f"cluster:{side}" if side > 1 else "scattered"
    bad = _at(mosaic, Injection(rate, pattern=pattern, seed=int(rng.integers(2**31))))
    if side > 1 and rng.random() < settings["ragged"]:
        bad &= rng.random(bad.shape) < rng.uniform(0.4, 0.95)
    share, low, high = settings["others"]
    if rng.random() < share:
        rate = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        bad |= _at(mosaic, Injection(rate, seed=int(rng.integers(2**31))))
    return bad


def _at(mosaic: Mosaic, spec: Injection) -> np.ndarray:
    bad = np.zeros(mosaic.shape, bool)
    bad[positions(mosaic, spec)] = True
    return bad


def sample(drawn: data_.Scene, bad: np.ndarray, limit: int, rng: np.random.Generator) -> Pool | None:
    """Up to `limit` holes of a scene; None where there is none, or the first estimate is perfect."""
    filled = windows.fill(drawn.mosaic, bad)
    found = holes.find(filled.good, drawn.mosaic.cfa)
    if not len(found):
        return None
    filled = holes.solved(filled, found)
    window, about, unit = holes.encode(filled, found)
    residual = drawn.clean[found.rows, found.cols] - filled.at(found.rows, found.cols)
    rms = float(np.sqrt(np.mean(np.minimum(residual**2, 25 * np.mean(residual**2)))))
    chosen = np.flatnonzero(unit > 0)
    if not rms > 0 or not len(chosen):
        return None
    target = np.zeros((len(found), holes.SIDE, holes.SIDE), np.float32)
    target[found.number, *found.places()] = residual / np.maximum(unit, 1e-12)[found.number]
    chosen = np.sort(rng.permutation(chosen)[:limit])
    half = (a[chosen].astype(np.float16) for a in (window, about, np.clip(target, -100, 100)))
    return Pool(*half, (unit[chosen] / rms).astype(np.float32))


def drawn(folder: Path, settings: dict[str, Any], seed: int, use: str, crops: int) -> Pool:
    """Holes of as many crops as asked for, or as fit into the settings' time."""
    rng = np.random.default_rng([seed, use == "train"])
    scenes = data_.Scenes(folder, use)
    started, parts = time.monotonic(), []
    while len(parts) < crops and time.monotonic() - started < settings["seconds"]:
        one = scene(scenes, settings, rng)
        part = sample(one, damaged(one.mosaic, settings, rng), settings["most"], rng)
        if part is not None:
            parts.append(part)
            if len(parts) % 100 == 0:
                print(f"drawn {len(parts)} crops, {sum(map(len, parts))} holes", flush=True)
    return Pool.joined(parts)


def pool(folder: Path, settings: dict[str, Any], run: Path, use: str, crops: int) -> Pool:
    """The samples, drawn once per settings and kept in the run's folder."""
    key = hashlib.sha256(json.dumps([settings["data"], settings["seed"], use, crops]).encode()).hexdigest()[:12]
    path = run / f"pool-{use}-{key}.npz"
    if not path.exists():
        found = drawn(folder, settings["data"], settings["seed"], use, crops)
        np.savez(path, **{name: getattr(found, name) for name in Pool.__dataclass_fields__})
    with np.load(path) as stored:
        return Pool(**{name: stored[name] for name in Pool.__dataclass_fields__})


def turned(number: int, *images: torch.Tensor) -> list[torch.Tensor]:
    """The windows turned by half a turn (1), mirrored in a diagonal (2), or both (3): all keep the Bayer phase."""
    if number & 1:
        images = tuple(t.flip(-1, -2) for t in images)
    return [t.transpose(-1, -2) if number & 2 else t for t in images]


def errors(net: Cnn, batch: tuple[torch.Tensor, ...], loop: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Huber loss over the holes' pixels, in root mean square errors of the first estimate; and without the net."""
    window, about, target, scale = batch
    with torch.autocast(window.device.type, torch.bfloat16, enabled=loop["precision"] == "bfloat16"):
        answer = net(window.contiguous(memory_format=torch.channels_last), about)
    inside = window[:, 2] > 0
    factor = scale[:, None, None].expand_as(target)[inside]
    truth = target[inside] * factor
    made, still = answer.float()[inside] * factor, torch.zeros_like(truth)
    return tuple(nn.functional.huber_loss(a, truth, delta=loop["knee"]) for a in (made, still))


def train(batches: Pool, held: Pool, settings: dict[str, Any], run: Path, device: str) -> tuple[Cnn, dict[str, Any]]:
    """The loop: cosine schedule, checkpoints, validation figures."""
    loop = settings["loop"]
    torch.manual_seed(settings["seed"])
    net = Cnn(**settings["net"]).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop["rate"], weight_decay=loop["decay"])
    step, spent = 0, 0.0
    checkpoint = shipping.Checkpoint(run / "checkpoint.pt", settings)
    if kept := checkpoint.read():
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        step, spent = kept["step"], kept["spent"]
        print(f"resumed at step {step}")
    rng = np.random.default_rng([settings["seed"], step])
    started, shown = time.monotonic() - spent, []
    while (progress := max(step / loop["steps"], (time.monotonic() - started) / loop["seconds"])) < 1:
        for group in optimiser.param_groups:
            group["lr"] = loop["rate"] * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * progress))
        window, about, target, scale = batches.batch(rng.integers(len(batches), size=loop["batch"]), device)
        window, target = turned(int(rng.integers(4)), window, target)
        loss, still = errors(net, (window, about, target, scale), loop)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        shown.append((loss.item(), still.item()))
        if step % 100 == 0:
            a, b = np.mean(shown, axis=0)
            spent = time.monotonic() - started
            print(f"step {step}  loss {a:.4f}  first estimate {b:.4f}  {spent:.0f} s  {progress:.0%}", flush=True)
            shown = []
        if step % loop["checkpoint"] == 0:
            a, b = validated(net, held, loop, device)
            print(f"step {step}  validation loss {a:.4f}  first estimate {b:.4f}", flush=True)
            checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    net = net.to("cpu", memory_format=torch.contiguous_format).eval()
    return net, {"steps": step, "seconds": round(time.monotonic() - started), "device": device}


@torch.no_grad()
def validated(net: Cnn, held: Pool, loop: dict[str, Any], device: str) -> tuple[float, float]:
    """Mean losses on holes of other cameras and photographs, always the same; with the net and without."""
    parts = [slice(i, i + loop["batch"]) for i in range(0, len(held), loop["batch"])]
    found = [[e.item() for e in errors(net, held.batch(part, device), loop)] for part in parts]
    made, still = np.mean(found, axis=0)
    return float(made), float(still)


def shipped(net: Cnn, settings: dict[str, Any], facts: dict[str, Any], rows: list[Row], folder: Path) -> Any:
    """The net as ONNX and its card; without rows it says that it is better nowhere."""
    example = {
        "window": torch.randn(4, holes.LAYERS, holes.SIDE, holes.SIDE),
        "about": torch.randn(4, holes.ABOUT),
    }
    outputs = {"residual": ("n", "h", "w")}
    model = shipping.export(net, example, outputs)
    facts = facts | {
        "parameters": shipping.parameters(net),
        "torch_onnxruntime_difference": shipping.agreement(net, model, example),
    }
    return model, shipping.card(
        settings["name"],
        "correct",
        "cnn",
        folder,
        inputs={name: shipping.shape_of(array) for name, array in example.items()},
        outputs=outputs,
        normalisation=holes.NORMALISATION,
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR"),
        serving={"from_side": from_side(rows) if rows else holes.LARGEST + 1},
        training=settings | facts,
        metrics=summary(rows) if rows else {},
        limits=(
            "connected clusters of at most 6 x 6 pixels in mostly good surroundings; no answer elsewhere",
            "mono and Bayer only: no X-Trans, no Quad-Bayer",
            "trained without modern DSLR stills; mono frames in training come from photographs only",
        ),
        code=shipping.code(*CODE),
    )


def main() -> None:
    options = shipping.options(__doc__ or "", "cnn.toml")
    settings, folder, run = options.recipe, options.data, options.run
    path = shipping.MODELS / f"{settings['name']}.onnx"
    if not options.table:
        held = pool(folder, settings, run, "validate", settings["loop"]["validation"])
        batches = pool(folder, settings, run, "train", settings["data"]["crops"])
        print(f"{len(batches)} holes to train on, {len(held)} to validate on", flush=True)
        net, facts = train(batches, held, settings, run, options.device)
        facts["samples"] = len(batches)
        path = shipping.write(*shipped(net, settings, facts, [], folder))
    rows = measure(path, folder)
    print_table(rows)
    plot(rows, shipping.MODELS.parent / "docs" / "holes.png")
    if not options.table:
        shipping.write(*shipped(net, settings, facts, rows, folder))


if __name__ == "__main__":
    main()
