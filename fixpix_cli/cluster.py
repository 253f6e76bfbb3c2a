"""Floor 3. More than one machine: frames as tasks of a Dask cluster. The keeper of dask and distributed.

The cluster's workers share the storage with the client; that, their versions
of fixpix and of what it computes with, their models and their device are
checked before any frame, and again by every worker that comes later. Each
frame runs in a process of its own beside its Dask worker, within the limits of
`workers`: a Dask worker that shall do several frames at once gives each an
equal part of its memory.

Results come in the order of the frames, as in a local run, and are the same to
the last bit: a frame's result depends on nothing but the frame and the
settings. So a frame whose worker died is simply done again (by Dask's
scheduler); one that kills worker after worker fails by its name. Evidence stays
on the workers that made it and is summed there, as a tree; integers make the
sum exact in any order. The client writes it into the map, under its lock.

Only a window of frames is in the scheduler's hands at any time, so that neither
it nor the client holds more for more frames.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import __version__, safe, workers
from .errors import ClusterError, DeviceError, FixpixError, OutputFolderError, UsageError
from .evidence import Evidence
from .jobs.outcomes import Common, Outcome
from .jobs.working import Items, Lost, Running, note_of, settled, usable

#: Seconds to wait for the scheduler, and for a worker when none is left.
_PATIENCE, _WORKERLESS = 10, 60
#: What --cluster may be: local:N, a scheduler file, or an address with a port.
_ADDRESS = re.compile(r"local:[1-9]\d*|.+\.json|(?!local:)((\w+://)?[^/]+:\d+|\w+://.+)")
#: The loggers of distributed that have a level of their own. That of the client warns of results that died with their
#: worker, which are made again.
_LOGGERS = ("distributed", "distributed.client", "distributed.gc")
#: Frames in the scheduler's hands for each frame that the workers do at once.
_AHEAD = 4
#: Parts that one task of the tree sums.
_FAN = 8
#: Inputs that workers must see before the run begins: at most so many, one of each folder.
_PROBED = 64


@dataclass(frozen=True)
class Stamp:
    """What must be the same on the client and on every worker, or results could differ: name -> version or hash."""

    facts: dict[str, str]

    @classmethod
    def of_this_process(cls) -> Stamp:
        import numpy as np

        from .nets import registry, sessions

        models = {f"model {name}": registry.read(name).sha256 for name in registry.SHIPPED}
        return cls({"fixpix": __version__, "numpy": np.__version__, "onnxruntime": sessions.version(), **models})

    def difference(self, other: Stamp) -> str:
        """What `other` has of another kind than this, in words; "" where nothing."""
        parts = [
            f"{name} {other.facts.get(name, 'missing'):.12} where this is {value:.12}"
            for name, value in self.facts.items()
            if other.facts.get(name) != value
        ]
        return ", ".join(parts)


@dataclass(frozen=True)
class Remote:
    """Evidence that lies on the cluster, with a frame's outcome and facts around it."""

    future: Any
    frames: frozenset[str]


