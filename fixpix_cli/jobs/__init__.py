"""Floor 3. One generator per verb: frames in, outcomes out.

A job plans (which file goes where), does the frames one by one or in worker
processes, and yields an `Outcome` for each. A frame that fails becomes an
outcome with its error; what makes the whole run impossible raises.

Nothing here prints; the faces do. A verb's module is imported when it is first asked for: `correct` need not wait
for what `evaluate` needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibrating import Calibrated, calibrate
    from .correcting import correct
    from .detecting import detect
    from .evaluating import Scores, evaluate
    from .frames import tallies_of
    from .injecting import inject_frames
    from .inputs import Source, find, plan
    from .outcomes import DONE, FAILED, PLANNED, SKIPPED, Common, Outcome
    from .repairing import Repair

#: public name -> module
_HOMES = {
    **dict.fromkeys(("Calibrated", "calibrate"), "calibrating"),
    "correct": "correcting",
    "detect": "detecting",
    **dict.fromkeys(("Scores", "evaluate"), "evaluating"),
    "tallies_of": "frames",
    "inject_frames": "injecting",
    **dict.fromkeys(("Source", "find", "plan"), "inputs"),
    **dict.fromkeys(("DONE", "FAILED", "PLANNED", "SKIPPED", "Common", "Outcome"), "outcomes"),
    "Repair": "repairing",
}

__all__ = [
    "DONE",
    "FAILED",
    "PLANNED",
    "SKIPPED",
    "Calibrated",
    "Common",
    "Outcome",
    "Repair",
    "Scores",
    "Source",
    "calibrate",
    "correct",
    "detect",
    "evaluate",
    "find",
    "inject_frames",
    "plan",
    "tallies_of",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
