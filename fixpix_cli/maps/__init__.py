"""Floor 2. Defect maps on disk: masks and truths, camera maps, and the store that keeps them.

A module is imported when one of its names is first asked for: a repair with a mask needs few of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .trend import differences_of, months, spread, trend  # at once: the module of this name would hide the function

if TYPE_CHECKING:
    from .fitsmap import CameraMap, MaskFile, dq_extensions, for_frame, previous_of, read_map, read_mask, write_mask
    from .keeping import merge, prune, recover, remove
    from .parts import month_of
    from .sparse import is_listed
    from .store import Store, add, differences, key_of

_NAMES = {
    "fitsmap": "CameraMap MaskFile dq_extensions for_frame previous_of read_map read_mask write_mask",
    "keeping": "merge prune recover remove",
    "parts": "month_of",
    "sparse": "is_listed",
    "store": "Store add differences key_of",
}
#: public name -> module
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "CameraMap",
    "MaskFile",
    "Store",
    "add",
    "differences",
    "differences_of",
    "dq_extensions",
    "for_frame",
    "is_listed",
    "key_of",
    "merge",
    "month_of",
    "months",
    "previous_of",
    "prune",
    "read_map",
    "read_mask",
    "recover",
    "remove",
    "spread",
    "trend",
    "write_mask",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
