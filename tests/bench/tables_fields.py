"""Star fields and real darks as tables and targets."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from output import Section, Target, at_least, mean, number, table
from rows_cluster import references
from rows_correction import OURS
from rows_darks import HOT, THRESHOLDS
from tables_detection import cameras

from fixpix_cli.nets import registry

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


def cluster(rows: list[Row]) -> Section:
    """The paper's table 2: NMSE, parameters and MACs."""
    nets = references()
    found = {}
    for who in dict.fromkeys(row["who"] for row in rows):
        mine = [row for row in rows if row["who"] == who]
        by_camera = {camera: [r for r in mine if r["camera"] == camera] for camera in cameras(mine)}
        found[who] = mean([sum(r["error"] for r in own) / sum(r["energy"] for r in own) for own in by_camera.values()])
    lines = []
    for who, value in found.items():
        facts = nets[who].card.training if who in nets else _training(who)
        lines.append([who, facts.get("parameters"), facts.get("macs"), number(1e3 * (value or 0), 2)])
    theirs = [found[who] for who in nets if found.get(who)]
    ours = min((found[who], who) for who in OURS if who in found)
    measured = f"{1e3 * ours[0]:.2f} ({ours[1]})"
    text = f"< {1e3 * min(theirs):.2f}" if theirs else ""
    target = Target("the paper's 5 x 5 in 15 x 15 table", "NMSE x 1000 of our best", text, measured, None)
    if theirs:
        target = replace(target, met=ours[0] < min(theirs))
    title = "Clusters of 5 x 5 in windows of 15 x 15, NMSE x 1000 on stored values, mean over cameras:\n\n"
    return Section("cluster", title + table(["method", "parameters", "MACs per window", "NMSE"], lines), "", (target,))


def _training(who: str) -> dict[str, Any]:
    """The facts of a shipped model's training; of auto and the classical methods none."""
    return registry.show(who).card.training if who in registry.SHIPPED else {}


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
