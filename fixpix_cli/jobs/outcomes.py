"""What became of each frame, and the settings that all verbs share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import machine, workers
from ..errors import FixpixError
from ..mosaic import Assume

DONE, SKIPPED, FAILED, PLANNED = "done", "skipped", "failed", "planned"


@dataclass(frozen=True)
class Outcome:
    """What became of one frame.

    Parameters
    ----------
    path, output : path of the frame, and of what was written (None: nothing)
    status : done, skipped, failed or planned
    error : one line, or None
    defects : pixels repaired or flagged
    rate : defects / pixels of the frame
    method : how, in one word, with what was assumed behind it
    map : the camera map that was used or fed
    seconds : time spent on the frame
    notes : warnings for the user
    metrics : evaluate's figures
    """

    path: Path
    output: Path | None = None
    status: str = DONE
    error: str | None = None
    defects: int = 0
    rate: float = 0.0
    method: str | None = None
    map: Path | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0


@dataclass(frozen=True)
class Common:
    """Settings that all verbs share.

    Parameters
    ----------
    jobs : int
        Worker processes; 0: as the machine has.
    threads : int
        Of one frame, where there are fewer frames than workers.
    device : a name of `nets.sessions.DEVICES`, or auto
    cluster : address of a Dask scheduler, or None for this machine
    """

    assume: Assume = field(default_factory=Assume)
    threshold: float | None = None
    max_false: float | None = None
    jobs: int = 1
    dry_run: bool = False
    budget: workers.Budget = field(default_factory=workers.Budget)
    precision: float | None = None
    threads: int = 1
    device: str = "cpu"
    cluster: str | None = None

    def shared(self, frames: int) -> Common:
        """The same for so many frames: workers that would have none lend theirs as threads."""
        workers = 1 if self.cluster is not None else self.jobs or machine.available()
        return replace(self, threads=max(1, workers // max(1, frames)))


def attempt(path: Path, work: Callable[[], Outcome]) -> Outcome:
    """Run one frame's work; an error of ours or of the machine becomes its outcome."""
    start = time.perf_counter()
    try:
        outcome = work()
    except FixpixError as error:
        outcome = Outcome(path, status=FAILED, error=str(error), exit_code=error.exit_code)
    except MemoryError:
        raise  # the worker's leader knows the limit, and whether there is more to try with
    except Exception as error:  # the one broad net: a fault of ours may not stop a batch either
        error_text = f"{path}: internal error, please report it ({type(error).__name__}: {error})"
        outcome = Outcome(path, status=FAILED, error=error_text, exit_code=1)
    return replace(outcome, seconds=round(time.perf_counter() - start, 4))


def lost(item: tuple[Any, ...], why: str) -> Outcome:
    path = item[0]
    return Outcome(path, status=FAILED, error=f"{path}: {why}", exit_code=1)
