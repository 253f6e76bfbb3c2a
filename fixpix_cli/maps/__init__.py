"""Floor 2. Defect maps on disk: masks and truths, camera maps, and the store that keeps them."""

from .fitsmap import CameraMap, MaskFile, dq_extensions, for_frame, read_map, read_mask, write_mask
from .sparse import is_listed
from .store import Store, add, key_of

__all__ = [
    "CameraMap",
    "MaskFile",
    "Store",
    "add",
    "dq_extensions",
    "for_frame",
    "is_listed",
    "key_of",
    "read_map",
    "read_mask",
    "write_mask",
]
