"""Nets that NumPy runs. Lost otherwise: a model means one thing with onnxruntime and another without."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fixpix_cli.nets import plain, registry
from fixpix_cli.nets.cards import KEY

SHIPPED = registry.read("mlp")


def windows(count, seed=0):
    return np.clip(np.random.default_rng(seed).standard_normal((count, 166)), -8, 8).astype(np.float32)


def by_onnxruntime(data):
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def test_answers_are_onnxruntimes():
    net, names = plain.parse(SHIPPED.data), ["sigma", "residual"]
    assert net is not None
    other = by_onnxruntime(SHIPPED.data)
    x = windows(1500)
    for mine, theirs in zip(net.run(names, {"window": x}), other.run(names, {"window": x}), strict=True):
        assert mine.dtype == np.float32 and mine == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert net.metadata[KEY] == other.get_modelmeta().custom_metadata_map[KEY]
    for mine, theirs in ((net.inputs, other.get_inputs()), (net.outputs, other.get_outputs())):
        assert [(v.name, v.shape, v.type) for v in mine] == [(v.name, v.shape, v.type) for v in theirs]


@pytest.mark.parametrize("count", [0, 1, 5, 511, 512, 700])
def test_an_answer_does_not_depend_on_what_else_is_asked(count):
    """Lost otherwise: a repair depends on how many bad pixels the frame has elsewhere, to the last bit."""
    net, x = plain.parse(SHIPPED.data), windows(1100)
    (whole,) = net.run(["residual"], {"window": x})
    (part,) = net.run(["residual"], {"window": x[300 : 300 + count]})
    assert np.array_equal(part, whole[300 : 300 + count])


@pytest.mark.parametrize("name", ["unet", "unet-dense", "unet-crowds", "cnn", "vit"])
def test_other_nets_are_onnxruntimes(name):
    assert plain.parse(registry.read(name).data) is None


def test_a_damaged_file_is_no_net_or_another_one_but_never_a_fault():
    """What is no net here goes to onnxruntime, which says why."""
    data, rng = SHIPPED.data, np.random.default_rng(0)
    for cut in rng.integers(0, len(data), 40):
        assert plain.parse(data[:cut]) is None or cut == len(data)
    for place in rng.integers(0, 4000, 200):
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        net = plain.parse(bytes(broken))
        if net is not None:
            assert net.nodes and net.weights


def test_what_is_no_onnx_file_is_no_net():
    for data in (b"", b"\x00", b"not a model", Path(__file__).read_bytes()):
        assert plain.parse(data) is None
