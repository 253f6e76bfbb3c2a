"""Train, export and measure the mlp corrector.

    python models/train/mlp.py --data FOLDER          # or FIXPIX_DATA=FOLDER
    python models/train/mlp.py --data FOLDER --table  # only measure the exported model and print the table

One pool of samples serves windows of every radius, and a net is trained for each. What the validation cameras pick
is shipped; its card shows the others' figures, too.

The net sees what `normalise.windows.encode` makes of a window. It answers the residual over the first estimate
and a sigma. The sigma's layers hang on the first hidden layer and no gradient leaves them, so that a repair is
exactly what it would be without a sigma.

A run can be stopped at any time: started again, it goes on from its last checkpoint.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import data as data_
import measure
import numpy as np
import shipping
import torch
from torch import nn

from fixpix_cli.nets.correctors import MlpCorrector
from fixpix_cli.normalise import windows

#: What the hash of the training code covers, relative to the repository.
CODE = ("models/train/mlp.py", "models/train/data.py", "models/train/measure.py", "fixpix_cli/normalise/windows.py")
#: Share of errors within one and within two sigma that a normal distribution has.
ONE_SIGMA, TWO_SIGMA = 0.6827, 0.9545
_SIGMA_WIDTH = 32


class Mlp(nn.Module):
    """(N, features) float32 -> residual over the first estimate and sigma, (N,) float32 each, in units."""

    def __init__(self, radius: int, widths: list[int]) -> None:
        super().__init__()
        self.first = nn.Linear(windows.length(radius), widths[0])
        self.rest = nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)))
        self.head = nn.Linear(widths[-1], 1)
        self.doubt = nn.Sequential(nn.Linear(widths[0], _SIGMA_WIDTH), nn.ReLU(), nn.Linear(_SIGMA_WIDTH, 1))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        nn.init.constant_(self.doubt[-1].bias, -1.0)

    def forward(self, window: torch.Tensor, turn: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """`turn`, one of `symmetries`, mirrors or turns the windows: cheaper on the weights than on the samples."""
        weight = self.first.weight if turn is None else self.first.weight[:, turn]
        hidden = nn.functional.relu(nn.functional.linear(window, weight, self.first.bias))
        doubt = self.doubt(hidden.detach()).float()
        residual = self.head(self.rest(hidden)).float()
        return residual.flatten(), torch.exp(doubt.clamp(-8.0, 4.0)).flatten()


def symmetries(radius: int) -> torch.Tensor:
    """(8, features) indices that mirror and turn the window; the kinds of centre are the same in all."""
    side = 2 * radius + 1
    grid = np.arange(side * side).reshape(side, side)
    turned = [np.rot90(g, k) for g in (grid, grid.T) for k in range(4)]
    rest = np.arange(2 * side * side, windows.length(radius))
    rows = [np.concatenate([t.ravel(), t.ravel() + side * side, rest]) for t in turned]
    return torch.from_numpy(np.stack(rows))


def pool(folder: Path, settings: dict[str, Any], run: Path) -> Path:
    """The folder of the samples, drawn once per settings."""
    key = hashlib.sha256(json.dumps([settings["data"], settings["seed"]]).encode()).hexdigest()[:12]
    kept = run / f"pool-{key}"
    for number, use in enumerate(("train", "validate")):
        if not (kept / f"{use}-{settings['data']['radii'][-1]}.features").exists():
            data_.pool(folder, settings["data"], settings["seed"] + number, kept, use)
    return kept


@dataclass(frozen=True)
class Plan:
    """One training: the window, the net's widths, how long, and samples in a step."""

    radius: int
    widths: tuple[int, ...]
    steps: int
    batch: int

    @classmethod
    def of(cls, radius: int, part: dict[str, Any]) -> Plan:
        """From a part of the settings."""
        return cls(radius, tuple(part["widths"]), part["steps"], part["batch"])

    @property
    def name(self) -> str:
        side = 2 * self.radius + 1
        return f"mlp-{side}x{side}"


def checkpoint_of(plan: Plan, settings: dict[str, Any], run: Path) -> Path:
    """Where a training is kept."""
    return run / f"{plan.name}-{settings['seed']}-{plan.steps}.pt"


