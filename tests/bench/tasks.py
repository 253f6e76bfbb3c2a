"""A run of the bench: tasks one after the other or in processes, their results kept so that a stopped run resumes."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixpix_cli import safe

#: Seconds between two writes of the results.
_WRITE_EVERY = 10.0


@dataclass(frozen=True)
class Task:
    """One part of a row.

    Parameters
    ----------
    row : str
    key : str
        Its name within the row.
    weight : float
        About how long it takes, in seconds.
    call : callable
        Answers what JSON can hold.
    """

    row: str
    key: str
    weight: float
    call: Callable[[], Any]


def run(tasks: Sequence[Task], kept: dict[str, dict[str, Any]], save: Callable[[], None], jobs: int = 1) -> None:
    """Do the tasks whose results are not in `kept` yet, and put them there; progress goes to stderr."""
    todo = [task for task in tasks if task.key not in kept.get(task.row, {})]
    start = last = time.monotonic()
    done, total = 0.0, sum(task.weight for task in todo)
    for number, (task, result) in enumerate(_results(todo, jobs), 1):
        kept.setdefault(task.row, {})[task.key] = json.loads(json.dumps(result))
        done += task.weight
        now = time.monotonic()
        left = (now - start) * (total - done) / done
        print(f"{number}/{len(todo)} {task.row}: {task.key}; {now - start:.0f} s, {left:.0f} s left", file=sys.stderr)
        if now - last > _WRITE_EVERY:
            save()
            last = now
    save()


_tasks: list[Task] = []


def _call(index: int) -> tuple[int, Any]:
    return index, _tasks[index].call()


def _results(todo: Sequence[Task], jobs: int) -> Iterator[tuple[Task, Any]]:
    if jobs <= 1:
        for task in todo:
            yield task, task.call()
        return
    _tasks[:] = todo  # the children see it as it is when they are forked
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for index, result in pool.imap_unordered(_call, range(len(todo))):
            yield todo[index], result


def read(path: Path) -> dict[str, Any]:
    """A run's file; empty where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a run's file in one step."""
    with safe.replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
