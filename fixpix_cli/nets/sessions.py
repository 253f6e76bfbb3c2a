"""Floor 2. Running a model: the only file that imports onnxruntime, and translates its exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
from ..mosaic import Float32
from .cards import KEY, Card


@contextmanager
def translated(source: str) -> Iterator[None]:
    """Whatever onnxruntime raises (its classes share no base but Exception) becomes a ModelError."""
    try:
        yield
    except (ModelError, MemoryError):
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
    """Open a model from its bytes.

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
    ModelError
        Not an ONNX model, no valid card, or the inputs are not those of the card.
    """
    with translated(source):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        handle = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        text = handle.get_modelmeta().custom_metadata_map.get(KEY)
        inputs, outputs = handle.get_inputs(), handle.get_outputs()
    card = Card.parse(text, source)
    _check(source, "input", inputs, card.inputs)
    _check(source, "output", outputs, card.outputs)
    return Session(card, source, sha256, handle)


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