def train(
    kept: Path, plan: Plan, settings: dict[str, Any], run: Path, device: str, start: Path | None = None
) -> tuple[Mlp, dict[str, Any]]:
    """The loop, from nothing or from the weights of another run's checkpoint.

    Huber loss in root mean square errors of the first estimate, likelihood of sigma, cosine schedule. With `teacher` in
    the settings that share of the loss is against `taught`.
    """
    loop = settings["loop"]
    batch, judge = (data_.stored_pool(kept, use, plan.radius) for use in ("train", "validate"))
    torch.manual_seed(settings["seed"])
    net = Mlp(plan.radius, list(plan.widths)).to(device)
    lesson, share = np.zeros(len(batch.target), np.float32), loop.get("teacher", 0.0)
    if start is not None:
        net.load_state_dict(torch.load(start, weights_only=True, map_location="cpu")["net"])
        lesson = taught(net, plan, batch, kept / f"{start.stem}.npy", device) if share else lesson
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop["rate"], weight_decay=loop["decay"])
    repairing = [p for name, p in net.named_parameters() if not name.startswith("doubt")]
    order = np.random.default_rng(settings["seed"])
    mirrored = symmetries(plan.radius).to(device)
    step, spent = 0, 0.0
    checkpoint = shipping.Checkpoint(checkpoint_of(plan, settings, run), settings | {"plan": str(plan)})
    if state := checkpoint.read():
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        order = np.random.default_rng([settings["seed"], step])
        print(f"{plan.name} resumed at step {step}")
    started, shown = time.monotonic() - spent, []
    while step < plan.steps:
        for group in optimiser.param_groups:
            group["lr"] = loop["rate"] * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * step / plan.steps))
        index = order.integers(len(batch.target), size=plan.batch)
        x, *rest = (torch.from_numpy(a[index]).to(device) for a in (*_arrays(batch), lesson))
        target, stored, scale, told = rest
        with torch.autocast(device, torch.bfloat16, enabled=step < loop["bfloat16"] * plan.steps):
            residual, sigma = net(x.float(), mirrored[int(order.integers(8))])
        loss = nn.functional.huber_loss(residual * scale, target * scale, delta=loop["knee"])
        if share:
            learnt = nn.functional.huber_loss(residual * scale, told * scale, delta=loop["knee"])
            loss = (1 - share) * loss + share * learnt
        optimiser.zero_grad(set_to_none=True)
        (loss + _surprise(stored - residual.detach(), sigma)).backward()
        for part in (repairing, net.doubt.parameters()):
            nn.utils.clip_grad_norm_(part, 1.0)
        optimiser.step()
        step += 1
        shown.append(loss.item())
        if step % loop["show"] == 0:
            figures = "  ".join(f"{k} {v:.4f}" for k, v in judged(net, judge, device).items())
            print(f"{plan.name} step {step}  loss {np.mean(shown):.4f}  validation: {figures}", flush=True)
            shown = []
        if step % loop["checkpoint"] == 0 or step == plan.steps:
            checkpoint.keep_run(net, optimiser, step, time.monotonic() - started)
    net = net.cpu().eval()
    facts = {"steps": step, "seconds": round(time.monotonic() - started), "device": device}
    facts |= {"samples": len(batch.target), "parameters": shipping.parameters(net), "widths": list(plan.widths)}
    return net, facts | {"sigma_factor": calibrate(net, judge)}


def taught(net: Mlp, plan: Plan, batch: data_.Batch, path: Path, device: str) -> np.ndarray:
    """What a net says on average of all eight images of every window, (N,) float32 residuals; kept in `path`.

    On the validation cameras the excess error of that is 2 % less at 1 % damage and 5 % less at 70 % than that of one
    answer, which takes an eighth of the time. And a lesson so made has no noise, unlike the truth.
    """
    if path.exists():
        return np.asarray(np.load(path))
    turns, told = symmetries(plan.radius).to(device), np.zeros(len(batch.target), np.float32)
    with torch.no_grad():
        for start in range(0, len(told), 8192):
            part = slice(start, start + 8192)
            x = torch.from_numpy(np.array(batch.features[part])).to(device).float()
            told[part] = sum(net(x, turn)[0] for turn in turns).cpu().numpy() / len(turns)
    np.save(path, told)
    return told


def _arrays(batch: data_.Batch) -> tuple[np.ndarray, ...]:
    return batch.features, batch.target, batch.stored, batch.scale


