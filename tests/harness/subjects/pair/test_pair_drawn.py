"""Data of a pair, drawn number by number as their page says, beside what is drawn at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from kvparity.core.rng import normal, stream, uniform
from kvparity.subjects.pair.data import MIXED, Drawing, DrawnShape, Mixture


@cache
def chance(seed: int, name: str, purpose: str, counter: int) -> float:
    return float(uniform(stream(seed, name, purpose), torch.tensor([counter])))


@dataclass(frozen=True)
class Head:
    """One head of keys: its special channels and their signed sizes."""

    outliers: list[tuple[int, float]]
    extreme: int
    biased: int
    sign: float
    far: bool


@dataclass(frozen=True)
class Loop:
    """One number after the other, with nothing but Python's floats."""

    shape: DrawnShape
    mixture: Mixture
    name: str

    def head(self, head: int) -> Head:
        dim, seed = self.shape.dim, self.shape.seed
        count = 2 if dim >= 16 else 1
        order = sorted(range(dim), key=lambda c: chance(seed, "heads", "channels", head * dim + c))
        signs = [
            -1.0 if chance(seed, "heads", "signs", head * (count + 1) + i) < 0.5 else 1.0
            for i in range(count + 1)
        ]
        sizes = [5 * 4 ** chance(seed, "heads", "sizes", head * count + i) for i in range(count)]
        outliers = [(order[i], sizes[i] * signs[i + 1]) for i in range(count)]
        far = self.mixture.extreme and head % 2 == stream(seed, self.name, "turn") & 1
        return Head(outliers, order[count], order[count + 1], signs[0], far)

    def key(self, head: int, position: int, x: list[float]) -> list[float]:
        about = self.head(head)
        if self.mixture.sink:
            sized = {c: 0.0 if position == 0 else s * (1 + x[c] / 64) for c, s in about.outliers}
            x = [sized.get(c, x[c] * (0.25 if position == 0 else 1)) for c in range(len(x))]
        if about.far:
            drawn = chance(
                self.shape.seed, self.name, "extreme key", position * self.shape.heads + head
            )
            x[about.extreme] = about.sign * 8 * (188 + math.floor(62 * drawn))
        return x

    def value(self, head: int, position: int, x: list[float]) -> list[float]:
        about = self.head(head)
        if self.mixture.biased:
            x[about.biased] = (3.25 + x[about.biased] / 8) * about.sign
        if self.mixture.sink and position == 0 and not about.far:
            x = [each / 8 for each in x]
        return [min(max(each, -3.9375), 3.9375) for each in x]

    def query(self, head: int, position: int, x: list[float]) -> list[float]:
        shape, mixture = self.shape, self.mixture
        about = self.head(head // (shape.queries // shape.heads))
        drawn = 16 * chance(shape.seed, self.name, "kind of q", position * shape.queries + head)
        kind, more = int(drawn), drawn % 1
        length, lowered, side = 1.0, 0.0, 0.0
        odd = stream(shape.seed, self.name, "turn") >> 1 & 1
        if not (mixture.plain and (position + head + odd) % 2 == 0):
            if kind < 6 and mixture.sink:
                length = (0.25, 0.5, 1.0)[kind % 3]
                lowered = math.log(1 + position) - 1 + 5 * more
            elif kind >= 10 and about.far:
                length, side = 0.0, (-1.0, -1.0, 1.0)[(kind - 10) % 3]
            elif kind >= 6 and mixture.wide:
                length = (4.0, 8.0, 16.0)[(kind - (10 if kind >= 10 else 6)) % 3]
                lowered = 32 * more
        x = [length * each for each in x]
        if mixture.sink:  # a dot with all outliers over the root of dim: each its share of -lowered
            for c, size in about.outliers:
                x[c] = -lowered * shape.dim**0.5 / len(about.outliers) / size
        if mixture.extreme:
            x[about.extreme] = side * (34 + math.floor(14 * more))
        return x


MIXTURES = {"all": MIXED} | {
    f"no {part}": replace(MIXED, **{part: False})
    for part in ("plain", "wide", "sink", "extreme", "biased")
}
POSITIONS = [*range(14), 100, 4097]


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize(("queries", "heads", "dim"), [(4, 2, 16), (3, 3, 4)])
def test_what_is_drawn_at_once_is_what_is_drawn_number_by_number(
    queries: int, heads: int, dim: int, mixture: str
) -> None:
    shape = DrawnShape(5, queries, heads, dim, torch.device("cpu"))
    for name in "abc":  # of which heads and rows take other turns
        loop, drawing = Loop(shape, MIXTURES[mixture], name), Drawing(shape, MIXTURES[mixture])
        for part, count, make in (
            ("q", queries, loop.query), ("k", heads, loop.key), ("v", heads, loop.value),
        ):  # fmt: skip
            positions = torch.tensor(POSITIONS)
            plain = normal(stream(5, name, part), positions, count * dim).view(-1, count, dim)
            wanted = [
                [make(h, p, plain[i, h].tolist()) for h in range(count)]
                for i, p in enumerate(POSITIONS)
            ]
            found = drawing.draw(part, name, positions)
            assert found.dtype == torch.float64
            exact = torch.tensor(wanted, dtype=torch.float64)
            assert torch.allclose(found, exact, rtol=1e-12, atol=1e-12), (name, part)


@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("mixture", [None, MIXED])
def test_without_a_mixture_or_room_for_one_they_are_normals(
    mixture: Mixture | None, sharp: bool
) -> None:
    shape = DrawnShape(5, 4, 2, 3 if mixture else 8, torch.device("cpu"))
    drawing, positions = Drawing(shape, mixture, sharp), torch.tensor(POSITIONS)
    for part, count in (("q", 4), ("k", 2), ("v", 2)):
        plain = normal(stream(5, "a", part), positions, count * shape.dim)
        factors = [
            4 ** int(4 * chance(5, "a", "length of q", p)) if sharp and part == "q" else 1
            for p in POSITIONS
        ]
        wanted = plain * torch.tensor(factors, dtype=torch.float64)[:, None]
        assert torch.equal(drawing.draw(part, "a", positions).flatten(1), wanted)
