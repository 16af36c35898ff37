"""Queries, keys and values of a kernel pair: drawn as a trained model has them, or all alike.

Standard normals hide what trained models show: their scores span 10 where a model's span 80, no
row hangs on one key, and no product comes near the end of a format. Measured on SmolLM2-135M over
512 tokens of English, float32: the largest channel of a head's keys is 10 to 17 times the median
one; keys have a norm of 15 to 18 (median by layer), the first key 0.15 to 0.34 of it and its value
0.08 to 0.25; the first key takes 0.14 to 0.55 of the mass from layer 3 on; scores lie between -68
and 19; of 1 to 27 % of the rows one weight is over 0.9. Larger models go further: a key norm near
1,880 is reported in flashinfer-ai/flashinfer#4267, and Sun et al. 2024, "Massive activations in
large language models", found single channels in the thousands.

A mixture of five parts, by head, sequence and position:

``plain``
    Every other row has a standard normal query, so that it weighs all keys about alike: what only
    the order of many additions shows.
``wide``
    Queries 4, 8 or 16 times as long: scores over a range of 80 and more, rows that hang on one key
    or few, a running maximum that jumps.
``sink``
    Outlier channels of the keys, 5 to 20 times the others, fixed by head. The first key lacks them
    and is small; queries that point against them leave it most of the mass, and the others a long
    flat tail. Where no key is extreme, the first value is small, too.
``extreme``
    Keys of norms from 1,500 to 2,000, in every other head of a sequence, from one channel; three
    rows in sixteen look at that channel alone, from either side: scores of a few thousand.
``biased``
    One channel of the values lies around 3.25, fixed by head: what low precision loses of a sum
    whose terms do not cancel.

What a row sees of the extreme channel is exact in float32, and no value is 4 or more, so that a
right pair stays within half a unit of bfloat16's last place there, 0.0078, however it hangs.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kvparity.core.rng import normal, stream, uniform

MOST = 3.9375
"""No value is larger: above 4, half a unit in the last place of bfloat16 is 0.0156."""
SMALL_KEY, SMALL_VALUE = 0.25, 0.125
"""Of the first key and its value, as a share of what the others are like."""
BIAS = 3.25
STEADY = 1 / 64
"""Spread of an outlier channel over its size: all keys have it alike, so the softmax ignores it."""


@dataclass(frozen=True)
class Mixture:
    """Which parts are drawn; without one, its rows and channels are plain ones."""

    plain: bool = True
    wide: bool = True
    sink: bool = True
    extreme: bool = True
    biased: bool = True


MIXED = Mixture()
"""All parts."""


@dataclass(frozen=True)
class Channels:
    """Special channels of KV heads, as columns of ``[heads * dim]``.

    ``outlier`` int64 and ``size`` float64 ``[heads, outliers]``; ``extreme``, ``biased`` int64
    ``[heads]``, ``sign`` float64 ``[heads]`` of both.
    """

    outlier: Tensor
    size: Tensor
    extreme: Tensor
    biased: Tensor
    sign: Tensor


@dataclass(frozen=True)
class DrawnShape:
    """What every draw has in common: a seed, heads of queries, of keys and values, channels."""

    seed: int
    queries: int
    heads: int
    dim: int
    device: torch.device

    @property
    def room(self) -> bool:
        """Whether a head has channels enough to make some of them special."""
        return self.dim >= 4


@lru_cache(maxsize=64)
def channels(shape: DrawnShape) -> Channels:
    """The channels of every head: a function of seed and head, so of no sequence or position."""
    outliers = 2 if shape.dim >= 16 else 1
    head = torch.arange(shape.heads, device=shape.device)[:, None]

    def drawn(purpose: str, width: int) -> Tensor:
        lane = torch.arange(width, device=shape.device)
        return uniform(stream(shape.seed, "heads", purpose), head * width + lane)

    column = torch.argsort(drawn("channels", shape.dim), dim=1) + shape.dim * head
    size = 5 * 4.0 ** drawn("sizes", outliers)
    signs = torch.where(drawn("signs", outliers + 1) < 0.5, -1.0, 1.0).double()
    return Channels(
        outlier=column[:, :outliers],
        size=size * signs[:, 1:],
        extreme=column[:, outliers],
        biased=column[:, outliers + 1],
        sign=signs[:, 0],
    )


@dataclass(frozen=True)
class QueryKind:
    """One kind of query: ``length`` times a standard normal one.

    It lowers the scores of keys that have the outliers by ``by_keys`` times the logarithm of their
    number, and by ``lowered`` to ``lowered + more``. It is ``extreme`` times 34 to 47 in the
    extreme channel.
    """

    length: float = 1.0
    by_keys: float = 0.0
    lowered: float = 0.0
    more: float = 0.0
    extreme: float = 0.0


KINDS = 16
"""Rows that are not plain draw one of so many kinds, all as likely."""


def _kinds(mixture: Mixture, *, extreme: bool) -> list[QueryKind]:
    """The kinds where keys are ``extreme`` or not; behind them the plain one."""
    plain = QueryKind()
    wide = (
        [QueryKind(length, more=32.0) for length in (4.0, 8.0, 16.0)] if mixture.wide else [plain]
    )
    sink = (
        [QueryKind(length, 1.0, -1.0, 5.0) for length in (0.25, 0.5, 1.0)]
        if mixture.sink
        else [plain]
    )
    far = [QueryKind(0.0, extreme=side) for side in (-1.0, -1.0, 1.0)] if extreme else wide
    parts = ((sink, 6), (wide, 4), (far, 6))
    return [part[i % len(part)] for part, count in parts for i in range(count)] + [plain]


@dataclass(frozen=True)
class Queries:
    """How queries of a shape are made.

    ``kinds`` float64 ``[2, KINDS + 1, 5]``: a ``QueryKind`` where keys are not extreme, and are.
    ``head`` int64 ``[queries]``. ``far`` int64 ``[2, queries]``: by turn, whether its keys are
    extreme. ``outlier`` int64 and ``against`` float64 ``[queries, outliers]``: columns, and what
    lowers a score by 1 there. ``extreme`` int64 ``[queries]``: columns.
    """

    kinds: Tensor
    head: Tensor
    far: Tensor
    outlier: Tensor
    against: Tensor
    extreme: Tensor


@lru_cache(maxsize=64)
def _queries(shape: DrawnShape, mixture: Mixture) -> Queries:
    special = channels(shape)
    kinds = [[astuple(row) for row in _kinds(mixture, extreme=far)] for far in (False, True)]
    head = torch.arange(shape.queries, device=shape.device)
    owner = head // (shape.queries // shape.heads)
    moved = (head - owner) * shape.dim
    size = special.size[owner]
    return Queries(
        kinds=torch.tensor(kinds, dtype=torch.float64, device=shape.device),
        head=head,
        far=torch.stack([(owner % 2 == turn) & mixture.extreme for turn in (0, 1)]).long(),
        outlier=(special.outlier[owner] + moved[:, None]).flatten(),
        against=-(shape.dim**0.5) / size.shape[1] / size,
        extreme=special.extreme[owner] + moved,
    )


@dataclass(frozen=True)
class Drawing:
    """Draws the data of one shape.

    ``mixture``: None for standard normals throughout, with ``sharp`` queries 1, 4, 16 or 64 times
    as long by position. Heads of fewer than four channels have no room for a mixture.
    """

    shape: DrawnShape
    mixture: Mixture | None = MIXED
    sharp: bool = False

    def draw(self, part: str, name: str, positions: Tensor) -> Tensor:
        """Float64 ``[n, heads of the part, dim]`` of ``q``, ``k`` or ``v`` at int64 positions."""
        shape = self.shape
        heads = shape.queries if part == "q" else shape.heads
        flat = normal(stream(shape.seed, name, part), positions, heads * shape.dim)
        if self.mixture is None or not shape.room:
            if part == "q" and self.sharp:
                lengths = uniform(stream(shape.seed, name, "length of q"), positions)
                flat *= (4.0 ** torch.floor(4 * lengths))[:, None]  # powers of two round nothing
        else:
            make = {"q": self._queries, "k": self._keys, "v": self._values}[part]
            make(flat, self.mixture, name, positions)
        return flat.view(-1, heads, shape.dim)

    def _turn(self, name: str) -> tuple[int, int]:
        """Two bits of a sequence: in which heads keys are extreme, in which rows queries plain."""
        bits = stream(self.shape.seed, name, "turn")
        return bits & 1, bits >> 1 & 1

    def _extreme(self, mixture: Mixture, name: str) -> slice:
        """The heads whose keys are extreme in this sequence: every other one."""
        return slice(self._turn(name)[0], None, 2) if mixture.extreme else slice(0)

    def _queries(self, flat: Tensor, mixture: Mixture, name: str, positions: Tensor) -> None:
        shape, of = self.shape, _queries(self.shape, mixture)
        turn, row = self._turn(name), positions[:, None]
        place = row * shape.queries + of.head
        drawn = uniform(stream(shape.seed, name, "kind of q"), place).mul_(KINDS)
        kind = drawn.long()
        more = drawn.sub_(kind)  # the bits of the number that did not choose
        if mixture.plain:
            kind = torch.where((row + (of.head + turn[1])) % 2 == 0, KINDS, kind)
        length, by_keys, lowered, much, extreme = of.kinds[of.far[turn[0]], kind].unbind(-1)
        flat.view(-1, shape.queries, shape.dim).mul_(length[..., None])
        if mixture.sink:
            lowered = lowered + much * more + by_keys * torch.log1p(row.double())
            flat[:, of.outlier] = (lowered[..., None] * of.against).flatten(1)
        if mixture.extreme:
            flat[:, of.extreme] = extreme * (34 + torch.floor(14 * more))

    def _keys(self, flat: Tensor, mixture: Mixture, name: str, positions: Tensor) -> None:
        shape, special = self.shape, channels(self.shape)
        if mixture.sink:
            where = special.outlier.flatten()
            outliers = special.size.flatten() * (1 + STEADY * flat[:, where])
            first = positions == 0
            if bool(first.any()):
                outliers[first] = 0.0
                flat[first] *= SMALL_KEY
            flat[:, where] = outliers
        if mixture.extreme:
            heads = self._extreme(mixture, name)
            head = torch.arange(shape.heads, device=shape.device)[heads]
            place = positions[:, None] * shape.heads + head
            among = uniform(stream(shape.seed, name, "extreme key"), place)
            size = among.mul_(62).floor_().add_(188).mul_(8)  # 1504 to 1992, exact in 8 bits
            flat[:, special.extreme[heads]] = size.mul_(special.sign[heads])

    def _values(self, flat: Tensor, mixture: Mixture, name: str, positions: Tensor) -> None:
        shape, special = self.shape, channels(self.shape)
        if mixture.biased:
            where = special.biased
            flat[:, where] = (BIAS + flat[:, where] / 8) * special.sign
        first = positions == 0
        if mixture.sink and bool(first.any()):
            small = torch.full((shape.heads,), SMALL_VALUE, dtype=flat.dtype, device=flat.device)
            small[self._extreme(mixture, name)] = 1.0
            flat[first] *= small.repeat_interleave(shape.dim)
        flat.clamp_(-MOST, MOST)
