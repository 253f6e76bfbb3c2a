"""Star fields and real darks as tables and targets."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from output import Section, Target, at_least, number, table
from rows_darks import HOT, THRESHOLDS

Row = dict[str, Any]


def stars(rows: list[Row]) -> Section:
    """Sources and fluxes before and after `correct --auto`."""
    lines = [
        [
            f"{row['field']}{', 0.01 % damage' if row['damaged'] else ''}",
            f"{row['kept']} of {row['stars']}",
            row["new"],
            row["changed"],
            row["beyond_1_percent"],
            number(100 * row["greatest_change"], 2),
        ]
        for row in rows
    ]
    head = ["field", "stars kept", "new", "good pixels changed", "fluxes changed by > 1 %", "greatest change, %"]
    made = [row for row in rows if row["field"].startswith("simulated")]
    lost = sum(row["stars"] - row["kept"] for row in made)
    eaten = sum(row["beyond_1_percent"] for row in made if not row["damaged"])
    targets = [
        Target("collateral", "simulated stars lost", "0", str(lost), lost == 0),
        Target("collateral", "fluxes of undamaged fields changed by > 1 %", "0", str(eaten), eaten == 0),
    ]
    real = [row for row in rows if not row["field"].startswith("simulated")]
    if real:
        kept, known = sum(row["kept"] for row in real), sum(row["stars"] for row in real)
        targets.append(at_least("collateral", "sources of the real sky kept", 0.99, kept / known))
    short = "Star fields before and after `correct --auto` (sep; the real sky holds hot pixels of its own):\n\n"
    return Section("stars", short + table(head, lines), "", tuple(targets if rows else ()))


def darks(results: dict[str, Any]) -> Section:
    """Maps of halves, and counts against exposure and temperature."""
    parts, targets = [], []
    if "halves" in results:
        found = results["halves"]
        able = [row for row in found["curve"] if row[0] in THRESHOLDS and row[1] >= 0.95]
        best = max(able, key=lambda row: row[2]) if able else None
        default = found["curve"][-1]
        lines = [
            [f"{row[0]:g}{name}", *(number(value) for value in row[1:])]
            for row, name in ((default, " (default)"), *([(best, " (best)")] if best else []))
        ]
        head = ["threshold", f"pixels above {HOT:g} DN found, least", "Jaccard, least", "Jaccard, mean"]
        parts += ["Real darks (SBIG STL-1001, 60 s): maps from disjoint halves of ten:", table(head, lines)]
        parts.append(
            f"The ten's map has {found['mapped']} pixels; in an eleventh dark {100 * found['calm_before']:.1f} % of "
            f"them lie within 5 sigma of their neighbours before the repair, {100 * found['calm_after']:.2f} % after."
        )
        value = best[2] if best else None
        targets.append(at_least("real darks", "Jaccard of halves, least of the splits", 0.95, value))
    if "conditions" in results:
        rows = results["conditions"]
        exposures = sorted({row["exposure"] for row in rows})
        temperatures = sorted({row["temperature"] for row in rows})
        at = {(row["temperature"], row["exposure"]): row["detected"] for row in rows}
        lines = [[f"{t:g} C", *(at.get((t, e)) for e in exposures)] for t in temperatures]
        parts += [f"Detected pixels more than {HOT:g} DN above the median, single darks:"]
        parts.append(table(["", *(f"{e:g} s" for e in exposures)], lines))
        longer = all(at[t, a] < at[t, b] for t in temperatures for a, b in pairwise(exposures))
        warmer = all(at[a, e] < at[b, e] for e in exposures for a, b in pairwise(temperatures))
        verdict = f"{'rise' if longer else 'do not rise'} / {'rise' if warmer else 'do not rise'}"
        targets.append(Target("real darks", "counts with exposure / temperature", "rise", verdict, longer and warmer))
    return Section("darks", "\n\n".join(parts), "", tuple(targets))
