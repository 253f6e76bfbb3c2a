"""Floor 4. What a run tells: JSON Lines on stdout for programs, words and progress for people.

stdout carries data only; progress, warnings and errors go to stderr. The
report counts the outcomes and owns the exit code.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .errors import UnusableError
from .jobs import DONE, FAILED, PLANNED, SKIPPED, Outcome


@dataclass
class Report:
    """Shows outcomes as they come and sums them up.

    Parameters
    ----------
    verb : str
        For people: "repaired", "flagged", ...
    as_json, quiet, verbose : bool
    """

    verb: str
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((DONE, SKIPPED, FAILED, PLANNED), 0))
    defects: int = 0
    worst: int = 0
    total: int | None = None
    started: float = field(default_factory=time.perf_counter)
    _said: set[str] = field(default_factory=set)

    def expect(self, total: int) -> None:
        """Hear how many frames there are."""
        self.total = total

    def follow(self, outcomes: Iterable[Outcome]) -> None:
        """Take in all outcomes, showing each."""
        if self.quiet or self.as_json or not sys.stderr.isatty():
            for outcome in outcomes:
                self.add(outcome)
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=None, speed="")
            for outcome in outcomes:
                elapsed = time.perf_counter() - self.started
                done = sum(self.counts.values()) + 1
                progress.update(
                    task,
                    advance=1,
                    total=self.total,
                    description=outcome.path.name,
                    speed=f"{done / elapsed:.1f} frames/s",
                )
                self.add(outcome, write=lambda line: progress.console.print(line, markup=False, highlight=False))

    def add(self, outcome: Outcome, write: Any = None) -> None:
        """Count one outcome and show it."""
        self.counts[outcome.status] += 1
        self.defects += outcome.defects
        if outcome.status == FAILED:
            self.worst = max(self.worst, outcome.exit_code if outcome.exit_code == UnusableError.exit_code else 1)
        say = write or (lambda line: print(line, file=sys.stderr, flush=True))
        if self.as_json:
            print(json.dumps(record(outcome)), flush=True)
        elif outcome.status == FAILED:
            say(f"error: {outcome.error}")
        elif not self.quiet:
            say(self._line(outcome))
        for note in outcome.notes:
            if not self.quiet and not self.as_json and (self.verbose or note not in self._said):
                self._said.add(note)
                say(
                    f"  note: {outcome.path.name}: {note}"
                    if self.verbose
                    else f"  note: {note} (from {outcome.path.name})"
                )

    def _line(self, outcome: Outcome) -> str:
        target = f" -> {outcome.output}" if outcome.output else ""
        if outcome.status == SKIPPED:
            return f"{outcome.path}: skipped, {outcome.method}"
        if outcome.status == PLANNED:
            return f"{outcome.path}{target}: planned"
        figures = f"{outcome.defects} {self.verb} ({100 * outcome.rate:.4g} %)"
        return f"{outcome.path}{target}: {figures}, {outcome.method or ''} {outcome.seconds:.2f} s"

    @property
    def exit_code(self) -> int:
        return self.worst

    def summary(self, maps: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
        """The last JSON line's content."""
        return {
            "frames": sum(self.counts.values()),
            **self.counts,
            "defects": self.defects,
            "seconds": round(time.perf_counter() - self.started, 3),
            "exit": self.exit_code,
            "maps": maps or [],
            **more,
        }

    def close(self, maps: list[dict[str, Any]] | None = None, **more: Any) -> None:
        """Say the sums: the summary line, or a sentence."""
        summary = self.summary(maps, **more)
        if self.as_json:
            print(json.dumps({"summary": summary}), flush=True)
        elif not self.quiet:
            parts = [f"{count} {status}" for status, count in self.counts.items() if count]
            print(
                f"{summary['frames']} frames: {', '.join(parts) or 'none'}; "
                f"{self.defects} pixels {self.verb}; {summary['seconds']:.1f} s",
                file=sys.stderr,
            )


def record(outcome: Outcome) -> dict[str, Any]:
    """One outcome as the JSON object of CONTRACT.md."""
    return {
        "path": str(outcome.path),
        "output": None if outcome.output is None else str(outcome.output),
        "status": outcome.status,
        "error": outcome.error,
        "defects": outcome.defects,
        "rate": outcome.rate,
        "method": outcome.method,
        "map": None if outcome.map is None else str(outcome.map),
        "seconds": outcome.seconds,
        **({"notes": list(outcome.notes)} if outcome.notes else {}),
        **outcome.metrics,
    }
