"""fixpix: find and repair bad pixels in raw sensor images, and change nothing else.

The public Python API. Names are loaded on first use, so that importing the
package (as the command line does) costs nothing.

load, save
    A file as a `Frame`, and back (see `fixpix_cli.files`).
detect
    Probabilities of bad pixels in a `Mosaic` (`fixpix_cli.classical`).
repair_mosaic, least_squares, gradient, median
    Replace bad pixels by a corrector's answers (`fixpix_cli.repair`).
shipped_mlp, MlpCorrector
    The neural corrector: `shipped_mlp()` is one for `repair_mosaic`, and `shipped_mlp().answers(mosaic, bad)`
    gives values and their sigmas in DN (`fixpix_cli.nets.correctors`).
Mosaic, Frame, Cfa, Assume, Edit, DefectMap, Evidence, Injection, inject_mosaic
    The nouns, and damage with known truth.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: public name -> (module, name there). A function may not be called like a module of the package.
_HOMES = {
    "load": ("files", "load"),
    "save": ("files", "save"),
    "detect": ("nets.detectors", "detect"),
    "repair_mosaic": ("repair", "repair"),
    "least_squares": ("repair", "least_squares"),
    "gradient": ("repair", "gradient"),
    "median": ("repair", "median"),
    "shipped_mlp": ("nets.correctors", "shipped_mlp"),
    "MlpCorrector": ("nets.correctors", "MlpCorrector"),
    "inject_mosaic": ("inject", "inject"),
    "Injection": ("inject", "Injection"),
    "Mosaic": ("mosaic", "Mosaic"),
    "Frame": ("mosaic", "Frame"),
    "Assume": ("mosaic", "Assume"),
    "Edit": ("mosaic", "Edit"),
    "Cfa": ("cfa", "Cfa"),
    "DefectMap": ("defects", "DefectMap"),
    "Evidence": ("evidence", "Evidence"),
}

if TYPE_CHECKING:
    from .cfa import Cfa
    from .defects import DefectMap
    from .evidence import Evidence
    from .files import load, save
    from .inject import Injection
    from .inject import inject as inject_mosaic
    from .mosaic import Assume, Edit, Frame, Mosaic
    from .nets.correctors import MlpCorrector, shipped_mlp
    from .nets.detectors import detect
    from .repair import gradient, least_squares, median
    from .repair import repair as repair_mosaic

__all__ = [
    "Assume",
    "Cfa",
    "DefectMap",
    "Edit",
    "Evidence",
    "Frame",
    "Injection",
    "MlpCorrector",
    "Mosaic",
    "detect",
    "gradient",
    "inject_mosaic",
    "least_squares",
    "load",
    "median",
    "repair_mosaic",
    "save",
    "shipped_mlp",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, inner = _HOMES[name]
        return getattr(importlib.import_module(f".{module}", __name__), inner)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
