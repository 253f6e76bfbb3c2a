"""Floor 2. Small nets without onnxruntime: ONNX files of fully connected layers, read and run with NumPy.

onnxruntime takes longer to load than the repair of a frame takes. A net of matrix products needs nothing of it; what
is not made of `_OPERATORS` alone is onnxruntime's. The file is read by the wire format of protocol buffers and the
field numbers of onnx.proto (ONNX 1.16, IR version 10); only what such a net holds is looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..mosaic import Array, Float32

#: ONNX number of a tensor's type -> dtype; the number of float.
_TYPES = {1: "<f4", 7: "<i8"}
_FLOAT = 1
#: Rows of every matrix product.
_ROWS = 512


@dataclass(frozen=True)
class Value:
    """Name, shape (a text stands for any size) and type of an input or output, as onnxruntime gives them."""

    name: str
    shape: list[int | str]
    type: str


@dataclass(frozen=True, eq=False)
class _Node:
    """One step: its operator, the names that it takes and gives, its attributes."""

    operator: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]


@dataclass(frozen=True, eq=False)
class PlainNet:
    """A net that NumPy runs, row by row of its inputs; it may be asked from several threads.

    Parameters
    ----------
    nodes : in the order in which they run
    weights : dict of name to array
    inputs, outputs : what it takes and gives
    metadata : the texts that the file carries
    """

    nodes: list[_Node]
    weights: dict[str, Array]
    inputs: list[Value]
    outputs: list[Value]
    metadata: dict[str, str]

    def run(self, names: Sequence[str], inputs: Mapping[str, Float32]) -> list[Float32]:
        """The outputs of these names; raises ValueError or KeyError where the inputs do not fit.

        Always `_ROWS` rows at a time, the last ones filled up with zeros: a matrix product rounds otherwise where its
        sizes are other ones, and then the answer for one row would depend on how many others are asked for with it.
        """
        (count,) = {len(values) for values in inputs.values()}
        found: list[list[Float32]] = [[] for _ in names]
        for start in range(0, max(1, count), _ROWS):
            known = dict(self.weights)
            for name, values in inputs.items():
                block = values[start : start + _ROWS]
                rest = np.zeros((_ROWS - len(block), *values.shape[1:]), np.float32)
                known[name] = np.concatenate([block, rest]) if len(rest) else block
            for node in self.nodes:
                known[node.outputs[0]] = _OPERATORS[node.operator](node, *(known[name] for name in node.inputs))
            for name, parts in zip(names, found, strict=True):
                parts.append(np.asarray(known[name], np.float32)[: count - start])
        return [np.concatenate(parts) for parts in found]


def parse(data: bytes) -> PlainNet | None:
    """The net of an ONNX file; None where it is not such a net, or no ONNX file at all."""
    try:
        return _model(data)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error):
        return None


def _gemm(node: _Node, a: Array, b: Array, c: Array) -> Array:
    product = a @ (b.T if node.attributes.get("transB") else b)
    product += c
    return product


def _slice(node: _Node, values: Array, starts: Array, ends: Array, axes: Array) -> Array:
    if values.ndim != 1 or (len(starts), len(ends), axes.tolist()) != (1, 1, [0]):
        raise ValueError("a slice of more than one axis")
    return values[int(starts[0]) : int(ends[0])]


_OPERATORS: dict[str, Callable[..., Array]] = {
    "Gemm": _gemm,
    "Relu": lambda _, x: np.maximum(x, np.float32(0)),
    "Cast": lambda _, x: x,
    "Clip": lambda _, x, low, high: np.clip(x, low, high),
    "Exp": lambda _, x: np.exp(x),
    "Shape": lambda _, x: np.array(x.shape, np.int64),
    "Slice": _slice,
    "Concat": lambda node, *parts: np.concatenate(parts, axis=node.attributes["axis"]),
    "Reshape": lambda _, x, shape: x.reshape([n or x.shape[k] for k, n in enumerate(shape.tolist())]),
    "Constant": lambda node: node.attributes["value"],
}
#: What their attributes may say; another value is another operation.
_ALLOWED: dict[str, dict[str, tuple[Any, ...]]] = {
    "Gemm": {"alpha": (1.0,), "beta": (1.0,), "transA": (0,), "transB": (0, 1)},
    "Cast": {"to": (_FLOAT,)},
    "Reshape": {"allowzero": (0,)},
}


def _model(data: bytes) -> PlainNet | None:
    model = _fields(data)
    graph = _fields(model[7][0])
    nodes = [_node(part) for part in graph[1]]
    for node in nodes:
        allowed = _ALLOWED.get(node.operator)
        if node.operator not in _OPERATORS or len(node.outputs) != 1 or "" in node.inputs:
            return None
        if allowed is not None and any(value not in allowed.get(k, ()) for k, value in node.attributes.items()):
            return None
    metadata = {}
    for entry in model.get(14, []):
        pair = _fields(entry)
        metadata[_text(pair[1][0])] = _text(pair[2][0])
    weights = dict(_tensor(part) for part in graph.get(5, []))
    inputs, outputs = ([_value(part) for part in graph[number]] for number in (11, 12))
    inputs = [value for value in inputs if value.name not in weights]
    if not all(value.shape and isinstance(value.shape[0], str) for value in inputs + outputs):
        return None
    return PlainNet(nodes, weights, inputs, outputs, metadata)


def _node(data: bytes) -> _Node:
    fields = _fields(data)
    attributes = {}
    for part in fields.get(5, []):
        of = _fields(part)
        kind = of[20][0]
        if kind not in (1, 2, 4):  # float, int, tensor
            raise ValueError(f"an attribute of type {kind}")
        value = of[{1: 2, 2: 3, 4: 5}[kind]][0]
        attributes[_text(of[1][0])] = _tensor(value)[1] if kind == 4 else value
    inputs, outputs = ([_text(name) for name in fields.get(number, [])] for number in (1, 2))
    return _Node(_text(fields[4][0]), inputs, outputs, attributes)


def _tensor(data: bytes) -> tuple[str, Array]:
    """Name and values of a tensor whose values lie in it as they are."""
    fields = _fields(data)
    shape: list[int] = []
    for dim in fields.get(1, []):
        shape += _packed(dim) if isinstance(dim, bytes) else [dim]
    values = np.frombuffer(fields[9][0], _TYPES[fields[2][0]]).reshape(shape)
    return _text(fields.get(8, [b""])[0]), values.astype(values.dtype.newbyteorder("="), copy=False)


def _value(data: bytes) -> Value:
    fields = _fields(data)
    tensor = _fields(_fields(fields[2][0])[1][0])
    shape: list[int | str] = []
    for part in _fields(tensor[2][0]).get(1, []):
        dim = _fields(part)
        shape.append(dim[1][0] if 1 in dim else _text(dim[2][0]))
    return Value(_text(fields[1][0]), shape, "tensor(float)" if tensor[1][0] == _FLOAT else "another type")


def _text(data: bytes) -> str:
    return data.decode("utf-8")


def _packed(data: bytes) -> list[int]:
    numbers, place = [], 0
    while place < len(data):
        number, place = _varint(data, place)
        numbers.append(number)
    return numbers


def _fields(data: bytes) -> dict[int, list[Any]]:
    """Field number -> its values in a message: int, float, or bytes."""
    found: dict[int, list[Any]] = {}
    for number, value in _walk(data):
        found.setdefault(number, []).append(value)
    return found


def _walk(data: bytes) -> Iterator[tuple[int, Any]]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        value: Any
        if kind == 0:
            value, place = _varint(data, place)
            value -= (value >> 63) << 64  # negative numbers have 64 bits
        elif kind == 2:
            size, place = _varint(data, place)
            value, place = data[place : place + size], place + size
            if len(value) != size:
                raise ValueError("a field that is cut off")
        elif kind == 5:
            (value,), place = struct.unpack_from("<f", data, place), place + 4
        elif kind == 1:
            (value,), place = struct.unpack_from("<d", data, place), place + 8
        else:
            raise ValueError(f"a field of kind {kind}")
        yield number, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits per byte, the last without the highest bit; and the place behind it."""
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
