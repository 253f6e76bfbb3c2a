"""What camera maps are worth: kinds of defects, growth with frames, stars, real darks, memory and time.

    FIXPIX_DATA=... python tests/bench/maps.py --out bench-out --readme

writes maps.json and maps.md into the folder and, with `--readme`, the README's part; about ten minutes on one core.
What needs the data folder (the real darks and the real night) is left out, and named, where it is not set.

Parts
    kinds     confusion matrices of simulated sets with truth; recall by type after 1 to 30 frames; rows and clusters
    stars     simulated fields, tracked and dithered, and a real night: does a star become a defect?
    darks     maps of disjoint halves of ten real darks
    memory    `fixpix calibrate` as a process, over 1, 10 and 1,000 frames
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import maps_kinds
import maps_memory
import maps_stars
import output
import rows_darks

from fixpix_cli.evidence import DEFAULT_THRESHOLD
from fixpix_cli.suspects import DTYPE

PARTS = ("kinds", "stars", "darks", "memory")
#: The sets of the README.
_SHOWN = ("darks, 60 s, planted", "moving lights, planted")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated: " + ", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer and smaller frames")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="folder of maps.json and maps.md")
    parser.add_argument("--readme", action="store_true", help="rewrite the marked part of README.md")
    chosen = parser.parse_args(argv)
    if unknown := set(chosen.parts.split(",")) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    return chosen


def measure(parts: Sequence[str], folder: Path | None, quick: bool) -> dict[str, Any]:
    """The results of some parts, by part."""
    calls: dict[str, Callable[[], Any] | None] = {
        "kinds": lambda: maps_kinds.measure(quick),
        "stars": lambda: maps_stars.measure(folder, quick),
        "darks": None if folder is None else lambda: darks(folder, quick),
        "memory": lambda: maps_memory.measure((1, 10, 50) if quick else (1, 10, 1000)),
    }
    return {part: call() for part in parts if (call := calls[part]) is not None}


def darks(folder: Path, quick: bool) -> dict[str, Any]:
    """`rows_darks.halves`, and how often halves that both found a pixel agree on its type."""
    (halves, _) = rows_darks.tasks(folder, quick)
    return halves.call() | {"types": maps_kinds.agreement(folder)}


def text(results: dict[str, Any], short: bool) -> str:
    """The tables as Markdown."""
    out = []
    if "kinds" in results:
        found = results["kinds"]
        for name, one in found["matrices"].items():
            if short and name not in _SHOWN:
                continue
            head = ["", *one["found"], "not found"]
            out.append(f"{name[0].upper()}{name[1:]}, {one['frames']} frames (rows: truth, columns: found as):")
            out.append(output.table(head, [[kind, *map(str, line)] for kind, line in one["lines"].items()]))
        numbers = found["numbers"]
        out.append("Found after N frames, share of each type; the last line of each set is precision:")
        head = ["set", "type", *map(str, numbers)]
        lines = [
            [name, kind, *(output.number(value, 2) for value in values)]
            for name, curves in found["curves"].items()
            for kind, values in curves.items()
            if not short or name in _SHOWN
        ]
        out.append(output.table(head, lines))
        out.append("Planted lines and clusters in ten darks, and what the map's geometry shows:")
        lines = [[one["pattern"], one["planted"], one["found"]] for one in found["shapes"]]
        out.append(output.table(["pattern", "planted", "found"], lines))
    if "stars" in results:
        fields = results["stars"]["fields"]
        head = ["field of ten frames", "hot pixels found", "stars taken for defects, together", "per single frame"]
        lines = [
            [one["field"], f"{one['found']} of {one['hot']}", one["false"], f"{one['single']:.1f}"] for one in fields
        ]
        hot, right, false = (sum(one[key] for one in fields) for key in ("hot", "found", "false"))
        out.append(
            f"{len(fields)} simulated star fields of ten frames (mono and Bayer, FWHM 1.5 to 3 pixels, tracked, "
            f"guided, dithered): {false} pixels of stars become defects, {right} of {hot} hot pixels do."
        )
        if not short:
            out.append(output.table(head, lines))
        if night := results["stars"].get("night"):
            out.append(
                f"Real night (MicroObservatory, {night['frames']} frames, the field drifts by {night['drift']:.0f} "
                f"pixels or more from frame to frame): {night['flagged']} pixels become defects; {night['staying']} of "
                "them stay on their pixels in the median of all frames (hot pixels that stand alone, the first row and "
                "the first column) and are its camera's; "
                f"{night['flagged'] - night['staying']} may be stars."
            )
    if "darks" in results:
        one = results["darks"]
        at = next(line for line in one["curve"] if line[0] == DEFAULT_THRESHOLD)
        out.append(
            f"Real darks (SBIG STL-1001, 60 s, ten): maps of disjoint halves agree to {at[3]:.3f} (Jaccard, mean; "
            f"least {at[2]:.3f}) and find {at[1]:.3f} or more of the pixels above {rows_darks.HOT:.0f} DN; of the "
            f"pixels that both found {one['types']:.3f} have the same type."
        )
    if "memory" in results:
        head = ["frames", "s per frame", "peak of the leading process, MB", "peak of a worker, MB", "map, MB"]
        lines = [
            [
                one["frames"],
                *(text.format(**one) for text in ("{each:.3f}", "{leader:.0f}", "{worker:.0f}", "{map:.2f}")),
            ]
            for one in results["memory"]
        ]
        size = results["memory"][0]["size"]
        out += [
            f"`fixpix calibrate -j 1` on frames of {size} pixels (what grows are the suspects, {DTYPE.itemsize} bytes "
            "each and never more than pixels, and the frames' digests):",
            output.table(head, lines),
        ]
    return "\n\n".join(out)


def main() -> None:
    chosen = arguments()
    folder = Path(os.environ["FIXPIX_DATA"]) if os.environ.get("FIXPIX_DATA") else None
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "maps.json"
    content = json.loads(path.read_text()) if path.exists() and chosen.parts != ",".join(PARTS) else {"results": {}}
    missing = [] if folder else ["real darks and night (FIXPIX_DATA is not set)"]
    content["run"] = output.environment("python tests/bench/maps.py" + " --quick" * chosen.quick, missing)
    content["results"] |= measure(chosen.parts.split(","), folder, chosen.quick)
    path.write_text(json.dumps(content, indent=1))
    run = content["run"]
    how = f"With `{run['command']}` on {run['date']}, {run['machine']}, Python {run['python']}."
    (chosen.out / "maps.md").write_text(f"# Maps\n\n{how}\n\n{text(content['results'], short=False)}\n")
    short = f"{how}\n\n{text(content['results'], short=True)}"
    print(text(content["results"], short=False))
    if chosen.readme:
        output.README.write_text(output.rewrite(output.README.read_text(), {"maps": short}))


if __name__ == "__main__":
    main()
