"""Floor 2. Running a model: the only file that imports onnxruntime, and translates its exceptions.

Nets of fully connected layers run without it on the CPU (`plain`): it takes longer to load than they take.

On the CPU the answers are the same to the last bit with any number of threads (`tests/nets/test_devices.py`). Other
devices round otherwise; what runs on them is therefore asked for by name (`run_on`), and onnxruntime, which goes on
with the CPU if it cannot use a device, is asked afterwards which one it took. Operators that a device does not have
run on the CPU in any case.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import DeviceError, ModelError, UsageError
from ..mosaic import Float32
from . import plain
from .cards import KEY, Card

#: Device -> onnxruntime's name of it, and what makes it usable. In the order in which "auto" takes them.
DEVICES = {
    "cuda": (
        "CUDAExecutionProvider",
        "it needs an NVIDIA GPU with its driver, and onnxruntime-gpu in the place of onnxruntime: "
        "pip uninstall onnxruntime, then pip install 'fixpix[cuda]' --force-reinstall",
    ),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime for macOS has it"),
    "directml": (
        "DmlExecutionProvider",
        "it needs Windows, and onnxruntime-directml in the place of onnxruntime (pip install onnxruntime-directml)",
    ),
    "openvino": (
        "OpenVINOExecutionProvider",
        "it needs onnxruntime-openvino in the place of onnxruntime (pip install onnxruntime-openvino)",
    ),
    "cpu": ("CPUExecutionProvider", "install onnxruntime again"),
}
AUTO = "auto"


@dataclass
class _Running:
    """How the nets of this process run, and whether one did since that was last asked."""

    device: str = "cpu"
    used: bool = False


_running = _Running()


def run_on(device: str) -> None:
    """Run the nets that this process opens from now on by a device.

    Parameters
    ----------
    device : str
        A name of `DEVICES`, as `choose` gives it.
    """
    _running.device, _running.used = device, False


def ran() -> bool:
    """Whether a net answered since `run_on`."""
    return _running.used


def offered() -> tuple[str, ...]:
    """onnxruntime's names of the devices that it is made for; whether one is there shows when it is used."""
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def version() -> str:
    """onnxruntime's version."""
    import onnxruntime

    return str(onnxruntime.__version__)


def choose(wanted: str, available: Collection[str]) -> str:
    """The device that a run uses, from what onnxruntime offers.

    Parameters
    ----------
    wanted : str
        A name of `DEVICES`, or "auto": the first that is offered.
    available : collection of str
        onnxruntime's names.

    Raises
    ------
    UsageError
        There is no such device.
    DeviceError
        It is not offered.
    """
    if wanted == AUTO:
        return next(name for name, (provider, _) in DEVICES.items() if provider in available or name == "cpu")
    if wanted not in DEVICES:
        raise UsageError(f"--device {wanted}: use {', '.join(DEVICES)} or {AUTO}")
    provider, remedy = DEVICES[wanted]
    if provider not in available:
        raise DeviceError(f"--device {wanted}: onnxruntime has no {provider} here; {remedy}")
    return wanted


@contextmanager
def translated(source: str) -> Iterator[None]:
    """Whatever onnxruntime raises (its classes share no base but Exception) becomes a ModelError."""
    try:
        yield
    except (ModelError, DeviceError, MemoryError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        if "bad_alloc" in words or "allocate memory" in words:  # the model is not to blame
            raise MemoryError(words) from error
        raise ModelError(f"{source}: onnxruntime cannot use this model: {words[:200]}") from error


@dataclass(frozen=True, eq=False)
class Session:
    """An open model. `run` may be called from several threads."""

    card: Card
    source: str
    sha256: str
    handle: Any

    def run(self, **inputs: Float32) -> dict[str, Float32]:
        """The net's float32 outputs by name, from its float32 inputs by name.

        Raises
        ------
        ModelError
            The net answered something that its card does not say.
        """
        names = list(self.card.outputs)
        _running.used = True
        with translated(self.source):
            answers = dict(zip(names, self.handle.run(names, inputs), strict=True))
        known: dict[str, int] = {}
        for name, array in inputs.items():
            known |= {s: n for s, n in zip(self.card.inputs[name], array.shape, strict=True) if isinstance(s, str)}
        for name, array in answers.items():
            wanted = tuple(known.get(s, s) if isinstance(s, str) else s for s in self.card.outputs[name])
            if array.shape != wanted:
                raise ModelError(f"{self.source}: output {name!r} is {array.shape}, its card says {wanted}")
        return answers


def open_session(data: bytes, source: str, sha256: str, threads: int = 1) -> Session:
    """Open a model from its bytes, on the device that `run_on` said.

    Parameters
    ----------
    data : bytes
        The very bytes that were hashed.
    source : str
        The file's name, for errors.
    sha256 : str
    threads : int
        Threads inside one operator; batches run one after the other.

    Raises
    ------
    DeviceError
        The device cannot be used.
    ModelError
        Not an ONNX model, no valid card, or the inputs are not those of the card.
    """
    if _running.device == "cpu" and (net := plain.parse(data)) is not None:
        return _session(source, sha256, net, net.metadata.get(KEY), net.inputs, net.outputs)
    with translated(source):
        import onnxruntime

        threads = max(1, threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if threads > 1:  # idle threads of one process must not eat the time of others
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        handle = _opened(onnxruntime, data, options)
        text = handle.get_modelmeta().custom_metadata_map.get(KEY)
        inputs, outputs = handle.get_inputs(), handle.get_outputs()
    return _session(source, sha256, handle, text, inputs, outputs)


def _session(source: str, sha256: str, handle: Any, text: str | None, inputs: Any, outputs: Any) -> Session:
    """A session of a net that is open, after a look whether it is what its card says."""
    card = Card.parse(text, source)
    _check(source, "input", inputs, card.inputs)
    _check(source, "output", outputs, card.outputs)
    return Session(card, source, sha256, handle)


def _opened(onnxruntime: Any, data: bytes, options: Any) -> Any:
    """onnxruntime's session on the device that `run_on` said; DeviceError where it took another."""
    device = _running.device
    provider, remedy = DEVICES[device]
    providers = [provider] if device == "cpu" else [provider, DEVICES["cpu"][0]]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its troubles; stdout is for data
        if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # finds CUDA in the wheels that fixpix[cuda] brings
        handle = onnxruntime.InferenceSession(data, options, providers=providers)
    if handle.get_providers()[0] != provider:
        raise DeviceError(f"--device {device}: onnxruntime cannot use {provider} on this machine; {remedy}")
    return handle


def _check(source: str, what: str, found: list[Any], wanted: dict[str, Any]) -> None:
    """Names, type and shapes as the card says; a size that the card names by a letter may be anything."""
    if sorted(value.name for value in found) != sorted(wanted):
        raise ModelError(f"{source}: {what}s are {[v.name for v in found]}, the card says {list(wanted)}")
    for value in found:
        shape = wanted[value.name]
        fits = isinstance(shape, list | tuple) and len(shape) == len(value.shape)
        if not fits or any(isinstance(a, int) and a != b for a, b in zip(shape, value.shape, strict=True)):
            raise ModelError(f"{source}: {what} {value.name!r} is {value.shape}, the card says {shape}")
        if value.type != "tensor(float)":
            raise ModelError(f"{source}: {what} {value.name!r} is {value.type}, not float")
