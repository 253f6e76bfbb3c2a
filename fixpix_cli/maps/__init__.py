"""Floor 2. Defect maps on disk: masks and truths, camera maps, and the store that keeps them."""

from .fitsmap import CameraMap, MaskFile, dq_extensions, for_frame, previous_of, read_map, read_mask, write_mask
from .keeping import merge, prune, recover, remove
from .parts import month_of
from .sparse import is_listed
from .store import Store, add, differences, key_of
from .trend import differences_of, months, spread, trend

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
