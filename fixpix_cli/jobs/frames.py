"""Reading a frame, and what it shows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import files
from ..errors import FrameError
from ..evidence import DEFAULT_THRESHOLD, Tally
from ..mosaic import Conditions, Frame, Mosaic
from .outcomes import Common

if TYPE_CHECKING:
    from ..detection import Detection


def load(path: Path, common: Common) -> Frame:
    frame = files.load(path, common.assume)
    _check_levels(frame)
    return frame


def _check_levels(frame: Frame) -> None:
    for mosaic in frame.moment(0):
        if not mosaic.white > float(np.max(mosaic.black)):
            raise FrameError(
                f"{frame.source}: black level {np.max(mosaic.black):g} is not below white level {mosaic.white:g}; "
                "give --black and --white"
            )


def assumed(frame: Frame) -> tuple[str, ...]:
    return (*frame.notes, f"assumed {', '.join(frame.assumed)}") if frame.assumed else frame.notes


def moment_name(frame: Frame, number: int) -> str:
    """The name of a file, or of one moment of a series."""
    return frame.source.name if frame.moments == 1 else f"{frame.source.name}[{number}]"


def per_key(frame: Frame) -> bool:
    """Whether a mask gets one extension per plane; the planes of a series are the first axis of one."""
    return frame.container == "fits" and frame.moments == 1


def tallies_of(mosaics: Iterable[Mosaic], conditions: Conditions, threads: int = 1) -> list[Tally]:
    """What each of some planes shows."""
    return told_by(mosaics, conditions, threads)[0]


def told_by(
    mosaics: Iterable[Mosaic], conditions: Conditions, threads: int = 1, thorough: bool = False
) -> tuple[list[Tally], str]:
    """What each of some planes shows, and by what method; `thorough` as in `nets.detectors.detect`."""
    tallies, methods = [], []
    for mosaic in mosaics:
        found = detected(mosaic, conditions, threads, thorough)
        tallies.append(Tally.of(mosaic, found))
        methods.append(found.method)
    return tallies, methods_of(methods)


def detected(mosaic: Mosaic, conditions: Conditions, threads: int = 1, thorough: bool = False) -> Detection:
    from ..nets.detectors import detect

    mosaic = mosaic.with_samples(mosaic.samples)  # decoded once: its active area is then a part of them
    return detect(mosaic, conditions.kind, conditions.exposure, threads=threads, thorough=thorough)


def methods_of(of_planes: Iterable[str]) -> str:
    """The methods of a frame's planes, each once."""
    return ", ".join(dict.fromkeys(of_planes))


def threshold_of(common: Common) -> float:
    return DEFAULT_THRESHOLD if common.threshold is None else common.threshold
