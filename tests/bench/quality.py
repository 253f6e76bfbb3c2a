"""Every quality figure of fixpix and of its baselines: JSON, a report, plots, and the README's tables.

    FIXPIX_DATA=... python tests/bench/quality.py --out bench-out --readme

runs on the validation cameras and on validation photographs turned back into raw; about 25 minutes on one core.
`--rows` takes some of the rows, `--quick` smaller frames and fewer of them. Results are written while they come: a
run that was stopped goes on with `--resume`, unless the program or its models changed meanwhile. Baselines come with
``pip install fixpix[bench]`` and the program `siril-cli`; what is missing is named, and left out.

Rows
    detection    one frame, every kind and rate of damage; probabilities; --max-false
    multiframe   1 to 30 frames of one camera
    correction   repair with and without the true mask; holes; crossing of the methods; collateral
    cluster      the paper's table of 5 x 5 clusters in windows of 15 x 15
    stars        star fields before and after `correct --auto`
    darks        real darks: maps of halves, counts against exposure and temperature
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import output
import peers
import plots
import rows_cluster
import rows_correction
import rows_darks
import rows_detection
import rows_multiframe
import rows_stars
import tables_correction
import tables_detection
import tables_fields
import tables_multiframe
import tasks

MODULES = (rows_darks, rows_stars, rows_cluster, rows_detection, rows_multiframe, rows_correction)
ROWS = {module.ROW: module for module in MODULES}
ROOT = Path(__file__).resolve().parents[2]
#: The files whose change makes old results worthless.
MEASURING = ("rows_*.py", "scenes.py", "peers.py", "sums.py")
#: README part -> plots that it shows.
SHOWN = {"probability": ["reliability"], "multiframe": ["multiframe"], "strategy": ["rates", "holes"]}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated: " + ", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="fewer and smaller frames, one seed")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder for the JSON, report and plots")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--resume", action="store_true", help="keep the results that --out holds already")
    parser.add_argument("--readme", action="store_true", help="rewrite the marked parts of README.md")
    parser.add_argument("--tables", action="store_true", help="measure nothing: tables and plots of what --out holds")
    chosen = parser.parse_args(argv)
    if unknown := set(chosen.rows.split(",")) - set(ROWS):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    return chosen


def fingerprint(quick: bool) -> str:
    """What results depend on: the package, the models, what measures, and the size of the run."""
    total = hashlib.sha256(f"{quick}".encode())
    here = [path for pattern in MEASURING for path in Path(__file__).parent.glob(pattern)]
    for path in sorted([*(ROOT / "fixpix_cli").rglob("*.py"), *(ROOT / "models").rglob("SHA256SUMS"), *here]):
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def sections(results: dict[str, dict[str, Any]]) -> list[output.Section]:
    """Everything that the results have to say, in the order of the README."""
    rows = {row: [one for part in parts.values() for one in part] for row, parts in results.items() if row != "darks"}
    out: list[output.Section] = []
    if rows.get("detection"):
        out += tables_detection.section(rows["detection"])
    if rows.get("multiframe"):
        out.append(tables_multiframe.section(rows["multiframe"]))
    if rows.get("correction"):
        out += tables_correction.section(rows["correction"])
    if rows.get("cluster"):
        out.append(tables_fields.cluster(rows["cluster"]))
    if rows.get("stars"):
        out.append(tables_fields.stars(rows["stars"]))
    if results.get("darks"):
        out.append(tables_fields.darks(results["darks"]))
    return out


def report(found: Sequence[output.Section], run: dict[str, Any]) -> str:
    """The whole report as Markdown."""
    targets = [target for section in found for target in section.targets]
    parts = ["# Quality", "\n".join(f"- {key}: {value}" for key, value in run.items())]
    parts += ["## Targets", output.targets_table(targets)]
    for section in found:
        parts += [f"## {section.name}", section.short, section.full]
    return "\n\n".join(part for part in parts if part) + "\n"


def readme_parts(found: Sequence[output.Section], run: dict[str, Any], drawn: Sequence[Path]) -> dict[str, str]:
    """README part -> Markdown: every section with its plots, and the targets with how they were measured."""
    have = {path.stem for path in drawn}
    out = {}
    for section in found:
        images = [f"![{name}]({output.PLOTS}/{name}.png)" for name in SHOWN.get(section.name, ()) if name in have]
        out[section.name] = "\n\n".join([section.short, *images])
    targets = [target for section in found for target in section.targets]
    missing = f" Not measured: {', '.join(run['not measured'])}." if run["not measured"] else ""
    how = (
        f"With `{run['command']}` on {run['date']}, {run['machine']}, Python {run['python']}, onnxruntime "
        f"{run['onnxruntime']}: on cameras and photographs that trained nothing.{missing} Targets "
        f"met: {sum(target.met is True for target in targets)} of {len(targets)}."
    )
    return {**out, "targets": how + "\n\n" + output.summary(targets)}


def measure(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run what is asked for; the content of the JSON file."""
    path, mark = chosen.out / "quality.json", fingerprint(chosen.quick)
    content = tasks.read(path) if chosen.resume else {}
    if content and content["fingerprint"] != mark:
        print("program, models or settings changed: the old results are not kept", file=sys.stderr)
        content = {}
    command = shlex.join(["python", "tests/bench/quality.py", *(["--quick"] if chosen.quick else [])])
    content |= {"fingerprint": mark, "run": output.environment(command, peers.missing())}
    content.setdefault("results", {})
    wanted = [task for row in chosen.rows.split(",") for task in ROWS[row].tasks(folder, chosen.quick)]
    tasks.run(wanted, content["results"], lambda: tasks.write(path, content), chosen.jobs)
    return content


def main() -> None:
    chosen = arguments()
    folder = os.environ.get("FIXPIX_DATA")
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.tables:
        content = tasks.read(chosen.out / "quality.json")
    elif folder:
        content = measure(chosen, Path(folder))
    else:
        sys.exit("set FIXPIX_DATA to the data folder")
    found = sections(content["results"])
    rows = {row: [one for part in parts.values() for one in part] for row, parts in content["results"].items()}
    drawn = plots.draw(rows, chosen.out)
    (chosen.out / "report.md").write_text(report(found, content["run"]))
    for section in found:
        print(f"\n## {section.name}\n\n{section.short}")
    print("\n## targets\n\n" + output.summary([target for section in found for target in section.targets]))
    if chosen.readme:
        parts = readme_parts(found, content["run"], drawn)
        output.README.write_text(output.rewrite(output.README.read_text(), parts))
        for path in drawn:
            (ROOT / output.PLOTS).mkdir(exist_ok=True)
            shutil.copy(path, ROOT / output.PLOTS)


if __name__ == "__main__":
    main()
