"""One thing wrong with raw tensors, at a place that is drawn; ``FAULTS`` and ``CACHE_FAULTS``.

A fault of ``FAULTS`` says which paths must then differ from prefill: in ``tokens`` (logprobs), or
in whole ``rows`` alone, so that a fault that shows nothing is noticed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from played import INDEX, LENGTHS, POSITIONS, STARTS, VOCAB, Tables
from torch import Tensor

Plant = Callable[[Tables, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """``tokens``, ``rows``: the paths whose logprobs, or whose rows, must differ from prefill's."""

    plant: Plant
    tokens: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.plant.__name__

    def planted(self, seed: int) -> Tables:
        """Tables with this fault; every seed is another place."""
        tables = Tables.equal(seed)
        self.plant(tables, random.Random(f"{self.name} {seed}"))
        return tables


def nudge(x: Tensor, *place: int) -> None:
    """One ulp, away from zero."""
    x.view(torch.int32)[place] += 1


def row_of(draw: random.Random) -> int:
    return draw.randrange(len(INDEX))


def nothing(tables: Tables, draw: random.Random) -> None:
    """All paths are equal."""


def ulp_in_every_row(tables: Tables, draw: random.Random) -> None:
    """One ulp in one column of each row, as another order of additions leaves it."""
    for row in range(len(INDEX)):
        column = draw.choice(tables.rows["decode"][row].topk(3).indices.tolist())
        nudge(tables.rows["decode"], row, column)


def hidden_column(tables: Tables, draw: random.Random) -> None:
    """One ulp in a column that no logprob of another one knows of."""
    nudge(tables.rows["decode"], row_of(draw), VOCAB - 1)


def other_zero(tables: Tables, draw: random.Random) -> None:
    """-0 where the others have +0: the logprobs are the same."""
    tables.rows["batched"][row_of(draw), VOCAB - 2] = -0.0


def nan_on_both_sides(tables: Tables, draw: random.Random) -> None:
    """A NaN of the same bits at the same place."""
    row, column = row_of(draw), draw.randrange(VOCAB)
    for name in ("prefill", "padded-left"):
        tables.rows[name][row, column] = torch.nan


def last_row(tables: Tables, draw: random.Random) -> None:
    tables.rows["padded-left"][-1] *= 1.25


def first_of_last_sequence(tables: Tables, draw: random.Random) -> None:
    row = [s for s, _ in INDEX].index(len(LENGTHS) - 1)
    tables.rows["batched"][row, :4] += 0.5


def far_off(tables: Tables, draw: random.Random) -> None:
    """So far that a difference of two logprobs is rounded in float32, and one ratio clipped."""
    for row in range(len(INDEX)):
        tables.rows["prefill"][row, : VOCAB - 2] *= 1.7 + draw.random()


def one_way(tables: Tables, draw: random.Random) -> None:
    """Prefill is surer of every token, so that d has one sign."""
    tables.rows["prefill"] *= 1.1


def far_from_float64(tables: Tables, draw: random.Random) -> None:
    """One row is so far from float64 that its ratio is clipped at any temperature."""
    tables.exact[row_of(draw), : VOCAB - 2] *= 1.9


ALL = ("decode", "batched", "padded-left")
FAULTS = (
    Fault(nothing),
    Fault(ulp_in_every_row, tokens=("decode",), rows=("decode",)),
    Fault(hidden_column, rows=("decode",)),
    Fault(other_zero, rows=("batched",)),
    Fault(nan_on_both_sides, tokens=ALL, rows=ALL),
    Fault(last_row, tokens=("padded-left",), rows=("padded-left",)),
    Fault(first_of_last_sequence, tokens=("batched",), rows=("batched",)),
    Fault(far_off, tokens=ALL, rows=ALL),
    Fault(one_way, tokens=ALL, rows=ALL),
)


def place_of(draw: random.Random, *, layer: int | None = None) -> tuple[int, int]:
    """(layer, position): a position that every path fills."""
    sequence = draw.randrange(len(LENGTHS))
    position = STARTS[sequence] + draw.randrange(LENGTHS[sequence] - 1)
    return draw.randrange(3) if layer is None else layer, position


def one_v(tables: Tables, draw: random.Random) -> None:
    """Another v is read than was written."""
    nudge(tables.held["decode"].v, *place_of(draw), draw.randrange(4), draw.randrange(2))


def one_k_of_the_reference(tables: Tables, draw: random.Random) -> None:
    nudge(tables.held["prefill"].k, *place_of(draw), draw.randrange(4), draw.randrange(2))


def both_read_another_v(tables: Tables, draw: random.Random) -> None:
    """The two sides hold the same, and neither what was written."""
    where = (*place_of(draw), draw.randrange(4), draw.randrange(2))
    for path in ("prefill", "decode"):
        nudge(tables.held[path].v, *where)


def v_of_layer_1(tables: Tables, draw: random.Random) -> None:
    """Written and read alike, and not what prefill holds."""
    where = (*place_of(draw, layer=1), draw.randrange(4), draw.randrange(2))
    for cached in (tables.written["decode"], tables.held["decode"]):
        nudge(cached.v, *where)


def k_of_the_last_head(tables: Tables, draw: random.Random) -> None:
    where = (*place_of(draw), 3, 1)
    for cached in (tables.written["decode"], tables.held["decode"]):
        nudge(cached.k, *where)


def last_layer(tables: Tables, draw: random.Random) -> None:
    for cached in (tables.written["decode"], tables.held["decode"]):
        cached.k[2] *= 1.5


def all_layers(tables: Tables, draw: random.Random) -> None:
    """k and v of one position, in every layer: the first layer's k is the one to show."""
    _, position = place_of(draw)
    for cached in (tables.written["decode"], tables.held["decode"]):
        for x in (cached.k, cached.v):
            x[:, position] *= 1.5


def two_layers(tables: Tables, draw: random.Random) -> None:
    """v of one position, in the first and the last layer: one position differs."""
    _, position = place_of(draw)
    for cached in (tables.written["decode"], tables.held["decode"]):
        cached.v[[0, 2], position] *= 1.5


def other_zero_of_v(tables: Tables, draw: random.Random) -> None:
    layer, position = place_of(draw)
    for each in (*tables.written.values(), *tables.held.values()):
        each.v[layer, position, 2, 1] = 0.0
    for cached in (tables.written["decode"], tables.held["decode"]):
        cached.v[layer, position, 2, 1] = -0.0


def last_position(tables: Tables, draw: random.Random) -> None:
    """The newest token that a rollout stores."""
    nudge(tables.held["decode"].v, 2, POSITIONS - 2, 3, 1)


def newest_lost(tables: Tables, draw: random.Random) -> None:
    sequence = draw.randrange(len(LENGTHS))
    tables.held["decode"].there[1, STARTS[sequence] + LENGTHS[sequence] - 2] = False


def never_written(tables: Tables, draw: random.Random) -> None:
    """A slot is held to which nothing was written."""
    sequence = draw.randrange(len(LENGTHS))
    tables.held["decode"].there[2, STARTS[sequence] + LENGTHS[sequence] - 1] = True


CACHE_FAULTS: tuple[Plant, ...] = (
    nothing,
    one_v,
    one_k_of_the_reference,
    both_read_another_v,
    v_of_layer_1,
    k_of_the_last_head,
    last_layer,
    all_layers,
    two_layers,
    other_zero_of_v,
    last_position,
    newest_lost,
    never_written,
)


def cached(plant: Plant, seed: int) -> Tables:
    """Tables with a fault of caches."""
    return Fault(plant).planted(seed)
