"""Floor 3. Where the work on frames runs: in processes of its own, each within limits.

A file from elsewhere may ask a decoder for any amount of memory or time, or
crash it. Therefore no frame is decoded in the process that leads the run, not
even with one job: `run` sends every item to a worker, which has a limit of
memory, CPU time and size of its output, and it watches the clock. What a
worker dies of is the failure of the one item that it had in hand. The exception
is a single item that no decoder touches (`run_here`).

`run` gives results in the order of the items. An item that needs more memory
than its worker's share is tried again, alone, with all there is; where that
happens again and again, fewer workers go on.

The stages of successive frames overlap because their workers do: while one
decodes, others ask the net or wait for the disk. What comes next is read ahead
into the system's cache. A worker has one item in hand and the leader holds
`AHEAD` results per worker at most, so memory does not grow with the number of
frames.

Memory is limited by RLIMIT_DATA: it counts what a process has asked for and may
write, so a file that is mapped to be read, libraries, and the large empty
address ranges that runtimes reserve are free. Measured with RLIMIT_AS instead,
the same worker (NumPy, LibRaw, astropy, onnxruntime loaded) starts at 223 MB
where RLIMIT_DATA says 128 MB and 74 MB are in use. Windows has neither; only
the clock limits a frame there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import machine

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

#: Share of the machine's memory (or the control group's) that all workers together may take unless told otherwise.
_SHARE = 0.75
#: A frame's memory unless told otherwise, at most: this, and so much for each byte of its file.
MEMORY, _MEMORY_PER_BYTE = 2_000_000_000, 64
#: A frame's CPU seconds unless told otherwise: this, and so much for each byte of its file.
_SECONDS, _SECONDS_PER_BYTE = 120.0, 30e-6
#: The clock may show this many times the CPU seconds: for slow disks and for machines with other work.
_PATIENCE = 10
#: What the process that workers come from loads before it is asked for one.
_VERBS = tuple(
    f"fixpix_cli.jobs.{name}" for name in ("calibrating", "correcting", "detecting", "evaluating", "injecting")
)
#: A process at work takes about this much at least, in bytes; fewer bytes each are not worth a process. Large frames
#: take so much for each byte of their file (``detect`` on 24 MP of 16 bits, 48 MB: 850 MB where damage or texture makes
#: it look at every pixel, else 150 MB).
_PER_PROCESS, _BASE, _PER_BYTE = 400_000_000, 100_000_000, 16
#: Of so many files the sizes are looked at to find how much a process will need.
_LOOKED_AT = 256
#: Items per worker that are under way or done before their turn.
AHEAD = 2


@dataclass(frozen=True)
class Limit:
    """What one item may take: memory (bytes), CPU time (seconds), size of a file it writes (bytes)."""

    memory: int
    seconds: float
    output: int


@dataclass(frozen=True)
class Budget:
    """What a run may take.

    Parameters
    ----------
    memory : int, optional
        Bytes for all workers together. None: three quarters of the machine's, and for one frame
        never more than 2 GB and 64 bytes for each byte of its file.
    seconds : float, optional
        CPU seconds for one frame. None: 120, and 30 for each megabyte of its file.
    reserve : int
        Bytes of it that the leader and the process that workers come from need; at most a quarter counts.
    """

    memory: int | None = None
    seconds: float | None = None
    reserve: int = 0

    @property
    def total(self) -> int:
        """Bytes for all workers together."""
        memory = self.memory if self.memory is not None else int(machine.memory() * _SHARE)
        return memory - min(self.reserve, memory // 4)

    def crew(self, jobs: int, paths: Sequence[Path]) -> int:
        """How many workers to start for the frames at `paths`.

        Parameters
        ----------
        jobs : int
            So many as memory allows. 0: as many as there are processors, if each gets what the largest frame
            needs by the size of its file.
        """
        most = machine.available() if jobs == 0 else jobs
        each = _PER_PROCESS
        if jobs == 0:
            each = max(each, _BASE + _PER_BYTE * largest(paths))
        return max(1, min(most, len(paths), self.total // each))

    def limit(self, path: Path, sharers: int) -> Limit:
        """What one of `sharers` workers may take for the frame at `path`."""
        try:
            size = path.stat().st_size
        except OSError:  # the worker meets the same error and names it
            size = 0
        memory = self.total // sharers
        if self.memory is None:
            memory = min(memory, MEMORY + _MEMORY_PER_BYTE * size)
        seconds = self.seconds if self.seconds is not None else _SECONDS + _SECONDS_PER_BYTE * size
        return Limit(memory, seconds, size + memory)


def largest(paths: Sequence[Path]) -> int:
    """Bytes of the largest of some files, of many files that of a sample; 0 where none can be seen."""
    found = [0]
    for path in paths[:: -(-len(paths) // _LOOKED_AT) or 1]:
        with contextlib.suppress(OSError):  # the worker meets the same error and names it
            found.append(path.stat().st_size)
    return max(found)


def warm() -> None:
    """Begin to start the process that workers come from; it loads while this one goes on."""
    if sys.platform != "win32":
        import multiprocessing
        from multiprocessing import forkserver

        multiprocessing.get_context("forkserver").set_forkserver_preload(["__main__", *_VERBS])
        forkserver.ensure_running()


def run(
    function: Callable[..., Any],
    items: Sequence[tuple[Any, ...]],
    jobs: int,
    budget: Budget,
    lost: Callable[[tuple[Any, ...], str], Any],
) -> Iterator[Any]:
    """Call ``function(*item)`` for every item, in worker processes.

    Parameters
    ----------
    function : callable
        Of module level, so that it can be sent to another process. A MemoryError may leave it.
    items : sequence of tuples
        The first value of each is the path of its frame.
    jobs : int
        Workers.
    budget : Budget
    lost : callable
        Makes the result of an item that did not come back, from the item and the reason.
    """
    jobs = max(1, min(jobs, len(items)))
    team = _Team(function, jobs, budget)
    following, due, ahead = 0, 0, 0
    results: dict[int, Any] = {}
    starved: set[int] = set()
    hungry = 0
    try:
        while due < len(items):
            if due in results:
                yield results.pop(due)
                due += 1
                continue
            if due in starved and not team.busy:
                team.close()
                team = _Team(function, 1, budget)  # alone, with all the memory
                team.give(due, items[due])
            while team.has_room and following < min(len(items), due + AHEAD * jobs) and due not in starved:
                team.give(following, items[following])
                following += 1
            while ahead < min(len(items), following + jobs):
                if ahead >= following:
                    _read_ahead(items[ahead][0])
                ahead += 1
            for number, answer in team.answers():
                if answer.starved and team.size > 1:
                    starved.add(number)
                    continue
                results[number] = lost(items[number], answer.lost) if answer.lost else answer.result
                if number in starved:
                    starved.discard(number)
                    team.close()
                    hungry += 1
                    jobs = max(1, jobs // 2) if hungry > 1 else jobs
                    team = _Team(function, jobs, budget)
    finally:
        team.close()


def run_here(
    function: Callable[..., Any],
    item: tuple[Any, ...],
    budget: Budget,
    lost: Callable[[tuple[Any, ...], str], Any],
) -> Any:
    """Call ``function(*item)`` in this process, within its limit of memory; in a worker if that does not suffice.

    Only for an item whose file no foreign decoder touches and nothing but a handful of our own lines reads, which take
    memory and time in proportion to its size. It spares a job of one frame the start of two processes.
    """
    limit = budget.limit(item[0], 1).memory
    if resource is None:
        return function(*item)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
        return function(*item)
    except MemoryError:
        pass
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    (answer,) = run(function, [item], 1, budget, lost)
    return answer


def _read_ahead(path: Path) -> None:
    """Ask the system to read a file into its cache, while the workers do others."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):  # the worker meets the same error and names it
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe may stand there
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(handle)


