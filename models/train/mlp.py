"""Train, validate and export the MLP corrector.

    FIXPIX_DATA=... python models/train/mlp.py            train (resumes) and export
    FIXPIX_DATA=... python models/train/mlp.py --validate the table of the shipped model only

Runs on the CPU or on CUDA alike. The checkpoint in models/train/runs carries
weights, optimiser, step and random state; an interrupted run goes on from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
import tomllib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import data as training_data

from fixpix_cli import normalise, repair, score
from fixpix_cli.inject import Injection, positions
from fixpix_cli.mosaic import Area, Mosaic
from fixpix_cli.nets.cards import KEY, Card
from fixpix_cli.nets.correctors import Mlp
from fixpix_cli.nets.sessions import open_session
from fixpix_cli.noise import NoiseModel
from fixpix_cli.tiles import windows

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent
ATTRIBUTION = [
    "Canon PowerShot S40 and GoPro HERO7 Black raws, thorsted/digicam_corpus, CC0-1.0",
    "GoPro HERO6, HERO7 and Fusion raws, gopro/gpr samples, Apache-2.0 OR MIT",
    "photographs of the sources named in the data folder's photos.csv, CC BY 4.0, CC0 and MIT as listed there",
]


def net(settings: dict, inputs: int):
    import torch

    layers, width = [], inputs
    for size in settings["widths"]:
        layers += [torch.nn.Linear(width, size), torch.nn.ReLU()]
        width = size
    last = torch.nn.Linear(width, 1)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return torch.nn.Sequential(*layers, last)


def batch(settings: dict, sources: tuple, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of some windows; native outliers are no targets."""
    cameras, photos = sources
    inputs, targets = [], []
    low, high = np.log(settings["rates"])
    for _ in range(settings["batch_crops"]):
        if rng.random() < settings["photographs_share"]:
            whole = training_data.unprocess(photos[int(rng.integers(len(photos)))], rng)
        else:
            frames = cameras[int(rng.integers(len(cameras)))]
            whole = frames[int(rng.integers(len(frames)))]
        mosaic = training_data.crop(whole, settings["crop"], rng)
        pattern = str(rng.choice(["scattered"] * 6 + ["cluster:2", "cluster:3", "cluster:5", "columns", "rows"]))
        rate = float(np.exp(rng.uniform(low, high)))
        if pattern != "scattered":
            rate = min(rate, 0.15)
        rows, cols = positions(mosaic, Injection(rate, pattern=pattern, seed=int(rng.integers(1 << 30))))
        bad = np.zeros(mosaic.shape, bool)
        bad[rows, cols] = True
        want = settings["windows_per_crop"]
        if len(rows) < want:  # few bad pixels: the same neighbourhoods, seen from good centres
            extra = rng.choice(mosaic.samples.size, want - len(rows), replace=False)
            rows, cols = (
                np.concatenate([rows, extra // mosaic.shape[1]]),
                np.concatenate([cols, extra % mosaic.shape[1]]),
            )
        else:
            pick = rng.choice(len(rows), want, replace=False)
            rows, cols = rows[pick], cols[pick]
        calm = ~score.native_outliers(mosaic)[rows, cols]
        rows, cols = rows[calm], cols[calm]
        good = ~bad
        for position, index in repair.by_position(mosaic, rows, cols):
            if not len(index):
                continue
            v, ok = windows(mosaic.samples, good, rows[index], cols[index], settings["window"] // 2)
            seen = normalise.normalise(v, ok, mosaic.cfa, position)
            usable = (seen.scale > 0) & np.isfinite(seen.centre)
            truth = mosaic.samples[rows[index], cols[index]]
            target = (truth - seen.centre) / np.where(usable, seen.scale, 1) - seen.base
            inputs.append(seen.inputs[usable])
            targets.append(target[usable].astype(np.float32))
    return np.concatenate(inputs), np.concatenate(targets)


def train(settings: dict, data: Path):
    import torch

    torch.set_num_threads(settings["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(settings["seed"])
    torch.manual_seed(settings["seed"])
    size = 2 * (settings["window"] ** 2 - 1) + len(normalise.CLASSES)
    model = net(settings, size).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings["learning_rate"], settings["steps"], pct_start=0.1
    )
    runs = HERE / "runs"
    runs.mkdir(exist_ok=True)
    checkpoint, step = runs / f"{settings['name']}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        if state["settings"] == settings:
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            schedule.load_state_dict(state["schedule"])
            rng.bit_generator.state, step = state["rng"], state["step"]
            print(f"resumed at step {step}", flush=True)
    sources = (list(training_data.mosaics(data).values()), training_data.photographs(data))
    print(f"{sum(map(len, sources[0]))} mosaics of {len(sources[0])} cameras, {len(sources[1])} photographs, {device}")
    start, losses = time.time(), []
    while step < settings["steps"]:
        x, y = batch(settings, sources, rng)
        answer = model(torch.from_numpy(x).to(device))[:, 0]
        loss = torch.nn.functional.huber_loss(answer, torch.from_numpy(y).to(device), delta=settings["huber"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        step += 1
        if step % 200 == 0:
            print(f"step {step} loss {np.mean(losses[-200:]):.5f} {time.time() - start:.0f} s", flush=True)
        if step % settings["checkpoint_every"] == 0 or step == settings["steps"]:
            state = {"settings": settings, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
            state |= {"schedule": schedule.state_dict(), "rng": rng.bit_generator.state, "step": step}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
    return model.cpu().eval()


def export(model, settings: dict, path: Path, metrics: dict, up_to: float) -> None:
    """Write the ONNX file with its card, checked against torch to 1e-4."""
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper

    size = 2 * (settings["window"] ** 2 - 1) + len(normalise.CLASSES)
    nodes, weights, name = [], [], "windows"
    for number, layer in enumerate(model):
        out = f"h{number}"
        if isinstance(layer, torch.nn.Linear):
            for part, value in (("w", layer.weight), ("b", layer.bias)):
                weights.append(numpy_helper.from_array(value.detach().numpy(), f"{part}{number}"))
            nodes.append(helper.make_node("Gemm", [name, f"w{number}", f"b{number}"], [out], transB=1))
        else:
            nodes.append(helper.make_node("Relu", [name], [out]))
        name = out
    graph = helper.make_graph(
        nodes,
        settings["name"],
        [helper.make_tensor_value_info("windows", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1])],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    code = b"".join((HERE / f).read_bytes() for f in ("mlp.py", "data.py", "mlp.toml"))
    card = Card(
        name=settings["name"],
        task="correct",
        family="mlp",
        inputs=size,
        window=settings["window"],
        normalisation=normalise.VERSION,
        default_up_to=up_to,
        training=settings,
        data=ATTRIBUTION,
        metrics=metrics,
        limits="mono and Bayer; scattered bad pixels and small clusters; beyond default_up_to use least squares",
        code=hashlib.sha256(code).hexdigest(),
    )
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, card.dumps()
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    x = np.random.default_rng(0).standard_normal((512, size)).astype(np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    worst = float(np.abs(open_session(path, None).run(x) - wanted).max())
    if worst > 1e-4:
        raise SystemExit(f"torch and onnxruntime differ by {worst}")
    print(f"{path}: {path.stat().st_size} bytes, torch and onnxruntime agree to {worst:.1e}")


CASES = [("0.01 %", 1e-4, "scattered"), ("1 %", 0.01, "scattered"), ("5 %", 0.05, "scattered"),
         ("20 %", 0.2, "scattered"), ("40 %", 0.4, "scattered"), ("70 %", 0.7, "scattered"),
         ("3 x 3", 0.003, "cluster:3"), ("5 x 5", 0.005, "cluster:5"), ("columns", 0.003, "columns")]  # fmt: skip


def excess(mosaic: Mosaic, bad: np.ndarray, corrector) -> float:
    """Mean squared error minus the noise variance over the bad pixels, DN^2."""
    samples = mosaic.samples.copy()
    samples[bad] = 0
    fixed = repair.repair(mosaic.with_samples(samples), bad, corrector)
    truth = mosaic.samples[bad].astype(np.float64)
    black = np.broadcast_to(mosaic.black_frame(), mosaic.shape)[bad]
    noise = NoiseModel.of(mosaic).sigma(truth - black) ** 2
    return float(np.mean((fixed[bad] - truth) ** 2 - noise))


def validate(mlp: Mlp, data: Path) -> dict:
    """Ratio of excess errors, mlp : least squares, per camera and case; a camera's frames are summed."""
    table: dict[str, dict[str, float]] = {}
    for camera, frames in training_data.mosaics(data, "validate").items():
        row = {}
        for name, rate, pattern in CASES:
            ours = theirs = 0.0
            for number, whole in enumerate(frames[:3]):
                mosaic = whole.cropped(Area(0, 0, min(whole.shape[0], 1000), min(whole.shape[1], 1000)))
                spec = Injection(max(rate, 3e-4), pattern=pattern, seed=number)
                rows, cols = positions(mosaic, spec)
                bad = np.zeros(mosaic.shape, bool)
                bad[rows, cols] = True
                bad &= ~score.native_outliers(mosaic)
                ours += max(excess(mosaic, bad, mlp), 0)
                theirs += max(excess(mosaic, bad, repair.least_squares), 1e-9)
            row[name] = round(ours / theirs, 3)
        table[camera] = row
        print(f"{camera[:44]:44s} " + " ".join(f"{row[n]:7.3f}" for n, _, _ in CASES), flush=True)
    mean = {n: round(float(np.mean([row[n] for row in table.values()])), 3) for n, _, _ in CASES}
    print(f"{'mean over cameras':44s} " + " ".join(f"{mean[n]:7.3f}" for n, _, _ in CASES))
    return {"excess error, mlp : least squares": {**table, "mean over cameras": mean}}


def best_up_to(metrics: dict) -> float:
    """The greatest validated rate up to which the mlp beats least squares in the mean over cameras."""
    mean = metrics["excess error, mlp : least squares"]["mean over cameras"]
    best = 0.0
    for name, rate, pattern in CASES:
        if pattern == "scattered":
            if mean[name] >= 1:
                break
            best = rate
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("FIXPIX_DATA"))
    parser.add_argument("--settings", default=HERE / "mlp.toml")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args()
    if not options.data:
        parser.error("give --data or FIXPIX_DATA")
    settings = tomllib.loads(Path(options.settings).read_text())
    settings["steps"] = options.steps or settings["steps"]
    path, data = MODELS / f"{settings['name']}.onnx", Path(options.data)
    print(f"{'':44s} " + " ".join(f"{n:>7s}" for n, _, _ in CASES))
    if options.validate:
        print(json.dumps(validate(Mlp(open_session(path, None)), data)))
        return
    model = train(settings, data)
    export(model, settings, path, {}, 0.0)
    metrics = validate(Mlp(open_session(path, None)), data)
    export(model, settings, path, metrics, best_up_to(metrics))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (MODELS / "SHA256SUMS").write_text(f"{digest}  {path.name}\n")
    print(f"default up to a damage rate of {best_up_to(metrics)}")


if __name__ == "__main__":
    main()
