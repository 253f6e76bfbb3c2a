"""Floor 2. The unets: nets that judge every pixel of a plane, tile by tile, by log-likelihood ratios.

In clusters and lines bad pixels hide each other: of 5 x 5 clusters a first look finds two thirds. There the unet of
dense damage looks again, without the suspects (`looked_closer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..cfa import Cfa
from ..classical import detection_of, rate_of, trusted_of
from ..crowds import below_surroundings, crowds
from ..detection import Detection
from ..errors import FrameError
from ..mosaic import Bool, Float32, Mosaic
from ..normalise import features, second
from ..tiles import each
from . import registry
from .sessions import Session

#: With more than this share of the pixels in crowds the closer look is at all of them.
MANY = 0.05
#: Rows and columns of a tile's core, in pixels of the mosaic.
TILE = 512


@dataclass(frozen=True, eq=False)
class UnetDetector:
    """Bad pixels of a plane by a net that answers log-likelihood ratios.

    The ratio says nothing of how common bad pixels are. The frame's own damage rate, estimated from
    all its ratios, is the prior that turns it into a probability.

    Parameters
    ----------
    session : Session
    """

    session: Session

    @classmethod
    def open(cls, name: str | Path = "unet", threads: int = 1) -> UnetDetector:
        """A shipped model by name (verified) or a user's own .onnx by path: of the first look or the second.

        Raises
        ------
        ModelError
        """
        looks = {look.NORMALISATION: look.CHANNELS for look in (features, second)}
        looks[second.PLAIN] = second.PLAIN_CHANNELS
        inputs: dict[str, dict[str, tuple[int | str, ...]]] = {
            contract: {"features": ("n", channels, "h", "w"), "mono": ("n", 1, 1, 1)}
            for contract, channels in looks.items()
        }
        session = registry.open_model(name, "detect", "unet", inputs, threads)
        session.card.require_above_zero(session.source, ("multiple", "halo", "temperature"))
        return cls(session)

    def supports(self, cfa: Cfa) -> bool:
        """Whether the net knows this pattern."""
        return self.session.card.knows(cfa)

    def __call__(self, mosaic: Mosaic) -> Detection:
        """Find bad pixels in one plane by its own samples alone.

        Raises
        ------
        FrameError
            The net does not know the CFA.
        """
        ratios = self.ratios(mosaic)
        return detection_of(mosaic, ratios, rate_of(ratios, clear=-np.inf), "unet")

    def serving(self, key: str) -> float:
        """A number of the card's serving section."""
        return self.session.card.number(key, self.session.source)

    def looked_again(
        self, light: Mosaic, first: Float32, rate: float, wanted: Bool | None = None, threads: int = 1
    ) -> Float32:
        """What this net says of a plane that was looked at before; see `Second.of` and `ratios_of`."""
        contract = self.session.card.normalisation
        return self.ratios_of(second.Second.of(light, first, rate, contract), wanted, threads)

    def ratios(self, mosaic: Mosaic) -> Float32:
        """Log-likelihood ratios of bad against good of the active pixels; -inf where the sample is NaN.

        Returns
        -------
        (h, w) float32 array, of the active area
        """
        if not self.supports(mosaic.cfa):
            raise FrameError(f"the unet detector does not know {mosaic.cfa.name}")
        return self.ratios_of(features.Seen.of(mosaic.light()))

    def ratios_of(self, seen: features.Seen | second.Second, wanted: Bool | None = None, threads: int = 1) -> Float32:
        """The same for a plane whose features are known.

        Parameters
        ----------
        seen : features.Seen or second.Second
        wanted : (h, w) bool array, optional
            Where answers are wanted; tiles without such a pixel are left out, and 0.
        threads : int
            Tiles that are worked on at the same time; the result does not depend on it.
        """
        card, source = self.session.card, self.session.source
        multiple, halo = (int(card.number(key, source)) for key in ("multiple", "halo"))
        halo = -(-halo // multiple) * multiple
        size = int(card.serving.get("tile", TILE))
        samples = seen.levels.samples
        (top, left), (height, width) = seen.phase, samples.shape
        flag = np.full((1, 1, 1, 1), not seen.levels.cfa.is_bayer, np.float32)
        temperature = np.float32(card.number("temperature", source))
        out = np.zeros((height, width), np.float32)

        def fill(corner: tuple[int, int]) -> None:
            row, col = corner
            inside = (slice(max(0, row - top), row - top + size), slice(max(0, col - left), col - left + size))
            if wanted is not None and not wanted[inside].any():
                return
            tall, wide = (
                -(-min(size, n - start) // multiple) * multiple
                for n, start in ((height + top, row), (width + left, col))
            )
            given = seen.features((row - halo, row + tall + halo), (col - halo, col + wide + halo))
            answer = self.session.run(features=given[None], mono=flag)["ratio"][0]
            edge = halo // 2
            whole = features.unpack(answer[:, edge : edge + tall // 2, edge : edge + wide // 2])
            r, c = max(0, top - row), max(0, left - col)
            part = whole[r : height + top - row, c : width + left - col]
            part /= temperature
            place = (slice(row + r - top, row + r - top + len(part)), slice(col + c - left, None))
            view = out[place][:, : part.shape[1]]
            view[...] = part
            missing = np.isnan(samples[place][:, : part.shape[1]])
            if missing.any():
                view[missing] = -np.inf

        corners = [(r, c) for r in range(0, height + top, size) for c in range(0, width + left, size)]
        each(fill, corners, threads)
        return out


@cache
def shipped_unet() -> UnetDetector:
    """The shipped unet, opened once per process.

    Raises
    ------
    ModelError
        It is missing or not what SHA256SUMS says.
    """
    return UnetDetector.open("unet")


@cache
def shipped_dense() -> UnetDetector:
    """The shipped unet of later looks at dense damage, opened once per process; raises as `shipped_unet`."""
    return UnetDetector.open("unet-dense")


@cache
def shipped_crowds() -> UnetDetector:
    """The shipped unet of closer looks at clusters and lines, opened once per process; raises as `shipped_unet`."""
    return UnetDetector.open("unet-crowds")


def looked_closer(
    light: Mosaic, first: Float32, rate: float, net: UnetDetector | None, threads: int, many: float = MANY
) -> Float32 | None:
    """What two more looks say, on average, where suspects stand close together; NaN elsewhere, None if nowhere.

    The second of them sees what the first of them still hid: of 5 x 5 clusters it finds 1 to 3 points more.

    Parameters
    ----------
    light : Mosaic
        Without masked borders.
    first : (H, W) float32 array
        Log-likelihood ratios of the first look.
    rate : float
        The damage rate that they have as the prior.
    net : UnetDetector, optional
        Default: the shipped one.
    threads : int
    many : float
        With more than this share of the pixels in crowds all are looked at.
    """
    ratios, out = first, None
    for _ in range(2):
        suspects = np.flatnonzero(~trusted_of(ratios, rate) & np.isfinite(ratios))
        crowded = crowds(light.shape, suspects, below_surroundings(light, suspects), rate)
        if crowded is None:
            return out
        if np.count_nonzero(crowded) > many * crowded.size:  # there are more than those that stand so close
            crowded[...] = True
        looked = (net or shipped_crowds()).looked_again(light, ratios, rate, crowded, threads)
        before = looked if out is None else np.where(np.isfinite(out), out, looked)
        out = np.where(crowded, (looked + before) / 2, np.float32(np.nan))
        ratios = np.where(crowded, looked, ratios)
    return out
