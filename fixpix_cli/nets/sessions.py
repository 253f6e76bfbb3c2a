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
    except ModelError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise ModelError(f"{source}: onnxruntime cannot use this model: {words[:200]}") from error


@dataclass(frozen=True, eq=False)
class Session:
    """An open model. `run` may be called from several threads."""

    card: Card
    source: str
    sha256: str
    handle: Any

    def run(self, inputs: Float32) -> Float32:
        """The net's (N,) float32 answers to (N, features) float32 inputs."""
        with translated(self.source):
            (answer,) = self.handle.run([self.card.output], {self.card.input: inputs})
        if answer.shape != inputs.shape[:1]:
            raise ModelError(f"{self.source}: answered {answer.shape} to {len(inputs)} windows")
        return answer


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
    _check(source, "input", inputs, card.input, 2, card.features)
    _check(source, "output", outputs, card.output, 1, None)
    return Session(card, source, sha256, handle)


def _check(source: str, what: str, found: list[Any], name: str, rank: int, features: int | None) -> None:
    if [value.name for value in found] != [name]:
        raise ModelError(f"{source}: {what}s are {[v.name for v in found]}, the card says [{name!r}]")
    value = found[0]
    if value.type != "tensor(float)" or len(value.shape) != rank or (features and value.shape[1] != features):
        wanted = f"(n, {features})" if features else "(n,)"
        raise ModelError(f"{source}: {what} is {value.type} {value.shape}, the card says float {wanted}")