@dataclass
class Cluster:
    """A `jobs.working.Place` on a Dask cluster."""

    client: Any
    common: Common
    running: Running
    stamp: Stamp
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    sums: bool = True
    _count: int = 0

    @property
    def slots(self) -> int:
        """Frames that the workers do at once."""
        return max(1, sum(self.client.nthreads().values()))

    def each(self, function: Callable[..., Any], items: Items, lost: Lost) -> Iterator[Any]:
        for future, item in self._submitted(function, items):
            answer = self._answer(future)
            yield lost(item, answer.lost) if answer.lost else answer.result

    def evidence(self, function: Callable[..., Any], items: Items, lost: Lost) -> Iterator[tuple[Outcome, Any, Any]]:
        for future, item in self._submitted(function, items):
            answer = self._answer(self._task(_head, future))
            if answer.lost:
                yield lost(item, answer.lost)
                continue
            outcome, frames, facts = answer.result
            yield outcome, None if frames is None else Remote(future, frames), facts

    def compared(self, known: Evidence, parts: list[Remote]) -> list[tuple[tuple[str, ...], Remote]]:
        checked = self._task(_check, known, *(part.future for part in parts))
        answer = self._answer(self._task(_notes, checked))
        if answer.lost:
            raise ClusterError(f"the frames' evidence was lost on the cluster: {answer.lost}; run it again")
        return [
            (notes, replace(part, future=self._task(_pick, checked, number)))
            for number, (notes, part) in enumerate(zip(answer.result, parts, strict=True))
        ]

    def together(self, parts: list[Remote]) -> list[Evidence]:
        level = [part.future for part in parts]
        while len(level) > 1:
            level = [self._task(_sum, *level[n : n + _FAN]) for n in range(0, len(level), _FAN)]
        return [self._evidence(level[0])]

    def fetched(self, part: Remote) -> Evidence:
        return self._evidence(part.future)

    def _evidence(self, future: Any) -> Evidence:
        answer = self._answer(self._task(_sum, future))
        if answer.lost:
            raise ClusterError(f"the frames' evidence was lost on the cluster: {answer.lost}; run it again")
        found: Evidence | None = answer.result
        if found is None:
            raise ValueError("images of other sizes")
        return found

    def _task(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._count += 1
        key = f"{getattr(function, '__name__', 'frame').strip('_')}-{self.run}-{self._count}"
        return self.client.submit(function, *arguments, key=key, pure=False)

    def _submitted(self, function: Callable[..., Any], items: Items) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """Tasks of the items in their order, a window of them ahead of the one that is waited for."""
        window: list[Any] = []
        following = most = 0
        for number, item in enumerate(items):
            if number % 32 == 0:
                most = max(8, _AHEAD * self.slots)
            while following < min(len(items), number + most):
                window.append(self._task(_frame, function, self.running, self.stamp, items[following], self._budget))
                following += 1
            yield window.pop(0), item

    @property
    def _budget(self) -> workers.Budget:
        return replace(self.common.budget, reserve=0)

    def _answer(self, future: Any) -> workers.Answer:
        """What came of a task, or why nothing did."""
        from distributed import CancelledError, KilledWorker, TimeoutError

        alone: float | None = None
        try:
            while True:
                try:
                    found: workers.Answer = future.result(timeout=2)
                    return found
                except TimeoutError:
                    if future.done() and isinstance(future.exception(), TimeoutError):
                        raise  # the frame's own, not this waiting's
                with _reached("the cluster's scheduler"):
                    alone = None if self.client.nthreads() else alone or time.monotonic()
                if alone and time.monotonic() - alone > _WORKERLESS:
                    raise ClusterError(f"the cluster has had no worker for {_WORKERLESS} s; start some and run again")
        except FixpixError:
            raise
        except KilledWorker as error:
            times = getattr(error, "allowed_failures", 3) + 1
            return workers.Answer(lost=f"{times} workers of the cluster died while they had it in hand")
        except CancelledError as error:
            raise ClusterError(
                "the cluster's scheduler has gone; run it again, with --resume where outputs are"
            ) from error
        except Exception as error:  # whatever the task or its way there and back raised
            return workers.Answer(lost=f"failed on the cluster ({type(error).__name__}: {error})")


@contextmanager
def connected(
    common: Common, inputs: Sequence[Path], writes: Sequence[Path], reads: Sequence[Path]
) -> Iterator[Cluster]:
    """A cluster by its address, checked.

    Parameters
    ----------
    common : Common
        ``cluster``: tcp://HOST:PORT (or any address that Dask takes), a scheduler file (.json), or local:N for N
        processes of this machine.
    inputs, writes, reads
        As `jobs.working.place_of` has them.

    Raises
    ------
    UsageError
        No such address.
    ClusterError
        dask.distributed is not installed, the scheduler cannot be reached, there is no worker, a worker is of another
        version or does not see the storage.
    DeviceError
        A worker cannot use the device.
    """
    address = common.cluster or ""
    if not _ADDRESS.fullmatch(address):
        raise UsageError(f"--cluster {address}: write tcp://HOST:PORT, a scheduler file .json, or local:N")
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ClusterError("--cluster needs dask.distributed: pip install 'fixpix[cluster]'") from error
    for name in _LOGGERS:  # what matters is raised; outcomes say the rest
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = {
        "logging.distributed": "critical",
        "distributed.comm.timeouts.connect": _PATIENCE,
        "distributed.scheduler.worker-saturation": 1.0,  # local:N: no frame waits behind one that kills
    }
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        if address.startswith("local:"):
            target = stack.enter_context(_local(distributed, address, common.budget))
        elif address.endswith(".json"):
            if not Path(address).is_file():
                raise ClusterError(f"--cluster {address}: no such scheduler file")
            target = {"scheduler_file": address}
        else:
            target = {"address": address}
        with _reached(f"--cluster {address}"):
            client = stack.enter_context(distributed.Client(**target, timeout=_PATIENCE, set_as_default=False))
        with _reached(f"--cluster {address}"):
            names = client.nthreads()
        if not names:
            raise ClusterError(f"--cluster {address}: has no workers; start some with `dask worker {address}`")
        stamp = Stamp.of_this_process()
        device = _checked(client, common, stamp, inputs, writes, reads)
        running = Running(device, note_of(common.device, device), Path.cwd())
        yield Cluster(client, common, running, stamp)


@contextmanager
def _local(distributed: Any, address: str, budget: workers.Budget) -> Iterator[dict[str, Any]]:
    """A cluster of this machine's processes, one frame each."""
    count = address.removeprefix("local:")
    with distributed.LocalCluster(
        n_workers=int(count),
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        memory_limit=budget.total // int(count),
        env={"DASK_LOGGING__DISTRIBUTED": "critical"},  # their stderr is ours
    ) as cluster:
        yield {"address": cluster.scheduler_address}


@contextmanager
def _reached(what: str) -> Iterator[None]:
    """Trouble on the way to the scheduler becomes a ClusterError."""
    try:
        yield
    except FixpixError:
        raise
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ClusterError(f"{what}: cannot be reached within {_PATIENCE} s ({words})") from error


# ---------------------------------------------------------------- before the first frame


@dataclass(frozen=True)
class _Wanted:
    """What a worker is asked before the run: paths with what the client sees there, and probes with their text."""

    folder: Path
    device: str
    seen: tuple[tuple[Path, tuple[str, int]], ...]
    probes: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class _Introduction:
    """What a worker says of itself; trouble: why it cannot take part."""

    stamp: Stamp | None = None
    device: str = ""
    trouble: str = ""


def _checked(
    client: Any,
    common: Common,
    stamp: Stamp,
    inputs: Sequence[Path],
    writes: Sequence[Path],
    reads: Sequence[Path],
) -> str:
    """Ask every worker; the device that all of them use.

    Raises
    ------
    ClusterError, DeviceError
        Named are the worker and what is wrong with it.
    """
    firsts = {path.parent: path for path in reversed(inputs)}
    watched = [*list(firsts.values())[-_PROBED:], *reads]
    seen = tuple((path, _seen(path)) for path in watched if path.exists())
    with contextlib.ExitStack() as stack:
        probes = tuple(stack.enter_context(_probe(folder)) for folder in writes)
        wanted = _Wanted(Path.cwd(), common.device, seen, probes)
        with _reached("the cluster's workers"):
            told = client.run(_introduce, wanted, on_error="return")
    devices = set()
    for worker, answer in told.items():
        if not isinstance(answer, _Introduction):
            raise ClusterError(f"worker {worker} has no fixpix that answers ({type(answer).__name__}: {answer})")
        if answer.trouble.startswith("--device"):
            raise DeviceError(f"worker {worker}: {answer.trouble}")
        if answer.trouble or answer.stamp is None:
            raise ClusterError(f"worker {worker}: {answer.trouble}")
        if difference := stamp.difference(answer.stamp):
            raise ClusterError(f"worker {worker} has {difference}; results could differ: install the same there")
        devices.add(answer.device)
    if len(devices) > 1:
        raise DeviceError(f"--device {common.device}: the workers have {', '.join(sorted(devices))}; name one of them")
    return devices.pop()


@contextmanager
def _probe(folder: Path) -> Iterator[tuple[Path, str]]:
    """A hidden file with a random text in a folder, as long as the block lasts."""
    text = uuid.uuid4().hex
    try:
        handle, name = tempfile.mkstemp(prefix=safe.TEMPORARY_PREFIX, suffix=".probe", dir=folder)
    except OSError as error:
        raise OutputFolderError(f"{folder}: cannot write here ({safe.reason(error)})") from error
    try:
        os.write(handle, text.encode())
        os.fsync(handle)
        yield Path(name), text
    finally:
        os.close(handle)
        Path(name).unlink(missing_ok=True)


def _seen(path: Path) -> tuple[str, int]:
    """What stands at a path: a folder, or a file of some size."""
    return ("folder", 0) if path.is_dir() else ("file", path.stat().st_size)


def _introduce(wanted: _Wanted) -> _Introduction:
    """Runs on every Dask worker: what it is, asked in a process like those that will do its frames."""
    item = (wanted.folder, wanted)
    limit = workers.Budget(memory=workers.MEMORY).limit(wanted.folder, 1)
    answer = workers.run_beside(_introduce_here, item, limit)
    if answer.lost:
        return _Introduction(trouble=answer.lost)
    told: _Introduction = answer.result
    return told


def _introduce_here(_: Path, wanted: _Wanted) -> _Introduction:
    host = socket.gethostname()
    try:
        os.chdir(wanted.folder)
    except OSError:
        return _Introduction(trouble=f"{host} does not see {wanted.folder}; start fixpix in a folder that all share")
    for path, there in wanted.seen:
        try:
            found = _seen(path)
        except OSError:
            found = ("nothing", 0)
        if found != there:
            return _Introduction(trouble=f"{host} does not see {path} as the client does; all must share the storage")
    for path, text in wanted.probes:
        try:
            if path.read_text() != text:
                raise FileNotFoundError
            with tempfile.TemporaryFile(prefix=safe.TEMPORARY_PREFIX, dir=path.parent):
                pass
        except OSError as error:
            return _Introduction(
                trouble=f"{host} cannot write into the client's {path.parent} ({safe.reason(error)}); "
                "all must share the storage"
            )
    device, why = usable(wanted.folder, wanted.device)
    try:
        return _Introduction(Stamp.of_this_process(), device, why)
    except FixpixError as error:
        return _Introduction(trouble=str(error))


# ---------------------------------------------------------------- on the workers


def _frame(
    function: Callable[..., Any], running: Running, stamp: Stamp, item: tuple[Any, ...], budget: workers.Budget
) -> workers.Answer:
    """Runs on a Dask worker: one frame, in a process of its own."""
    from distributed import get_worker

    worker = get_worker()
    share = getattr(worker.memory_manager, "memory_limit", None)
    if budget.memory is None and share:
        budget = replace(budget, memory=int(share))
    path = (running.folder or Path()) / item[0]
    limit = budget.limit(path, max(1, worker.state.nthreads))
    answer = workers.run_beside(functools.partial(_same, stamp, settled, function, running), item, limit)
    if isinstance(answer.result, _Other):
        return workers.Answer(lost=f"worker {worker.address} has {answer.result.difference}; install the same there")
    return answer


@dataclass(frozen=True)
class _Other:
    """Instead of a result: the worker is of another version."""

    difference: str


def _same(stamp: Stamp, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function(*arguments)`` if this process has what the client has."""
    difference = stamp.difference(_own_stamp())
    return _Other(difference) if difference else function(*arguments)


@functools.cache
def _own_stamp() -> Stamp:
    return Stamp.of_this_process()


def _head(answer: workers.Answer) -> workers.Answer:
    """What the client must know of a frame whose evidence stays where it is."""
    if answer.lost:
        return workers.Answer(lost=answer.lost)
    outcome, evidence, facts = answer.result
    return workers.Answer((outcome, None if evidence is None else frozenset(evidence.frames), facts))


def _check(known: Evidence, *parts: workers.Answer) -> workers.Answer:
    """Frames' evidence as it shall count."""
    from .checking import check

    if missing := [part.lost or "counted meanwhile" for part in parts if part.lost or part.result[1] is None]:
        return workers.Answer(lost="; ".join(missing))
    return workers.Answer(check(known, [part.result[1] for part in parts]))


def _notes(checked: workers.Answer) -> workers.Answer:
    """What was found of each frame."""
    return checked if checked.lost else workers.Answer([found.notes for found in checked.result])


def _pick(checked: workers.Answer, number: int) -> workers.Answer:
    """One frame's evidence as it shall count."""
    return checked if checked.lost else workers.Answer(checked.result[number].evidence)


def _sum(*parts: Any) -> workers.Answer:
    """The sum of frames' evidence, or of sums of it; None where their images have different sizes."""
    taken = [part.result for part in parts]
    if any(part is None for part in taken):
        return workers.Answer(lost="; ".join(part.lost for part in parts if part.lost))
    try:
        return workers.Answer(functools.reduce(lambda a, b: a + b, taken))
    except ValueError:
        return workers.Answer()
