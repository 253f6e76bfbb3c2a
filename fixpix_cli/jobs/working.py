"""Where the frames of a run are done: in this machine's processes, or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import workers
from .outcomes import Common, Outcome

if TYPE_CHECKING:
    from ..evidence import Evidence

#: Bytes that the leading process and the one that workers come from take (34 and 30 MB with 24 MP frames).
LEADERS = 80_000_000

Items = Sequence[tuple[Any, ...]]
Lost = Callable[[tuple[Any, ...], str], Any]
Begun = Callable[[int], None]


class Part(Protocol):
    """Evidence of one frame, here or on a cluster: the digests that it counted."""

    @property
    def frames(self) -> Any: ...


class Place(Protocol):
    """Where frames are done; `sums`: whether `together` gives one sum."""

    @property
    def sums(self) -> bool: ...

    def each(self, function: Callable[..., Any], items: Items, lost: Lost) -> Iterator[Any]:
        """``function(*item)`` for every item, in their order; `lost` makes the result of one that did not come back."""

    def evidence(self, function: Callable[..., Any], items: Items, lost: Lost) -> Iterator[tuple[Outcome, Any, Any]]:
        """The same for a function that gives (outcome, evidence or None, what else); the evidence may stay there."""

    def compared(self, known: Evidence, parts: list[Any]) -> list[tuple[tuple[str, ...], Any]]:
        """Parts as they shall count, each with notes, by what is known of the camera and by each other."""

    def together(self, parts: list[Any]) -> list[Evidence]:
        """Disjoint parts, summed where they are; several where that is to be done here."""

    def fetched(self, part: Any) -> Evidence:
        """One part."""


@dataclass(frozen=True)
class Here:
    """This machine's processes."""

    common: Common
    note: str = ""
    sums: bool = False

    def each(self, function: Callable[..., Any], items: Items, lost: Lost) -> Iterator[Any]:
        common = self.common
        jobs = common.budget.crew(common.jobs, Paths(items))
        running = Running(common.device, self.note)
        yield from workers.run(partial(settled, function, running), items, jobs, common.budget, lost)

    evidence = each

    def compared(self, known: Evidence, parts: list[Evidence]) -> list[tuple[tuple[str, ...], Evidence]]:
        from ..checking import check

        return [(found.notes, found.evidence) for found in check(known, parts)]

    def together(self, parts: list[Evidence]) -> list[Evidence]:
        return parts

    def fetched(self, part: Evidence) -> Evidence:
        return part


class Paths(Sequence[Any]):
    """The paths of some items."""

    def __init__(self, items: Items) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._items[index]
        return [item[0] for item in chosen] if isinstance(index, slice) else chosen[0]


@contextmanager
def place_of(
    common: Common,
    inputs: Sequence[Path],
    writes: Sequence[Path] = (),
    reads: Sequence[Path] = (),
    reserve: int = 0,
    begun: Begun | None = None,
) -> Iterator[Place]:
    """Where a run's frames are done.

    Parameters
    ----------
    common : Common
    inputs : paths of the frames
    writes, reads : folders that workers write, and files or folders that they read beside the frames
    reserve : int
        Bytes that the leader needs for its own work on the frames.
    begun : callable, optional
        Is told how many frames there are.

    Raises
    ------
    UnusableError
        The device, the cluster or the storage that it should share cannot be used.
    """
    if begun is not None:
        begun(len(inputs))
    common = replace(common, budget=replace(common.budget, reserve=LEADERS + reserve))
    if common.cluster is not None:
        from .. import cluster

        with cluster.connected(common, list(inputs), list(writes), list(reads)) as there:
            yield there
    else:
        device, why = _tried(common)
        if why:
            from ..errors import DeviceError

            raise DeviceError(why)
        yield Here(replace(common, device=device), note_of(common.device, device))


@dataclass(frozen=True)
class Running:
    """How a worker runs: the device of its nets, what outcomes say of it, where relative paths start."""

    device: str = "cpu"
    note: str = ""
    folder: Path | None = None


def settled(function: Callable[..., Any], running: Running, *item: Any) -> Any:
    """Call ``function(*item)`` in a worker that runs so; the outcome says where nets ran, if not on the CPU."""
    from ..nets import sessions

    if running.folder is not None and Path.cwd() != running.folder:
        os.chdir(running.folder)
    sessions.run_on(running.device)
    result = function(*item)
    return _told(result, running.note) if running.note and sessions.ran() else result


def note_of(wanted: str, device: str) -> str:
    """What outcomes say of the device that nets ran on; nothing of the CPU where nothing else was asked for."""
    if device != "cpu":
        return f"nets ran on {device}"
    return "" if wanted == "cpu" else f"--device {wanted}: no other device is usable here, nets ran on the CPU"


def _told(result: Any, note: str) -> Any:
    """A result with a note in its outcome, if it has one."""
    if isinstance(result, Outcome):
        return replace(result, notes=(*result.notes, note))
    if isinstance(result, tuple) and result and isinstance(result[0], Outcome):
        return (_told(result[0], note), *result[1:])
    return result


def _tried(common: Common) -> tuple[str, str]:
    """The device of a run, and why it cannot be used. A worker tries it, so that the leader never loads its driver."""
    if common.device == "cpu":
        return "cpu", ""
    from ..nets import sessions

    if common.device not in (*sessions.DEVICES, sessions.AUTO):
        sessions.choose(common.device, ())
    items = [(Path(), common.device)]
    return next(workers.run(usable, items, 1, common.budget, lambda item, why: (item[1], f"--device {item[1]}: {why}")))


def usable(_: Path, wanted: str) -> tuple[str, str]:
    """The device that `wanted` stands for, and why it cannot be used ("": it can).

    "auto" takes the first that opens a model; that is at least the CPU.
    """
    from ..errors import FixpixError
    from ..nets import registry, sessions

    why = ""
    for name in sessions.DEVICES if wanted == sessions.AUTO else (wanted,):
        try:
            device = sessions.choose(name, sessions.offered())
            sessions.run_on(device)
            registry.show("mlp")
        except FixpixError as error:
            why = str(error)
        else:
            return device, ""
    return wanted, why


def devices() -> list[tuple[str, str]]:
    """The devices that nets can run on, each with why it cannot be used ("": it can)."""
    from ..nets import sessions

    items = [(Path(), name) for name in sessions.DEVICES]
    budget = workers.Budget()
    return list(workers.run(usable, items, 1, budget, lambda item, why: (item[1], f"--device {item[1]}: {why}")))
