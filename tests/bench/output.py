"""Tables, targets and the README's marked parts: text from figures."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

README = Path(__file__).resolve().parents[2] / "README.md"
#: Where the README's plots lie, seen from the README.
PLOTS = "tests/bench/plots"


@dataclass(frozen=True)
class Target:
    """One line of the target table.

    Parameters
    ----------
    group, what, target, measured : str
        The line of the target table, which part of it, what was asked, what came out.
    met : bool or None
        None: not measured.
    """

    group: str
    what: str
    target: str
    measured: str
    met: bool | None

    @property
    def verdict(self) -> str:
        return {True: "met", False: "**missed**", None: "not measured"}[self.met]


@dataclass(frozen=True)
class Section:
    """What one family of rows has to say.

    Parameters
    ----------
    name : str
        Of the README's markers.
    short : str
        Markdown for the README.
    full : str
        Markdown for the report; the short one is not repeated in it.
    targets : tuple of Target
    """

    name: str
    short: str
    full: str = ""
    targets: tuple[Target, ...] = field(default=())


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers are given as text already, None is a dash."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join("—" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def percent(rate: float) -> str:
    """0.0001 -> 0.01%."""
    return f"{100 * rate:g}%"


def number(value: float | None, digits: int = 3) -> str | None:
    """Text of a figure; None stays None."""
    return None if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the figures that there are; None where there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def at_least(group: str, what: str, target: float, value: float | None) -> Target:
    """A target that a figure may not fall below."""
    return Target(group, what, f">= {target:g}", number(value) or "", None if value is None else value >= target)


def at_most(group: str, what: str, target: float, value: float | None, digits: int = 3) -> Target:
    """A target that a figure may not exceed."""
    return Target(
        group, what, f"<= {target:g}", number(value, digits) or "", None if value is None else value <= target
    )


def targets_table(targets: Sequence[Target]) -> str:
    """All targets with what was measured."""
    lines = [(one.group, one.what, one.target, one.measured, one.verdict) for one in targets]
    return table(("target", "", "asked", "measured", ""), lines)


def summary(targets: Sequence[Target]) -> str:
    """One line per group: how many of its targets are met, which are missed, which were not measured."""
    lines = []
    for group in dict.fromkeys(one.group for one in targets):
        mine = [one for one in targets if one.group == group]
        missed = "; ".join(f"{one.what} {one.measured} ({one.target})" for one in mine if one.met is False)
        known = sum(one.met is not None for one in mine)
        open_ = ", ".join(one.what for one in mine if one.met is None)
        lines.append((group, f"{sum(one.met is True for one in mine)} of {known}", missed, open_))
    if not any(line[3] for line in lines):
        return table(("target", "met", "missed: measured (asked)"), [line[:3] for line in lines])
    return table(("target", "met", "missed: measured (asked)", "not measured"), lines)


def rewrite(text: str, parts: Mapping[str, str], family: str = "quality") -> str:
    """Replace what stands between ``<!-- quality:NAME -->`` and ``<!-- /quality -->`` (or another family's marks).

    Raises
    ------
    ValueError
        A part has no place in the text.
    """
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {family}:{re.escape(name)} -->\n).*?(<!-- /{family} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"no <!-- {family}:{name} --> ... <!-- /{family} --> in the text")
        text = pattern.sub(lambda found, part=part: found[1] + part.strip() + "\n" + found[2], text)
    return text


def environment(command: str, missing: Sequence[str]) -> dict[str, Any]:
    """Machine, versions and date of a run."""
    import onnxruntime

    return {
        "command": command,
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores of {_processor()}, {platform.system()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "not measured": list(missing),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    return names[0].strip() if names else platform.processor() or platform.machine()
