"""The int8 twin of a shipped unet detector, and how far it agrees with the original.

    python models/train/quantise.py --data FOLDER [--model unet] [--out FOLDER]

In every block (two 3 x 3 convolutions around a shortcut) the convolutions work on integers: activations of 8 bits
without sign, weights of 8 bits with sign and a scale per output channel, sums of 32 bits, which is what VNNI processors
multiply four at a time. The two activations inside a block have a scale per channel, too, which the weights before and
after take up; ranges come from crops of the training cameras, damaged as in training. The shortcuts, the first and the
last layers and the changes of size stay in single precision: they carry the answer itself.

With everything in 8 bits the net was 2.8 times as fast, not 1.4 times, but off by 0.5 nats near a decision: on the
validation cameras 0.1 to 0.4 points of precision were lost on scattered damage, 1 and 5 points of recall in clusters of
3 x 3 and 5 x 5. Cutting tails of 1e-3 lost 0.7 points of the latter. Of this twin, mean recall / precision of rules and
net together at d = 0.7, one frame of each of the seven cameras, single precision first:

    0.01 %          .9595 / .9920   .9595 / .9911
    1 %             .9733 / .9906   .9730 / .9903
    3 x 3, 0.2 %    .7871 / .9984   .7874 / .9984
    5 x 5, 0.2 %    .6665 / .9997   .6683 / .9997

These rows are of the unet before the one that is shipped now. Of the latter's only `agreement` is known: no
command uses it. ``python models/train/detections.py --model FILE`` beside ``--model unet`` gives such rows at length.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import shipping
from onnx import TensorProto, helper, numpy_helper
from unet import Crops

from fixpix_cli.mosaic import Array
from fixpix_cli.nets import registry

#: Crops that the ranges are taken from, and of the validation cameras, that both nets are compared on.
CROPS, HELD = 96, 64
#: Share of a channel's values that is cut on each side.
TAIL = 1e-5
#: Blocks that stay in single precision.
KEPT: tuple[str, ...] = ()


def quantised(model: Any, ends: dict[str, tuple[Array, Array]]) -> Any:
    """The twin of a unet as `unet.shipped` exports it, with the same inputs and outputs.

    Parameters
    ----------
    model : onnx.ModelProto
    ends : tensor name -> least and greatest value of each channel, (C,) arrays
        Of what `tensors_of` names.
    """
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    nodes = {node.output[0]: node for node in model.graph.node}
    del twin.graph.node[:]
    constants: list[Any] = []

    def constant(array: Array) -> str:
        constants.append(numpy_helper.from_array(np.asarray(array), f"c{len(constants)}"))
        return constants[-1].name

    blocks = {answer: (given, middle, answer) for given, middle, answer in tensors_of(model)}
    gone = {name for names in blocks.values() for name in names} | {nodes[answer].input[0] for answer in blocks}
    for node in model.graph.node:
        if node.output[0] in blocks:
            twin.graph.node.extend(_block(*blocks[node.output[0]], nodes, weights, ends, constant))
        elif node.output[0] not in gone:
            twin.graph.node.append(node)
    twin.graph.initializer.extend(constants)
    used = {name for node in twin.graph.node for name in node.input}
    kept = [t for t in twin.graph.initializer if t.name in used]
    del twin.graph.initializer[:]
    twin.graph.initializer.extend(kept)
    onnx.checker.check_model(twin)
    return twin


def tensors_of(model: Any) -> list[tuple[str, str, str]]:
    """Of each block to be quantised: what its first convolution is given, its answer, and the second one's answer."""
    nodes = {node.output[0]: node for node in model.graph.node}
    found = []
    for node in model.graph.node:
        relu = nodes.get(node.input[0])
        first = nodes.get(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
        if node.op_type != "Conv" or first is None or first.op_type != "Conv" or first.input[0] not in nodes:
            continue
        if nodes[first.input[0]].op_type == "Relu" and not any(f"/{block}/" in node.name for block in KEPT):
            found.append((first.input[0], first.output[0], node.output[0]))
    return found


def _block(
    given: str, middle: str, answer: str, nodes: Any, weights: Any, ends: dict[str, tuple[Array, Array]], constant: Any
) -> Iterator[Any]:
    """Quantise, two integer convolutions, back to single precision. Codes end at 0: that is the clipping."""
    before = np.maximum(ends[given][1], 1e-3 * ends[given][1].max())  # behind a clipping: the least is 0
    between = np.maximum(ends[middle][1], 1e-3 * max(float(ends[middle][1].max()), 1e-6))
    low, high = ends[answer]
    after = np.maximum(np.maximum(-low, high), 1e-6)
    zeros = {name: constant(np.full(len(a), z, np.uint8)) for name, a, z in (("in", before, 0), ("out", after, 128))}
    scales = {name: constant(a.astype(np.float32)) for name, a in (("in", before / 255), ("out", after / 127))}
    one, none, half = constant(np.float32(1)), constant(np.uint8(0)), constant(np.uint8(128))
    yield helper.make_node(
        "QuantizeLinear", [nodes[given].input[0], scales["in"], zeros["in"]], [f"{given}.q"], f"{given}.q", axis=1
    )
    yield _conv(
        nodes[middle], f"{given}.q", f"{middle}.q", weights, before / 255, between / 255, one, none, none, constant
    )
    yield _conv(
        nodes[answer], f"{middle}.q", f"{answer}.q", weights, between / 255, after / 127, one, none, half, constant
    )
    yield helper.make_node("DequantizeLinear", [f"{answer}.q", scales["out"], zeros["out"]], [answer], answer, axis=1)


def _conv(
    node: Any,
    given: str,
    name: str,
    weights: dict[str, Array],
    before: Array,
    after: Array,
    one: str,
    zero_in: str,
    zero_out: str,
    constant: Any,
) -> Any:
    """A convolution of integers whose channels are worth `before` and `after` a step each."""
    weight = weights[node.input[1]] * before[:, None, None] / after[:, None, None, None]
    steps = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), 1e-12) / 127
    inputs = [
        *(given, one, zero_in),
        constant(np.rint(weight / steps[:, None, None, None]).astype(np.int8)),
        constant(steps.astype(np.float32)),
        constant(np.zeros(len(steps), np.int8)),
        *(one, zero_out),
        constant(np.rint(weights[node.input[2]] / after / steps).astype(np.int32)),
    ]
    window = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name in ("kernel_shape", "pads")}
    return helper.make_node("QLinearConv", inputs, [name], name, **window)


