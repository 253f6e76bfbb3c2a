"""Floor 1. What a detector found in one plane: a probability of every pixel, or of the few that are in question."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .mosaic import Array, Float32
from .tiles import blocks


@dataclass(frozen=True, eq=False)
class Detection:
    """What a detector found in one plane.

    Of a frame with little damage a detector names the few pixels that it took for candidates; all others have
    the probability 0. Where it has an answer for every pixel, `of` keeps the whole image.

    Parameters
    ----------
    shape : (H, W)
    rate : float
        The estimated share of bad pixels, which served as the prior; 0 where it is not known.
    method : str
        What found them: ``rules``, ``unet`` or ``rules+unet``.
    pixels : (N,) int64 array
        Those in question, row * W + col, ascending.
    values : (N,) float32 array
        The probability that each of them is bad.
    image : (H, W) float32 array or None
        The probability of every pixel instead; then `pixels` and `values` are empty.
    """

    shape: tuple[int, int]
    rate: float = 0.0
    method: str = "rules"
    pixels: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    image: Float32 | None = None

    @classmethod
    def of(cls, probability: Float32, rate: float = 0.0, method: str = "rules") -> Detection:
        """A detection that has an answer for every pixel: (H, W) float32, 0 in masked borders and where NaN."""
        return cls((probability.shape[0], probability.shape[1]), rate, method, image=probability)

    @property
    def probability(self) -> Float32:
        """(H, W) float32: that each pixel is bad; 0 in masked borders and where samples are NaN.

        Made anew at each call where only some pixels are in question.
        """
        if self.image is not None:
            return self.image
        whole = np.zeros(self.shape, np.float32)
        whole.reshape(-1)[self.pixels] = self.values
        return whole

    def suspects(self, least: float) -> tuple[Array, Float32]:
        """The pixels of at least this probability: their flat places (N,) int64, ascending, and (N,) float32."""
        edge = np.float32(least)
        if float(edge) < least:  # the least single precision number that is not below it
            edge = np.nextafter(edge, np.float32(np.inf))
        if self.image is None:
            kept = self.values >= edge
            return self.pixels[kept], self.values[kept]
        places, start = [], 0
        for part in blocks(self.image):
            places.append(np.flatnonzero(part >= edge) + start)
            start += part.size
        pixels = np.concatenate(places) if places else np.empty(0, np.int64)
        return pixels, self.image.reshape(-1)[pixels]

    def shifted(self, shape: tuple[int, int], top: int, left: int) -> Detection:
        """The same for the whole frame of which this was the part that begins at (top, left); 0 outside of it."""
        if shape == self.shape:
            return self
        rows, cols = np.divmod(self.pixels, self.shape[1])
        image = None
        if self.image is not None:
            image = np.zeros(shape, np.float32)
            image[top : top + self.shape[0], left : left + self.shape[1]] = self.image
        return replace(self, shape=shape, pixels=(rows + top) * shape[1] + cols + left, image=image)
