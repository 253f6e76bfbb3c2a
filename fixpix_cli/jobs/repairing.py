"""The corrector of a method, and the repair of one plane."""

from __future__ import annotations

import importlib
import zlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import strategy
from ..errors import FrameError, RefusedError
from ..mosaic import Bool, Edit, Mosaic
from ..normalise import windows
from ..repair import CLASSICAL, Corrector, edit, in_tiles, noise_fill, otherwise, places


@dataclass(frozen=True)
class Repair:
    """How `correct` works.

    Parameters
    ----------
    auto : bool
        Detect in the frame itself, too.
    maps : paths of map files, masks, truths, or folders of them
    out : Path or None
        None: in place.
    method : one of `strategy.METHODS`
    fill : interpolate, noise or nan
    dq : bool
        Put the repaired pixels' flags into the output, where it is FITS.
    dng : repair, or opcode: list the bad pixels in the DNG's OpcodeList1 and leave them as they are
    """

    auto: bool = False
    maps: tuple[Path, ...] = ()
    out: Path | None = Path("repaired")
    method: str = "auto"
    fill: str = "interpolate"
    overwrite: bool = False
    resume: bool = False
    provenance: bool = False
    dq: bool = False
    dng: str = "repair"


#: method -> (module, name) of what opens its net
NETS = {
    "mlp": ("nets.correctors", "shipped_mlp"),
    "vit": ("nets.reconstructors", "shipped_vit"),
    "vit-blind": ("nets.reconstructors", "shipped_blind"),
    "cnn": ("nets.holes", "shipped_cnn"),
}


def net_of(method: str) -> Any:
    """The shipped net of a method, opened when first asked for."""
    module, name = NETS[method]
    return getattr(importlib.import_module(f"..{module}", __package__), name)()


def repair_plane(mosaic: Mosaic, bad: Bool, how: Repair, path: Path, threads: int = 1) -> tuple[str, Edit]:
    """Repair one plane; the method's name and what changes."""
    if how.fill == "nan":
        if mosaic.is_integer:
            raise RefusedError(f"{path}: --fill nan needs floating-point samples, these are {mosaic.dtype}")
        rows, cols = places(bad)
        return "nan", Edit.of(mosaic, rows, cols, np.full(len(rows), np.nan, mosaic.dtype))
    name, corrector = _corrector(mosaic, bad, how.method, threads)
    if how.fill == "noise":
        seed = zlib.crc32(path.name.encode())
        name, corrector = f"{name}, noise", noise_fill(corrector, seed)
    try:
        return name, edit(mosaic, bad, corrector)
    except FrameError as error:
        raise type(error)(f"{path}: {error}") from error


def _corrector(mosaic: Mosaic, bad: Bool, method: str, threads: int) -> tuple[str, Corrector]:
    """The corrector of a method, and the method's name as the report gives it."""
    count = int(np.count_nonzero(bad))
    few = count <= min(strategy.WHOLE, windows.FEW * bad.size)
    if method == "auto":
        mlp, rate = net_of("mlp"), count / bad.size
        vit = rate >= strategy.VIT_FROM and net_of("vit").supports(mosaic.cfa)
        method = strategy.choose(rate, mlp.default_up_to if mlp.supports(mosaic.cfa) else None, vit)
    if method in CLASSICAL:
        return method, CLASSICAL[method]
    if method == "prediction":
        if few:
            return method, partial(windows.predicted, threads=threads)
        return method, in_tiles(windows.predicted, strategy.TILE, strategy.HALO, threads)
    net = net_of(method)
    if not net.supports(mosaic.cfa):
        return f"least-squares (the {method} does not know {mosaic.cfa.name})", CLASSICAL["least-squares"]
    name = method
    if method == "mlp" and few:
        return name, replace(net, threads=threads)
    if method == "cnn":
        name, net = "cnn, mlp elsewhere", otherwise(net, net_of("mlp"))
    return name, in_tiles(net, strategy.TILE, strategy.HALO, threads)