def run_beside(function: Callable[..., Any], item: tuple[Any, ...], limit: Limit) -> Answer:
    """Call ``function(*item)`` in a worker process that belongs to the calling thread and stays for its next call.

    For the threads of another scheduler's workers (`cluster`).
    """
    team = getattr(_mine, "team", None)
    if team is None:
        team = _mine.team = _Team(function, 1, Budget())
    team.function = function
    team.give(0, item, limit)
    while True:
        for _, answer in team.answers():
            return answer


_mine = threading.local()


@dataclass(frozen=True)
class Answer:
    """What came back for an item: its result, or why there is none and whether more memory might help."""

    result: Any = None
    lost: str = ""
    starved: bool = False


@dataclass
class _Worker:
    """A process, the pipe to it, and what it has in hand."""

    process: Any
    pipe: Connection
    number: int | None = None
    limit: Limit = Limit(0, 0, 0)
    until: float = 0.0


@dataclass
class _Team:
    """Workers that share a budget. They start when they are needed and are replaced when they die."""

    function: Callable[..., Any]
    size: int
    budget: Budget
    workers: list[_Worker] = field(default_factory=list)

    @property
    def busy(self) -> list[_Worker]:
        return [w for w in self.workers if w.number is not None]

    @property
    def has_room(self) -> bool:
        return len(self.busy) < self.size

    def give(self, number: int, item: tuple[Any, ...], limit: Limit | None = None) -> None:
        """Hand an item to a free worker; its limit is a share of the budget where none is given."""
        worker = next((w for w in self.workers if w.number is None), None) or self._hire()
        worker.number, worker.limit = number, limit or self.budget.limit(item[0], self.size)
        worker.until = time.monotonic() + _PATIENCE * worker.limit.seconds
        with contextlib.suppress(OSError):  # it has died meanwhile: `answers` finds that
            worker.pipe.send((self.function, item, worker.limit))

    def _hire(self) -> _Worker:
        # Never "fork": LibRaw's OpenMP threads can deadlock in a forked child.
        import multiprocessing

        warm()
        current = multiprocessing.current_process()
        if current.daemon:  # Dask's workers are, and daemons may start no process: ours die with their pipe anyway
            current.daemon = False
        context: Any = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, mine)
        self.workers.append(worker)
        return worker

    def answers(self) -> Iterator[tuple[int, Answer]]:
        """Wait until a busy worker answers, dies or has had its time."""
        from multiprocessing.connection import wait

        patience = min((w.until for w in self.busy), default=0.0) - time.monotonic()
        ready = wait([w.pipe for w in self.busy], max(0.0, patience))
        for worker in self.busy:
            number, late = worker.number, False
            assert number is not None
            if worker.pipe not in ready:
                if time.monotonic() < worker.until:
                    continue
                worker.process.kill()
                late = True
            try:
                if late:
                    raise EOFError
                answer: Answer = worker.pipe.recv()
            except Exception:  # cut short in mid-answer, it can be any
                answer = self._bury(worker, late)
            worker.number = None
            yield number, answer

    def _bury(self, worker: _Worker, late: bool) -> Answer:
        """What a dead worker died of."""
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        code, limit = worker.process.exitcode or 0, worker.limit
        if late or code == -getattr(signal, "SIGXCPU", 0):
            clock = f"{_PATIENCE * limit.seconds:.0f} s by the clock" if late else f"{limit.seconds:.0f} s of CPU time"
            return Answer(lost=f"took more than {clock}; if you trust the file, allow more with --max-time")
        if code == -signal.SIGKILL:
            return Answer(lost=_too_big(limit), starved=True)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return Answer(
            lost=f"its decoder crashed ({name}); the file is damaged, or needs more memory than --max-memory allows",
            starved=True,
        )

    def close(self) -> None:
        """Let the workers finish what they have in hand, within their time, and go."""
        for worker in self.workers:
            worker.pipe.close()
        for worker in self.workers:
            worker.process.join(max(1.0, worker.until - time.monotonic()) if worker.number is not None else 5.0)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.workers.clear()


def _too_big(limit: Limit) -> str:
    size = f"{limit.memory / 1e9:.1f} GB" if limit.memory >= 1e9 else f"{limit.memory / 1e6:.0f} MB"
    return f"needs more memory than the {size} it may take; if you trust the file, allow more with --max-memory"


def _serve(pipe: Connection) -> None:
    """The life of a worker: items in, answers out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the leader's; the frame in hand is finished
    while True:
        try:
            function, item, limit = pipe.recv()
        except (EOFError, OSError):
            return
        _confine(limit)
        try:
            answer = Answer(function(*item))
        except MemoryError:
            answer = Answer(lost=_too_big(limit), starved=True)
        try:
            pipe.send(answer)
        except MemoryError:
            pipe.send(Answer(lost=_too_big(limit), starved=True))
        except OSError:  # the leader has gone
            return
        del answer


def _confine(limit: Limit) -> None:
    """Limit this process for its next item."""
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    for kind, most in (
        (resource.RLIMIT_DATA, limit.memory),
        (resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + limit.seconds) + 1),
        (resource.RLIMIT_FSIZE, limit.output),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
