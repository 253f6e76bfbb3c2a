"""What nets run on: asked for by name, never another one in silence; and the same bits with any number of threads."""

import json
import sys

import numpy as np
import pytest
from conftest import json_lines, scene, write_fits

from fixpix_cli.errors import DeviceError, UsageError
from fixpix_cli.nets import registry, sessions

CPU = "CPUExecutionProvider"


@pytest.fixture(autouse=True)
def back_to_the_cpu():
    yield
    sessions.run_on("cpu")


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("cpu", [CPU], "cpu"),
        ("cuda", ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU], "cuda"),
        ("openvino", ["OpenVINOExecutionProvider", CPU], "openvino"),
        ("coreml", ["CoreMLExecutionProvider", CPU], "coreml"),
        ("directml", ["DmlExecutionProvider", CPU], "directml"),
        ("auto", [CPU], "cpu"),
        ("auto", ["AzureExecutionProvider", CPU], "cpu"),
        ("auto", ["OpenVINOExecutionProvider", "CUDAExecutionProvider", CPU], "cuda"),
        ("cpu", ["CUDAExecutionProvider", CPU], "cpu"),
    ],
)
def test_the_choice(wanted, offered, chosen):
    assert sessions.choose(wanted, offered) == chosen


@pytest.mark.parametrize("wanted", ["cuda", "coreml", "directml", "openvino"])
def test_what_is_not_there_is_refused_with_its_remedy(wanted):
    """Lost otherwise: hours on the CPU by one who asked for a GPU."""
    with pytest.raises(DeviceError, match="onnxruntime") as caught:
        sessions.choose(wanted, [CPU])
    assert caught.value.exit_code == 3 and f"--device {wanted}" in str(caught.value)
    with pytest.raises(UsageError, match="cuda"):
        sessions.choose("quantum", [CPU])


def test_onnxruntime_may_not_take_another_device_in_silence():
    """It goes on with the CPU where the device is missing; here it is made to."""
    if "CUDAExecutionProvider" in sessions.offered():
        pytest.skip("this onnxruntime has CUDA")
    sessions.run_on("cuda")
    with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
        registry.show("mlp")


def test_the_device_is_known_to_the_outcome(run, tmp_path):
    """Exit 3 before any frame where it is missing; a word in the outcome where auto finds none."""
    write_fits(tmp_path / "a.fits", scene().samples, BAYERPAT="RGGB")
    missing = next(name for name in ("coreml", "directml") if (name == "coreml") != (sys.platform == "darwin"))
    code, out, err = run("detect", "a.fits", "--device", missing, "--json")
    assert code == 3 and missing in err and not out and not list((tmp_path / "masks").iterdir())
    assert run("calibrate", "a.fits", "--device", "quantum")[0] == 2
    listed = {line["device"]: line for line in map(json.loads, run("models", "devices", "--json")[1].splitlines())}
    assert set(listed) == set(sessions.DEVICES) and listed["cpu"] == {"device": "cpu", "usable": True, "error": None}
    assert not listed[missing]["usable"] and listed[missing]["error"]
    (record,), _ = json_lines(run("correct", "a.fits", "--auto", "--device", "auto", "--json")[1])
    others = [name for name, line in listed.items() if line["usable"] and name != "cpu"]
    assert any(("nets ran on" in note) and (others[0] if others else "CPU") in note for note in record["notes"])


@pytest.mark.parametrize("name", registry.SHIPPED)
def test_threads_change_no_bit(name):
    """A single frame uses all processors: lost otherwise, results that depend on the machine."""
    rng = np.random.default_rng(0)
    blob = registry.read(name)
    given, answers = None, []
    for threads in (1, 2, 5):
        session = sessions.open_session(blob.data, str(blob.path), blob.sha256, threads)
        if given is None:
            shapes = session.card.inputs.items()
            sizes = {"n": 300 if name == "mlp" else 2, "h": 64, "w": 48 if name.startswith("unet") else 64}
            given = {
                key: rng.standard_normal([sizes[s] if isinstance(s, str) else s for s in shape]).astype(np.float32)
                for key, shape in shapes
            }
        answers.append(session.run(**given))
    for more in answers[1:]:
        for key, value in answers[0].items():
            assert np.array_equal(value, more[key], equal_nan=True)
