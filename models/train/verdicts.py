"""Train and export the net that has the last word on doubtful candidates.

    python models/train/verdicts.py --data FOLDER          # or FIXPIX_DATA=FOLDER

The net sees `fixpix_cli.normalise.verdicts` of the candidates that the shipped spot detector's net does not hold for
good, and answers their log-likelihood ratio: in training the logit of the crop's true damage rate is added to its
answer, so that at use any rate can be the prior. As for `spot`, a crop counts by the entropy of its rate, and outliers
that a camera's frame has of its own are left out.

First a pool is drawn and kept, then the net learns from it (`judges`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import judges
import numpy as np
import shipping
import spot

from fixpix_cli.candidates import candidates
from fixpix_cli.classical import ratios_at
from fixpix_cli.levels import Statistics
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.nets.spots import shipped_spot
from fixpix_cli.nets.verdicts import VerdictDetector, repairs
from fixpix_cli.normalise import verdicts

CODE = (
    "models/train/verdicts.py",
    "models/train/spot.py",
    "models/train/data.py",
    "fixpix_cli/candidates.py",
    "fixpix_cli/normalise/verdicts.py",
    "fixpix_cli/normalise/windows.py",
    "fixpix_cli/nets/verdicts.py",
    "fixpix_cli/inject.py",
)
LIMITS = ("damage up to a few percent", "not for X-Trans and Quad-Bayer")


def crops(folder: Path, settings: dict[str, Any], rng: np.random.Generator, use: str) -> Iterator[judges.Crop]:
    """Damaged crops without end: features, truth, weight and prior of their doubtful candidates."""
    net, mlp = shipped_spot(), shipped_mlp()
    for light, bad, ignored in spot.damaged(folder, settings, rng, use):
        seen = Statistics.of(light)
        pixels = candidates(light, seen)
        if len(pixels) > settings["most_share"] * bad.size:
            continue
        asked = verdicts.Verdicts(light, seen, pixels, net.told(light, seen, pixels, 1))
        mine = asked.doubtful
        if not len(mine):
            continue
        features = asked.encode(ratios_at(light, seen, mine, "extreme"), *repairs(asked, mlp))
        kept = np.flatnonzero(~ignored[mine] | bad[mine])
        kept, weight = spot.thinned(kept, bad[mine], settings["most"], rng)
        factor, prior = spot.importance(bad)
        weights = (weight * factor).astype(np.float32)
        yield features[kept], bad[mine[kept]], weights, np.full(len(kept), prior, np.float32)


def main() -> None:
    options = shipping.options(__doc__ or "", "verdicts.toml")
    settings, run = options.recipe, options.run
    files, held = (judges.pool(crops, options.data, settings, run, use) for use in ("train", "validate"))
    net, facts = judges.train(verdicts.LENGTH, files, held, settings, run)
    whole = judges.shipped(net, settings, facts, options.data, VerdictDetector, "ratio", LIMITS, CODE)
    shipping.write(*whole, run)


if __name__ == "__main__":
    main()