def _surprise(error: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the errors under Laplace distributions of standard deviation sigma."""
    spread = sigma / math.sqrt(2)
    return (torch.log(spread) + error.abs() / spread).mean()


def judged(net: Mlp, batch: data_.Batch, device: str) -> dict[str, float]:
    """Squared error over that of the first estimate, and the coverage of sigma, on validation photographs."""
    errors, ratios, still = 0.0, [], 0.0
    with torch.no_grad():
        for start in range(0, len(batch.target), 8192):
            part = slice(start, start + 8192)
            x, target, stored, scale = (torch.from_numpy(np.array(a[part])).to(device) for a in _arrays(batch))
            residual, sigma = net(x.float())
            errors += float(((residual - target) * scale).square().sum())
            still += float((target * scale).square().sum())
            ratios.append(((residual - stored).abs() / sigma).cpu().numpy())
    ratio = np.concatenate(ratios)
    return {
        "error": errors / still,
        "within 1 sigma": float(np.mean(ratio <= 1)),
        "within 2 sigma": float(np.mean(ratio <= 2)),
        "sigma factor": float(np.quantile(ratio, ONE_SIGMA)),
    }


def calibrate(net: Mlp, batch: data_.Batch) -> float:
    """Scale the net's sigma so that the usual share of validation photographs' errors lies within it; the factor."""
    factor = judged(net, batch, "cpu")["sigma factor"]
    with torch.no_grad():
        net.doubt[-1].bias += math.log(factor)
    return factor


def export(net: Mlp, radius: int) -> Any:
    """The net as ONNX."""
    example = {"window": torch.zeros(16, windows.length(radius))}
    return shipping.export(net, example, {"residual": ("n",), "sigma": ("n",)})


def card_of(plan: Plan, settings: dict[str, Any], facts: dict[str, Any], metrics: dict[str, Any], folder: Path) -> Any:
    """The card, with the data's attribution by source and licence."""
    side = 2 * plan.radius + 1
    return shipping.card(
        plan.name,
        "correct",
        "mlp",
        folder,
        inputs={"window": ("n", windows.length(plan.radius))},
        outputs={"residual": ("n",), "sigma": ("n",)},
        normalisation=f"filled-{windows.NORMALISATION}",
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR"),
        serving={"radius": plan.radius, "best_below_rate": measure.best_below(metrics)},
        training=settings | facts,
        metrics=metrics,
        limits=(
            "mono and Bayer only: no X-Trans, no Quad-Bayer",
            f"no answer where the {side} x {side} window holds no good pixel",
            "sigma is calibrated on photographs turned into raw; its coverage on real cameras is in the metrics",
            "trained without modern DSLR stills; mono frames in training come from photographs and simulated skies",
        ),
        code=shipping.code(*CODE),
    )


def made(
    kept: Path, plan: Plan, settings: dict[str, Any], options: Any, start: Path | None = None
) -> tuple[Any, dict[str, Any]]:
    """Train and export: the model and the facts of its run."""
    net, facts = train(kept, plan, settings, options.run, options.device, start)
    model = export(net, plan.radius)
    example = data_.stored_pool(kept, "validate", plan.radius).features[:4096].astype(np.float32)
    facts["torch_onnxruntime_difference"] = shipping.agreement(net, model, {"window": torch.from_numpy(example)})
    return model, facts


def of_winner(radius: int, settings: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """The training of the window that is shipped: its plan, and the settings with its own, greater pool."""
    more = settings["winner"]
    drawn = settings["data"] | {"radii": [radius], "draws": more["draws"], "seconds": more["seconds"]}
    return Plan.of(radius, settings["net"] | more), settings | {"data": drawn}


def again_of(plan: Plan, settings: dict[str, Any], again: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """A further part of that training, from the weights of the one before: its plan and settings."""
    loop = settings["loop"] | {key: again[key] for key in ("rate", "teacher") if key in again}
    return replace(plan, steps=again["steps"]), settings | {"seed": again["seed"], "loop": loop}


def main() -> None:
    options = shipping.options(__doc__ or "", "mlp.toml")
    settings, folder, run = options.recipe, options.data, options.run
    if options.table:
        measure.print_table(measure.measure({"mlp": MlpCorrector.open()}, folder))
        return
    kept = pool(folder, settings, run)
    found = {}
    for radius in settings["data"]["radii"]:
        plan = Plan.of(radius, settings["net"])
        model, facts = made(kept, plan, settings, options)
        path = shipping.write(model, card_of(plan, settings, facts, {}, folder), run)
        found[plan.name] = MlpCorrector.open(path), plan, model, facts
    chosen = tuple(row for row in measure.DAMAGE if row[0] in settings["choose_by"])
    scores = measure.scores(measure.measure({name: net for name, (net, *_) in found.items()}, folder, chosen))
    for name, (corrector, *_) in found.items():
        scores[name]["microseconds"] = measure.microseconds(corrector)
    print(json.dumps(scores, indent=1))
    winner = found[min(found, key=lambda name: scores[name]["all"])][1]
    plan, settings = of_winner(winner.radius, settings)
    kept = pool(folder, settings, run)
    model, facts = made(kept, plan, settings, options)
    for again in settings["winner"]["again"]:
        if "pool" in again:
            kept = pool(folder, settings | {"seed": again["pool"]}, run)
        before, start = facts, checkpoint_of(plan, settings, run)
        plan, settings = again_of(plan, settings, again)
        model, facts = made(kept, plan, settings, options, start)
        facts["before"] = before
    path = shipping.write(model, card_of(plan, settings, facts, {}, folder), run)
    rows = measure.measure({"mlp": MlpCorrector.open(path)}, folder)
    measure.print_table(rows)
    shipping.write(model, card_of(plan, settings, facts, measure.summary(rows) | {"candidates": scores}, folder))


if __name__ == "__main__":
    main()
