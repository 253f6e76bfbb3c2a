"""Train and export the unet detectors: of the first look, and of later ones at clusters and lines or dense damage.

    python models/train/unet.py --data FOLDER          # or FIXPIX_DATA=FOLDER
    python models/train/unet.py --data FOLDER --settings models/train/unet-crowds.toml
    python models/train/unet.py --data FOLDER --settings models/train/unet-dense.toml

The net sees `fixpix_cli.normalise.features` (or, at the second look, `second`, made from what the shipped first net
answers) and answers, per pixel, the log-likelihood ratio of bad against good:
in training the logit of the crop's true damage rate is added to its answer, so that at use any rate can be the
prior. Every crop counts by the entropy of its rate, or one crop at 50 % would outweigh a thousand at 0.01 %.

A run can be stopped at any time: started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import data as data_
import numpy as np
import shipping
import torch
from torch import nn

from fixpix_cli.classical import rate_of
from fixpix_cli.inject import Injection, inject
from fixpix_cli.nets.unets import UnetDetector
from fixpix_cli.normalise import features, second
from fixpix_cli.score import native_outliers

CODE = (
    "models/train/unet.py",
    "models/train/data.py",
    "fixpix_cli/normalise/features.py",
    "fixpix_cli/normalise/second.py",
    "fixpix_cli/normalise/modes.py",
    "fixpix_cli/normalise/patterns.py",
    "fixpix_cli/classical.py",
    "fixpix_cli/noise.py",
    "fixpix_cli/inject.py",
)
#: Mosaic pixels of one step of the net's coarsest level.
MULTIPLE = 8
#: Mosaic pixels that the answer at a pixel can depend on, on each side.
HALO = 48


#: Settings that name the nets whose answers are looked at: the first look's, and the second's for a third look.
_LOOKS = ("first", "again")


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(torch.relu(x))))


class Unet(nn.Module):
    """(N, channels, h, w) features and (N, 1, 1, 1) mono flag -> (N, 4, h, w) log-likelihood ratios."""

    def __init__(self, channels: int, widths: list[int]) -> None:
        super().__init__()
        a, b, c = widths
        self.enter = nn.Conv2d(channels, a, 3, padding=1)
        self.mono = nn.Conv2d(1, a, 1, bias=False)
        self.fine, self.refine = Block(a), Block(a)
        self.down1, self.down2 = nn.Conv2d(a, b, 2, stride=2), nn.Conv2d(b, c, 2, stride=2)
        self.middle, self.coarse = Block(b), Block(c)
        self.up2, self.up1 = nn.ConvTranspose2d(c, b, 2, stride=2), nn.ConvTranspose2d(b, a, 2, stride=2)
        self.remiddle = Block(b)
        self.head = nn.Conv2d(a, 4, 1)

    def forward(self, x: torch.Tensor, mono: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round the features to 1 in 256
            entered = self.enter(x) + self.mono(mono)
        fine = self.fine(entered)
        middle = self.middle(self.down1(fine))
        coarse = self.coarse(self.down2(middle))
        middle = self.remiddle(middle + self.up2(coarse))
        return self.head(torch.relu(self.refine(fine + self.up1(middle))))


class Crops(torch.utils.data.IterableDataset):
    """Damaged crops without end: features, mono flag, truth and weight (4, h, w), and the rate's logit."""

    def __init__(self, folder: Path, settings: dict[str, Any], seed: int, use: str = "train") -> None:
        self.folder, self.settings, self.seed, self.use = folder, settings, seed, use

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, info.id if info else 0])
        scenes = data_.Scenes(self.folder, self.use)
        side = self.settings["side"]
        first, again = (UnetDetector.open(self.settings[key]) if key in self.settings else None for key in _LOOKS)
        while True:
            (kind, pattern), rate = data_.drawn_damage(self.settings["damage"], rng)
            # Weak hot pixels are for frames in which they show: half of the skies and darks have a sensor's damage.
            made = rng.random() < self.settings["made_share"]
            if made and rng.random() < 0.5:
                kind, pattern, rate = "sensor", "scattered", min(rate, 0.05)
            others = self.settings.get("other_share", 0.0)
            photos = self.settings["photo_share"]
            scene = (data_.made(side, rng, others) if made else scenes.draw(rng, side, photos, others)).mosaic
            scene = scene.cropped(data_.Area(0, 0, *(n // MULTIPLE * MULTIPLE for n in scene.shape)))
            if scene.shape != (side, side):
                continue
            if not made and rng.random() < self.settings.get("bright_share", 0.0):
                scene = brightened(scene, rng)
            if not made and rng.random() < self.settings.get("shade_share", 0.0):
                scene = shaded(scene, rng)
            delta = float(rng.uniform(*self.settings["delta"]))
            spec = Injection(rate, delta, kind, pattern, seed=int(rng.integers(2**31)))
            hurt = inject(scene, spec, exposure=float(np.exp(rng.uniform(-3, 3))))
            bad = hurt.dq != 0
            share = np.count_nonzero(bad) / bad.size
            if not 0 < share < 1:
                continue
            damaged = scene.with_samples(hurt.samples)
            if first:
                seen: features.Seen | second.Second = self.looked_at(damaged, first, again, rng)
            else:
                seen = features.Seen.of(damaged)
            yield crop(seen, bad, native_outliers(scene) & ~bad, share, not scene.cfa.is_bayer)

    def looked_at(
        self, damaged: data_.Mosaic, first: UnetDetector, again: UnetDetector | None, rng: np.random.Generator
    ) -> second.Second:
        """A second look or a third; the first has seen less noise in some, in others there was none at all."""
        most = (
            float(np.exp(rng.uniform(np.log(0.1), 0))) if rng.random() < self.settings.get("quiet_share", 0) else np.inf
        )
        if rng.random() < self.settings.get("blank_share", 0):
            ratios = np.zeros(damaged.shape, np.float32)
        else:
            ratios = first.ratios_of(features.Seen.of(damaged).quieter(most))
        if again and rng.random() < self.settings["again_share"]:
            ratios = again.looked_again(damaged, ratios, rate_of(ratios, clear=-np.inf))
        return second.Second.of(damaged, ratios, rate_of(ratios, clear=-np.inf))


def brightened(scene: data_.Mosaic, rng: np.random.Generator) -> data_.Mosaic:
    """A frame with another white level: little damage can be brighter than what is bright there.

    At 60 to 100 % of it lies what 0.1 to 70 % of the pixels reach; what is brighter than white is cut off.
    """
    share = float(np.exp(rng.uniform(np.log(0.001), np.log(0.7))))
    black = float(np.mean(scene.black))
    white = black + (float(np.quantile(scene.samples, 1 - share)) - black) / rng.uniform(0.6, 1)
    if not 0.02 * (scene.white - black) < white - black < scene.white - black:
        return scene
    white = float(np.floor(white))
    return replace(scene, samples=np.minimum(scene.samples, np.asarray(white, scene.samples.dtype)), white=white)


def shaded(scene: data_.Mosaic, rng: np.random.Generator) -> data_.Mosaic:
    """A frame of which all but a rectangle lies in shade, 3 to 30 times as dark: a window, a card, a lamp."""
    (top, bottom), (left, right) = (np.sort(rng.integers(0, n, 2)) + np.array([-1, 1]) * (n // 16) for n in scene.shape)
    factor = np.full(scene.shape, np.exp(-rng.uniform(np.log(3), np.log(30))))
    factor[max(top, 0) : bottom, max(left, 0) : right] = 1
    black = scene.black_at(np.arange(scene.shape[0])[:, None], np.arange(scene.shape[1]))
    samples = black + (scene.samples - black) * factor
    if scene.is_integer:
        samples = np.rint(samples)
    return replace(scene, samples=samples.astype(scene.samples.dtype))


def crop(seen: features.Seen | second.Second, bad: Any, ignored: Any, share: float, mono: bool) -> tuple[Any, ...]:
    """One sample; the crop is read from its first red pixel on."""
    top, left = seen.phase
    rows, cols = ((2 * (n > 0), 2 * (n > 0) + size - MULTIPLE) for n, size in zip((top, left), bad.shape, strict=True))
    part = (slice(rows[0] - top, rows[1] - top), slice(cols[0] - left, cols[1] - left))
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    weight = np.where(ignored[part], 0.0, 1 / (entropy + 0.0005)).astype(np.float32)
    truth = bad[part].astype(np.float32)
    packed = (features.pack(a) for a in (truth, weight))
    logit = np.full((1, 1, 1), math.log(share / (1 - share)), np.float32)
    return (seen.features(rows, cols), np.full((1, 1, 1), mono, np.float32), *packed, logit)


def train(
    folder: Path, settings: dict[str, Any], run: Path, device: str, start: Path | None
) -> tuple[Unet, dict[str, Any]]:
    """The loop: weighted cross-entropy, cosine schedule, checkpoints; from the weights of another run, or from none."""
    loop = settings["loop"]
    torch.manual_seed(settings["seed"])
    net = Unet(contract(settings).CHANNELS, settings["net"]["widths"]).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop["rate"], weight_decay=loop["decay"])
    step, spent, before = 0, 0.0, 0
    if start is not None:
        weights, before = shipping.weights_of(start)
        net.load_state_dict(widened(weights, net))
    checkpoint = shipping.Checkpoint(run / "checkpoint.pt", settings)
    if kept := checkpoint.read():
        net.load_state_dict(kept["net"])
        optimiser.load_state_dict(kept["optimiser"])
        step, spent = kept["step"], kept["spent"]
        print(f"resumed at step {step}")
    crops = Crops(folder, settings["data"], settings["seed"] + step)
    batches = torch.utils.data.DataLoader(
        crops, loop["batch"], num_workers=loop["workers"], prefetch_factor=8, multiprocessing_context="spawn"
    )
    held = torch.utils.data.default_collate(
        list(itertools.islice(Crops(folder, settings["data"], 0, "validate"), loop["validation"]))
    )
    started, shown = time.monotonic() - spent, []
    for batch in twice(batches):
        progress = max(step / loop["steps"], (time.monotonic() - started) / loop["seconds"])
        if progress >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = loop["rate"] * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * progress))
        loss = loss_of(net, [t.to(device) for t in batch], loop["precision"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        shown.append(loss.item())
        if step % 50 == 0:
            print(
                f"step {step}  loss {np.mean(shown):.4f}  {time.monotonic() - started:.0f} s  {progress:.0%}",
                flush=True,
            )
            shown = []
        if step % loop["checkpoint"] == 0:
            print(f"step {step}  validation loss {validated(net, held, loop, device):.4f}", flush=True)
            checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    return net.to("cpu", memory_format=torch.contiguous_format).eval(), {
        "steps": step,
        "seconds": round(time.monotonic() - started),
        "device": device,
        "steps_before": before,
    }


def widened(state: dict[str, torch.Tensor], net: Unet) -> dict[str, torch.Tensor]:
    """The weights of a net that saw fewer features: what it did not see counts for nothing at first."""
    entering, wanted = state["enter.weight"], net.enter.weight.shape[1]
    missing = entering.new_zeros(len(entering), wanted - entering.shape[1], *entering.shape[2:])
    return state | {"enter.weight": torch.cat([entering, missing], dim=1)}


def twice(batches: Iterable[list[torch.Tensor]]) -> Iterator[list[torch.Tensor]]:
    """Every batch as it is and transposed: drawing a crop costs twice as much as learning from it.

    Transposing keeps the phase RGGB; mirroring would not.
    """
    for batch in batches:
        x, mono, truth, weight, logit = batch
        yield batch
        yield [transposed(x), mono, transposed(truth), transposed(weight), logit]


def transposed(packed: torch.Tensor) -> torch.Tensor:
    """Rows and columns of (N, 4 f, h, w) packed planes exchanged, those inside the 2 x 2 blocks as well."""
    n, channels, h, w = packed.shape
    return packed.reshape(n, channels // 4, 2, 2, h, w).permute(0, 1, 3, 2, 5, 4).reshape(n, channels, w, h)


def loss_of(net: Unet, batch: list[torch.Tensor], precision: str) -> torch.Tensor:
    """Cross-entropy under the crop's own rate as the prior; near 0: all known, near 1: nothing but the rate."""
    x, mono, truth, weight, logit = batch
    x = x.to(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        answer = net(x, mono)
    return nn.functional.binary_cross_entropy_with_logits(answer.float() + logit, truth, weight)


@torch.no_grad()
def validated(net: Unet, held: list[torch.Tensor], loop: dict[str, Any], device: str) -> float:
    """The mean loss of held-back crops: of other cameras and photographs, always the same."""
    parts = zip(*(t.split(loop["batch"]) for t in held), strict=True)
    return float(np.mean([loss_of(net, [t.to(device) for t in part], loop["precision"]).item() for part in parts]))


def contract(settings: dict[str, Any]) -> ModuleType:
    """What the net sees: the module of the first look, or of the second."""
    return second if "first" in settings["data"] else features


def shipped(net: Unet, settings: dict[str, Any], facts: dict[str, Any], metrics: dict[str, Any], folder: Path) -> Any:
    """The net as ONNX and its card."""
    seen = contract(settings)
    flags = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    example = {"features": torch.randn(2, seen.CHANNELS, 64, 96), "mono": flags}
    outputs = {"ratio": ("n", 4, "h", "w")}
    model = shipping.export(net, example, outputs)
    facts = facts | {
        "parameters": shipping.parameters(net),
        "torch_onnxruntime_difference": shipping.agreement(net, model, example),
    }
    return model, shipping.card(
        settings["name"],
        "detect",
        "unet",
        folder,
        inputs={name: shipping.shape_of(array) for name, array in example.items()},
        outputs=outputs,
        normalisation=seen.NORMALISATION,
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR", "XTRANS", "QUAD_RGGB"),
        serving={"multiple": MULTIPLE, "halo": HALO} | settings["serve"],
        training=settings | facts,
        metrics=metrics,
        limits=(
            "trained without real X-Trans frames"
            if settings["data"].get("other_share")
            else "trained on mono and Bayer: X-Trans and Quad-Bayer it knows by the same features alone",
            "trained without modern DSLR stills",
        ),
        code=shipping.code(*CODE),
    )


def main() -> None:
    options = shipping.options(__doc__ or "", "unet.toml")
    net, facts = train(options.data, options.recipe, options.run, options.device, options.start)
    shipping.write(*shipped(net, options.recipe, facts, {}, options.data), options.run)


if __name__ == "__main__":
    main()
