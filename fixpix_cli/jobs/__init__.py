"""Floor 3. One generator per verb: frames in, outcomes out.

A job plans (which file goes where), does the frames one by one or in worker
processes, and yields an `Outcome` for each. A frame that fails becomes an
outcome with its error; what makes the whole run impossible raises.

Nothing here prints; the faces do.
"""

from .calibrating import Calibrated, calibrate
from .correcting import correct
from .detecting import detect
from .evaluating import Scores, evaluate
from .frames import tallies_of
from .injecting import inject_frames
from .inputs import Source, find, plan
from .outcomes import DONE, FAILED, PLANNED, SKIPPED, Common, Outcome
from .repairing import Repair

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
