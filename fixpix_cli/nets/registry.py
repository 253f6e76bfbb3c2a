"""Floor 2. The models that fixpix ships, and a user's own.

Shipped models lie in the package's own ``models`` folder (a wheel) or in the
repository's (an editable install), next to ``SHA256SUMS``. Their bytes are
always compared with it: nothing switches that off. A user's own ``.onnx`` is
taken as it is and its hash reported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import FixpixError, ModelError
from .cards import Card
from .sessions import Session, open_session

#: name -> file of the shipped models
SHIPPED: dict[str, str] = {
    "mlp": "mlp-9x9.onnx",
    "spot": "spot.onnx",
    "verdict": "verdict.onnx",
    "unet": "unet.onnx",
    "unet-dense": "unet-dense.onnx",
    "unet-crowds": "unet-crowds.onnx",
    "doubt": "doubt.onnx",
    "cnn": "cnn.onnx",
    "vit": "vit.onnx",
}
SUMS = "SHA256SUMS"

#: name -> shape of a net's inputs; a text stands for any size
Shapes = dict[str, tuple[int | str, ...]]


@dataclass(frozen=True)
class Blob:
    """A model's bytes, their hash, and whether it is a shipped one that was compared with SHA256SUMS."""

    name: str
    path: Path
    data: bytes
    sha256: str
    shipped: bool


@dataclass(frozen=True)
class Listed:
    """One line of ``fixpix models list``; `bytes` is the size of the file."""

    name: str
    task: str
    family: str
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shown:
    """One model with its card."""

    name: str
    path: Path
    sha256: str
    shipped: bool
    card: Card


@dataclass(frozen=True)
class Check:
    """Whether a shipped model is what it should be; `error` is empty where it is."""

    name: str
    ok: bool
    sha256: str
    error: str


def folder() -> Path:
    """The folder of the shipped models.

    Raises
    ------
    ModelError
        There is none: a damaged installation.
    """
    package = Path(__file__).resolve().parent.parent
    for found in (package / "models", package.parent / "models"):
        if (found / SUMS).is_file():
            return found
    raise ModelError(f"{package / 'models'}: the shipped models are missing; install fixpix again")


def read(name: str) -> Blob:
    """The bytes of a shipped model (`name`), verified, or of a user's own file (a path).

    Raises
    ------
    ModelError
        Unknown name, unreadable file, or a shipped model that differs from SHA256SUMS.
    """
    if name in SHIPPED:
        return verified(folder() / SHIPPED[name], name)
    path = Path(name)
    if path.suffix.lower() != ".onnx":
        raise ModelError(f"{name}: no such model; shipped are {', '.join(SHIPPED)}, or give an .onnx file")
    data = _bytes(path)
    return Blob(path.stem, path, data, hashlib.sha256(data).hexdigest(), False)


def verified(path: Path, name: str | None = None) -> Blob:
    """The bytes of a file that the SHA256SUMS beside it vouches for.

    Raises
    ------
    ModelError
        It is not listed there, or not what it should be.
    """
    wanted = sums(path.parent).get(path.name)
    if wanted is None:
        raise ModelError(f"{path}: not listed in {SUMS}; install fixpix again")
    data = _bytes(path)
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise ModelError(f"{path}: SHA-256 {found[:12]} is not the {wanted[:12]} of {SUMS}; install again")
    return Blob(name or path.stem, path, data, found, True)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error


def sums(where: Path) -> dict[str, str]:
    """File name -> SHA-256 from the folder's SHA256SUMS."""
    found = {}
    for line in _bytes(where / SUMS).decode("utf-8", "replace").splitlines():
        if line.strip():
            digest, _, name = line.strip().partition(" ")
            found[name.strip().lstrip("*")] = digest.lower()
    return found


def open_model(
    name: str | Path,
    task: str,
    family: str,
    contracts: Mapping[str, Shapes | Callable[[Card, str], Shapes]],
    threads: int = 1,
) -> Session:
    """A shipped model by name (verified), or a user's own .onnx by path, that a serving module can feed.

    Parameters
    ----------
    name : str or Path
    task, family : str
        What the serving module is for; see `cards.Card`.
    contracts : dict
        The normalisations that it can give and, for each, the inputs, name -> shape; or a function of the card
        and the file's name that gives them, where they depend on what the card says.
    threads : int

    Raises
    ------
    ModelError
        The model cannot be read, is for something else, or wants other inputs.
    """
    blob = read(str(name))
    session = open_session(blob.data, str(blob.path), blob.sha256, threads)
    session.card.require(str(blob.path), task, family, contracts)
    inputs = contracts[session.card.normalisation]
    wanted = inputs(session.card, str(blob.path)) if callable(inputs) else inputs
    if {k: tuple(v) for k, v in session.card.inputs.items()} != wanted:
        raise ModelError(f"{blob.path}: its inputs are {session.card.inputs}, not {wanted}")
    return session


def list_models() -> list[Listed]:
    """The shipped models."""
    found = []
    for name in SHIPPED:
        blob = read(name)
        card = show(name).card
        found.append(Listed(name, card.task, card.family, blob.path.name, len(blob.data), blob.sha256))
    return found


def show(name: str) -> Shown:
    """A shipped model or a user's own file, with its card."""
    blob = read(name)
    card = open_session(blob.data, str(blob.path), blob.sha256).card
    return Shown(blob.name, blob.path, blob.sha256, blob.shipped, card)


def verify() -> list[Check]:
    """Hash, card and inputs of every shipped model."""
    checks = []
    for name in SHIPPED:
        try:
            checks.append(Check(name, True, show(name).sha256, ""))
        except FixpixError as error:
            checks.append(Check(name, False, "", str(error)))
    return checks
