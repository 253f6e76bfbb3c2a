"""Floor 3. Where the work on frames runs: in this process or in some of its own.

`run` gives results in the order of the items. A worker that dies (out of
memory, a crash in a codec) fails the frames it had in hand, by name, and the
others go on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any


def available() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _quiet() -> None:
    """Leave Ctrl-C to the parent: a worker finishes the frame in hand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run(
    function: Callable[..., Any],
    items: Sequence[tuple[Any, ...]],
    jobs: int,
    lost: Callable[[tuple[Any, ...]], Any],
) -> Iterator[Any]:
    """Call ``function(*item)`` for every item.

    Parameters
    ----------
    function : callable
        Of module level, so that it can be sent to another process.
    items : sequence of tuples
    jobs : int
        Processes; 1 runs everything here.
    lost : callable
        Makes the result of an item whose worker died.
    """
    jobs = min(jobs, len(items))
    if jobs <= 1:
        for item in items:
            yield function(*item)
        return
    yield from _parallel(function, items, jobs, lost)


def _parallel(
    function: Callable[..., Any],
    items: Sequence[tuple[Any, ...]],
    jobs: int,
    lost: Callable[[tuple[Any, ...]], Any],
) -> Iterator[Any]:
    # Never "fork": LibRaw's OpenMP threads can deadlock in a forked child.
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    todo = deque(items)
    while todo:
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_quiet)
        running: deque[tuple[tuple[Any, ...], Future[Any]]] = deque()
        try:
            while todo or running:
                while todo and len(running) < 2 * jobs:
                    item = todo.popleft()
                    running.append((item, pool.submit(function, *item)))
                item, future = running[0]
                result = future.result()
                running.popleft()
                yield result
        except BrokenProcessPool:
            # Nobody can say which frame killed the worker: try the ones in hand again,
            # one at a time, each in a process of its own.
            pool.shutdown(wait=False, cancel_futures=True)
            for item, future in running:
                if future.done() and not future.exception():
                    yield future.result()
                else:
                    yield _alone(function, item, context, lost)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _alone(function: Callable[..., Any], item: tuple[Any, ...], context: Any, lost: Callable[..., Any]) -> Any:
    with ProcessPoolExecutor(1, mp_context=context, initializer=_quiet) as pool:
        try:
            return pool.submit(function, *item).result()
        except BrokenProcessPool:
            return lost(item)
