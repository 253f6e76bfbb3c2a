"""Whole processes, measured from shell to shell: time, CPU time, peak memory; and growth laws through such figures.

A small process of its own starts the commands and waits for them: the kernel counts the memory of whoever starts a
process as that process's peak, and the bench is larger than what it measures. It also adopts what a command leaves
behind (fixpix's workers come from such a process), so that nobody's CPU time is lost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_AGENT = """
import ctypes, json, os, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
null = os.open(os.devnull, os.O_RDWR)
for line in sys.stdin:
    task = json.loads(line)
    os.chdir(task["cwd"])
    log = os.open(task["log"], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    start = time.perf_counter()
    pid = os.posix_spawnp(task["command"][0], task["command"], os.environ, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss
    while True:
        try:
            _, _, used = os.wait4(-1, 0)
        except ChildProcessError:
            break
        cpu, peak = cpu + used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss)
    os.close(log)
    print(json.dumps([seconds, cpu, peak / 1024, os.waitstatus_to_exitcode(status)]), flush=True)
"""


@dataclass(frozen=True)
class Run:
    """One process and its children: wall-clock s, CPU s of all of them, MB of the largest."""

    seconds: float
    cpu: float
    peak: float


class Agent:
    """Starts commands and measures them; Linux only."""

    def __init__(self, place: Path) -> None:
        self.place = place
        # As on a user's machine: compiled modules are kept between runs.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment.setdefault("PYTHONPYCACHEPREFIX", str(place / "pycache"))
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", _AGENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, command: Sequence[str]) -> Run:
        """Run a command to its end.

        Raises
        ------
        RuntimeError
            It failed; with the end of what it said.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        log = self.place / "log.txt"
        task = {"command": list(map(str, command)), "cwd": str(self.place), "log": str(log)}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        seconds, cpu, peak, code = json.loads(self.process.stdout.readline())
        if code:
            raise RuntimeError(f"{' '.join(task['command'])[:200]} ended with {code}: {log.read_text()[-500:]}")
        return Run(seconds, cpu, peak)

    def interleaved(self, commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Run]:
        """The median of each figure of each command; one round without counting, then each in its turn."""
        found: dict[str, list[Run]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                run = self.run(command)
                if number:
                    found[name].append(run)
        return {name: _median(runs) for name, runs in found.items()}

    def close(self) -> None:
        self.process.communicate()


def _median(runs: Sequence[Run]) -> Run:
    return Run(*(float(np.median([getattr(run, name) for run in runs])) for name in ("seconds", "cpu", "peak")))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """Slope of log cost over log size by least squares, and the root mean square deviation of log cost from it.

    A cost in proportion to the size has the slope 1; one that does not depend on it 0.
    """
    x, y = np.log(sizes), np.log(costs)
    slope, start = np.polyfit(x, y, 1)
    return float(slope), float(np.sqrt(np.mean((y - slope * x - start) ** 2)))
