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
import torch

from fixpix_cli.candidates import candidates
from fixpix_cli.classical import ratios_at
from fixpix_cli.levels import Statistics
from fixpix_cli.nets.correctors import shipped_mlp
from fixpix_cli.nets.spots import shipped_spot
from fixpix_cli.nets.verdicts import repairs
from fixpix_cli.normalise import verdicts

CODE = (
    "models/train/verdicts.py",
    "models/train/judges.py",
    "models/train/spot.py",
    "models/train/data.py",
    "fixpix_cli/candidates.py",
    "fixpix_cli/normalise/verdicts.py",
    "fixpix_cli/normalise/windows.py",
    "fixpix_cli/nets/verdicts.py",
    "fixpix_cli/inject.py",
)


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


def shipped(net: judges.Judge, settings: dict[str, Any], facts: dict[str, Any], folder: Path) -> Any:
    """The net as ONNX and its card."""
    example = {"features": torch.randn(500, verdicts.LENGTH)}
    model = shipping.export(net, example, {"ratio": ("n",)})
    facts = facts | {
        "parameters": shipping.parameters(net),
        "torch_onnxruntime_difference": shipping.agreement(net, model, example),
        "mlp": shipped_mlp().session.sha256,
    }
    return model, shipping.card(
        settings["name"],
        "detect",
        "verdict",
        folder,
        inputs={"features": ("n", verdicts.LENGTH)},
        outputs={"ratio": ("n",)},
        normalisation=verdicts.NORMALISATION,
        cfa=("MONO", "RGGB", "GRBG", "GBRG", "BGGR"),
        serving=settings["serve"],
        training={k: v for k, v in settings.items() if k != "serve"} | facts,
        metrics={},
        limits=("trained without modern DSLR stills", "damage up to a few percent", "not for X-Trans and Quad-Bayer"),
        code=shipping.code(*CODE),
    )


def main() -> None:
    options = shipping.options(__doc__ or "", "verdicts.toml")
    settings, run = options.recipe, options.run
    files, held = (judges.pool(crops, options.data, settings, run, use) for use in ("train", "validate"))
    net, facts = judges.train(verdicts.LENGTH, files, held, settings, run)
    shipping.write(*shipped(net, settings, facts, options.data), run)


if __name__ == "__main__":
    main()
