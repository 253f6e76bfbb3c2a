"""What every training recipe shares: checkpoints, the agreement of torch and onnxruntime, cards, SHA256SUMS."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import data as data_
import numpy as np
import onnx
import onnxruntime
import torch

from fixpix_cli import __version__
from fixpix_cli.nets import cards

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent
#: Nets to compare with; no command uses them.
REFERENCE = MODELS / "reference"
#: Greatest difference between torch and onnxruntime that a model may be shipped with.
AGREEMENT = 1e-4


def options(description: str, settings: str) -> argparse.Namespace:
    """The command line that all recipes share; `settings` is the recipe's own file."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("FIXPIX_DATA"), help="folder with frames.csv")
    parser.add_argument("--settings", type=Path, default=HERE / settings)
    parser.add_argument("--run", type=Path, default=None, help="folder of the pool, the log and the checkpoint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="checkpoint of a run, or a unet's model, to begin with")
    parser.add_argument("--table", action="store_true", help="only measure the exported models and print the table")
    found = parser.parse_args()
    if found.data is None:
        parser.error("say where the data are: --data FOLDER or FIXPIX_DATA")
    found.data = Path(found.data)
    found.recipe = tomllib.loads(found.settings.read_text())
    found.run = found.run or HERE / "runs" / found.settings.stem
    found.run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(found.threads)
    return found


class Checkpoint:
    """State of a run in one file, replaced as a whole, valid for one recipe only."""

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self.path, self.recipe = path, json.dumps(recipe, sort_keys=True)

    def read(self) -> dict[str, Any] | None:
        """What was kept, or None where there is nothing for this recipe."""
        if not self.path.exists():
            return None
        kept = torch.load(self.path, weights_only=True, map_location="cpu")
        return kept if kept.pop("recipe") == self.recipe else None

    def keep_run(self, net: torch.nn.Module, optimiser: Any, step: int, spent: float) -> None:
        self.keep(net=net.state_dict(), optimiser=optimiser.state_dict(), step=step, spent=spent)

    def keep(self, **state: Any) -> None:
        part = self.path.with_suffix(".part")
        torch.save(state | {"recipe": self.recipe}, part)
        os.replace(part, self.path)


def weights_of(start: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The weights of another net and how many steps made them: of a run's checkpoint or a unet's model."""
    if start.suffix != ".onnx":
        kept = torch.load(start, weights_only=True, map_location="cpu")
        return kept["net"], kept["step"]
    model = onnx.load(start)
    (told,) = (json.loads(p.value)["training"] for p in model.metadata_props if p.key == cards.KEY)
    weights = {w.name: torch.from_numpy(onnx.numpy_helper.to_array(w).copy()) for w in model.graph.initializer}
    return weights, told["steps"] + told.get("steps_before", 0)


def export(
    net: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    outputs: dict[str, tuple[Any, ...]],
    shapes: dict[str, tuple[Any, ...]] | None = None,
) -> Any:
    """The net as ONNX, by torch's own tracer.

    Parameters
    ----------
    net : Module
        In evaluation mode.
    inputs : name -> an example; its first dimension, and any of 16 or more in dimensions 2 and 3, may vary
    outputs : name -> shape, a text for each size that varies
    shapes : the same of the inputs, where `shape_of` does not say it
    """
    import io

    axes = {k: {i: s for i, s in enumerate(shape) if isinstance(s, str)} for k, shape in outputs.items()}
    given = {name: shape_of(t) for name, t in inputs.items()} | (shapes or {})
    axes |= {name: {i: s for i, s in enumerate(shape) if isinstance(s, str)} for name, shape in given.items()}
    file = io.BytesIO()
    torch.onnx.export(
        net,
        tuple(inputs.values()),
        file,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    model = onnx.load_from_string(file.getvalue())
    onnx.checker.check_model(model)
    return model


def shape_of(example: torch.Tensor) -> tuple[int | str, ...]:
    """The shape on the card: ("n", channels, "h", "w") for images, ("n", features) for windows."""
    if example.ndim == 4 and example.shape[2] > 1:
        return ("n", example.shape[1], "h", "w")
    return ("n", *example.shape[1:])


def agreement(net: torch.nn.Module, model: Any, inputs: dict[str, torch.Tensor]) -> float:
    """Greatest difference between torch and onnxruntime over all outputs; more than 1e-4 is an error."""
    limits = onnxruntime.SessionOptions()
    limits.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), limits, providers=["CPUExecutionProvider"])
    served = session.run(None, {k: v.numpy() for k, v in inputs.items()})
    with torch.no_grad():
        answer = net(*inputs.values())
    answers = answer if isinstance(answer, tuple) else (answer,)
    worst = max(float(np.abs(a - b.numpy()).max()) for a, b in zip(served, answers, strict=True))
    if not worst <= AGREEMENT:
        raise SystemExit(f"torch and onnxruntime differ by {worst:g}")
    return worst


def parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def credit(folder: Path, wanted: Callable[[dict[str, str]], bool] = lambda row: True) -> tuple[dict[str, str], ...]:
    """Source and licence of everything marked `train`, for the card."""
    used = data_.table(folder, "frames.csv", "train") + data_.table(folder, "photos.csv", "train")
    found = sorted({(r["source"], r["licence"]) for r in used if not r["file"].startswith("maps/") and wanted(r)})
    return tuple({"source": source, "licence": licence} for source, licence in found)


def code(*names: str) -> str:
    """SHA-256 of some files of the repository, in the order given."""
    return hashlib.sha256(b"".join((MODELS.parent / name).read_bytes() for name in names)).hexdigest()


def card(name: str, task: str, family: str, folder: Path, **facts: Any) -> cards.Card:
    """A card of this version of the program."""
    return cards.Card(name=name, task=task, family=family, program=(__version__, ""), data=credit(folder), **facts)


def write(model: Any, card: cards.Card, folder: Path = MODELS) -> Path:
    """The model with its card inside; in models/ or models/reference/ with its line in the SHA256SUMS there."""
    del model.metadata_props[:]
    model.metadata_props.add(key=cards.KEY, value=card.to_json())
    path = folder / f"{card.name}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    if folder in (MODELS, REFERENCE):
        sign([path])
    print(f"{path.name}: {path.stat().st_size} bytes")
    return path


def sign(paths: Iterable[Path]) -> None:
    """Bring the SHA256SUMS beside each file up to date."""
    for path in paths:
        sums = path.parent / "SHA256SUMS"
        lines = sums.read_text().splitlines() if sums.exists() else []
        lines = [line for line in lines if line.strip() and not line.endswith(f"  {path.name}")]
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
        sums.write_text("\n".join(sorted(lines, key=lambda line: line.split()[1])) + "\n")