def crops(folder: Path, count: int, use: str, seed: int) -> Iterator[tuple[Array, Array, Array, float]]:
    """Features, mono flag, truth (NaN where it does not count) and the logit of the rate of damaged crops."""
    settings = tomllib.loads((shipping.HERE / "unet.toml").read_text())["data"]
    for x, mono, truth, weight, logit in itertools.islice(Crops(folder, settings, seed, use), count):
        yield x[None], mono[None], np.where(weight > 0, truth, np.nan), float(logit.item())


def ends_of(model: Any, drawn: Iterable[tuple[Array, Array]]) -> dict[str, tuple[Array, Array]]:
    """Least and greatest value of each channel of what `tensors_of` names, tails cut."""
    names = list(dict.fromkeys(name for names in tensors_of(model) for name in names))
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    twin.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = session_of(twin)
    found: dict[str, list[Array]] = {name: [] for name in names}
    for x, mono in drawn:
        for name, values in zip(names, session.run(names, {"features": x, "mono": mono}), strict=True):
            by_channel = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
            found[name].append(np.quantile(by_channel, (TAIL, 1 - TAIL), axis=1))
    return {name: (np.min([a[0] for a in v], axis=0), np.max([a[1] for a in v], axis=0)) for name, v in found.items()}


def session_of(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def agreement(one: Any, two: Any, drawn: Iterable[tuple[Array, Array, Array, float]]) -> dict[str, float]:
    """How two sessions differ on crops with a known truth, each crop's own damage rate being the prior.

    Returns
    -------
    dict
        ``difference``: root mean square in nats where the first one's log-odds are within 4; recall, precision and
        cross-entropy of both.
    """
    truths: list[Array] = []
    odds: list[list[Array]] = [[], []]
    for x, mono, truth, logit in drawn:
        known = np.isfinite(truth)
        truths.append(truth[known] > 0)
        for found, session in zip(odds, (one, two), strict=True):
            found.append((session.run(["ratio"], {"features": x, "mono": mono})[0][0] + logit)[known])
    truth, (a, b) = np.concatenate(truths), (np.concatenate(found) for found in odds)
    near = np.abs(a) < 4
    rows = {"difference": np.sqrt(np.mean((a - b)[near] ** 2))}
    for name, x in (("fp32", a), ("int8", b)):
        hit = np.count_nonzero((x > 0) & truth)
        rows[f"recall_{name}"] = hit / np.count_nonzero(truth)
        rows[f"precision_{name}"] = hit / max(1, np.count_nonzero(x > 0))
        rows[f"cross_entropy_{name}"] = np.logaddexp(0, np.where(truth, -x, x)).mean()
    return {key: round(float(value), 5) for key, value in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("FIXPIX_DATA"))
    parser.add_argument("--model", default="unet")
    parser.add_argument("--out", type=Path, default=shipping.HERE / "runs", help="folder")
    options = parser.parse_args()
    shown = registry.show(options.model)
    model = onnx.load(shown.path)
    twin = quantised(model, ends_of(model, ((x, mono) for x, mono, _, _ in crops(options.data, CROPS, "train", 77))))
    facts = agreement(session_of(model), session_of(twin), crops(options.data, HELD, "validate", 5))
    for key, value in facts.items():
        print(f"{key:24} {value:g}")
    card = replace(
        shown.card,
        name=f"{shown.card.name}-int8",
        training={"quantised_from": shown.sha256, "crops": CROPS, "tail": TAIL, "kept": KEPT},
        metrics={"definition": f"{HELD} crops of validation cameras and photographs", "rows": facts},
        code=shipping.code("models/train/quantise.py"),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    shipping.write(twin, card, options.out)


if __name__ == "__main__":
    main()
