"""Floor 1. The colour filter array as a value.

A `Cfa` is the repeating tile of colours as seen from pixel (0, 0) of an array.
Everything that depends on the colours asks it: the strided view of one tile
position, the neighbours of the same colour, the pattern of a crop. A crop
shifts the phase in one place, `Cfa.shifted`.

Coordinates are (row, col), 0-based, of the array as stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .errors import UsageError

Offset = tuple[int, int]


@dataclass(frozen=True)
class Cfa:
    """A repeating colour tile, for example ``Cfa(("RG", "GB"))``.

    Parameters
    ----------
    tile : tuple of str
        Rows of one-letter colours, all of one length. ``("L",)`` is mono.
    """

    tile: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.tile or not self.tile[0] or len({len(row) for row in self.tile}) != 1:
            raise ValueError(f"not a rectangular CFA tile: {self.tile!r}")

    @property
    def period(self) -> tuple[int, int]:
        """Rows and columns after which the pattern repeats."""
        return len(self.tile), len(self.tile[0])

    @property
    def colours(self) -> tuple[str, ...]:
        """The distinct colours, in order of appearance."""
        return tuple(dict.fromkeys("".join(self.tile)))

    @property
    def is_mono(self) -> bool:
        return len(self.colours) == 1

    @property
    def is_bayer(self) -> bool:
        """True for a 2 x 2 tile with two greens on a diagonal."""
        if self.period != (2, 2):
            return False
        a, b, c, d = tuple("".join(self.tile))
        return (a == d != b != c) or (b == c != a != d)

    @property
    def name(self) -> str:
        """The name that `parse` understands: MONO, RGGB, XTRANS, or the letters."""
        if self.is_mono:
            return "MONO"
        return "XTRANS" if self == XTRANS else "".join(self.tile)

    @property
    def is_grid(self) -> bool:
        """Whether the pixels of a tile position are the nearest ones of their colour, or as good: mono and Bayer."""
        return self.is_mono or self.is_bayer

    @property
    def family(self) -> str:
        """The name of the pattern in its first phase: MONO, RGGB, XTRANS, QUAD_RGGB; `name` of any other."""
        if self.is_bayer:
            return "RGGB"
        return next((name for name, phases in _families().items() if self in phases), self.name)

    def colour(self, row: int, col: int) -> str:
        """Colour of pixel (row, col); negative coordinates count from before the origin."""
        rows, cols = self.period
        return self.tile[row % rows][col % cols]

    def shifted(self, row: int, col: int) -> Cfa:
        """The pattern seen by a crop whose pixel (0, 0) was at (row, col)."""
        rows, cols = self.period
        return Cfa(tuple("".join(self.colour(row + r, col + c) for c in range(cols)) for r in range(rows)))

    def flipped_rows(self, height: int) -> Cfa:
        """The pattern of the array turned upside down, for an array of `height` rows."""
        rows, cols = self.period
        return Cfa(tuple("".join(self.colour(height - 1 - r, c) for c in range(cols)) for r in range(rows)))

    @property
    def positions(self) -> tuple[Offset, ...]:
        """All tile positions, row by row."""
        rows, cols = self.period
        return tuple((r, c) for r in range(rows) for c in range(cols))

    @property
    def alike(self) -> tuple[tuple[Offset, ...], ...]:
        """The tile positions in groups around which the pattern is the same: in X-Trans two each, else one."""
        return _alike(self)

    def neighbours(self, row: int, col: int, radius: int) -> tuple[Offset, ...]:
        """Offsets (drow, dcol) of same-colour pixels in the square of `radius`, nearest first."""
        return _neighbours(self, row % self.period[0], col % self.period[1], radius)

    def nearest(self, row: int, col: int, count: int) -> tuple[Offset, ...]:
        """The `count` nearest same-colour offsets of the smallest square, at least of the period, that holds so many.

        Ties are broken so that the set is symmetric if it can be.
        """
        radius = max(self.period)
        while len(found := self.neighbours(row, col, radius)) < count:
            radius += 1
        return found[:count]

    @classmethod
    def parse(cls, name: str) -> Cfa:
        """A CFA from a user's or a header's words.

        Understands MONO, GRAY, L; four Bayer letters; XTRANS; QUAD_RGGB; 16 or
        36 letters of a square tile, blanks and case ignored.

        Raises
        ------
        UsageError
            The name is not known.
        """
        text = "".join(name.split()).upper()
        if text in ("MONO", "MONOCHROME", "GRAY", "GREY", "L", "NONE"):
            return MONO
        if text in ("XTRANS", "X-TRANS"):
            return XTRANS
        if text.startswith(("QUAD_", "QUAD-")) and len(text) == 9:
            base = cls.parse(text[5:])
            return cls(tuple("".join(ch * 2 for ch in row) for row in base.tile for _ in range(2)))
        side = {4: 2, 16: 4, 36: 6}.get(len(text))
        if side and set(text) <= set("RGBCMYWLE"):
            cfa = cls(tuple(text[i * side : (i + 1) * side] for i in range(side)))
            if side != 2 or cfa.is_bayer or len(cfa.colours) >= 3:
                return cfa
        raise UsageError(
            f"unknown CFA {name!r}: use MONO, RGGB, GRBG, GBRG, BGGR, XTRANS, QUAD_RGGB, "
            "or the letters of a 4 x 4 or 6 x 6 tile"
        )


@cache
def _neighbours(cfa: Cfa, row: int, col: int, radius: int) -> tuple[Offset, ...]:
    colour = cfa.colour(row, col)
    found = [
        (dr, dc)
        for dr in range(-radius, radius + 1)
        for dc in range(-radius, radius + 1)
        if (dr or dc) and cfa.colour(row + dr, col + dc) == colour
    ]
    return tuple(sorted(found, key=lambda o: (o[0] ** 2 + o[1] ** 2, max(abs(o[0]), abs(o[1])), o)))


@cache
def _alike(cfa: Cfa) -> tuple[tuple[Offset, ...], ...]:
    groups: dict[Cfa, list[Offset]] = {}
    for position in cfa.positions:
        groups.setdefault(cfa.shifted(*position), []).append(position)
    return tuple(tuple(group) for group in groups.values())


@cache
def _families() -> dict[str, frozenset[Cfa]]:
    return {
        name: frozenset(cfa.shifted(r, c) for r, c in cfa.positions)
        for name, cfa in (("XTRANS", XTRANS), ("QUAD_RGGB", QUAD_RGGB))
    }


MONO = Cfa(("L",))
RGGB = Cfa(("RG", "GB"))
GRBG = Cfa(("GR", "BG"))
GBRG = Cfa(("GB", "RG"))
BGGR = Cfa(("BG", "GR"))
BAYER = (RGGB, GRBG, GBRG, BGGR)
XTRANS = Cfa(("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG"))
QUAD_RGGB = Cfa(("RRGG", "RRGG", "GGBB", "GGBB"))
