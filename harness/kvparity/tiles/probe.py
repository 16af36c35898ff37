"""Cases run under given tiles: their bits, and what was launched for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvparity.core.bits import differing
from kvparity.tiles.cases import AttentionCase, LinearCase, TileCase
from kvparity.tiles.data import ProbeBatch, batch, numbers
from kvparity_kernels import tiles
from kvparity_kernels.attention.launching import RowLimits
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import Tiles

Call = Callable[[ReductionOrder], tuple[Tensor, ...]]
DEFAULT = ReductionOrder()


@dataclass(frozen=True)
class TilesComputed:
    """By operation and case: ``results``, and constants and options of what was ``launched``."""

    results: dict[str, tuple[Tensor, ...]]
    launched: dict[str, list[dict[str, object]]]


@dataclass(frozen=True)
class BitsDifference:
    """How many numbers differ in bits, of how many, and where the first is, in words."""

    differing: int
    compared: int
    first: str | None


class TileProbe:
    """Cases in one format on one device, prepared once."""

    def __init__(self, cases: Sequence[TileCase], dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.calls: dict[str, Call] = {}
        self.reversed: dict[str, Call] = {}
        for case in cases:
            if isinstance(case, AttentionCase):
                self.calls |= _attention(case, dtype, device)
            else:
                self.calls |= _linear(case, dtype, device, False)
                self.reversed |= _linear(case, dtype, device, True)

    def touched(self, which: Tiles) -> dict[str, set[str]]:
        """By kernel, the operations that ``which`` may change. With ``skip_hidden`` that is both
        sides of attention, else a side that is named.
        """
        sides = {
            "prefill": which.prefill_block_m or which.prefill_warps or which.skip_hidden,
            "decode": which.decode_block_m or which.decode_warps or which.skip_hidden,
            "linear": which.linear,
        }
        starts = {"prefill": ("prefill", "chunks"), "decode": ("decode",), "linear": ("linear",)}
        found = {
            side: {name for name in self.calls if name.startswith(starts[side])}
            for side, touched in sides.items()
            if touched
        }
        return {side: names for side, names in found.items() if names}

    def run(
        self, which: Tiles, names: set[str] | None = None, order: ReductionOrder = DEFAULT
    ) -> TilesComputed:
        """Compute the named operations (None: all) under ``which``."""
        return _run(self.calls, which, names, order)

    def run_reversed(self, which: Tiles) -> TilesComputed:
        """Compute linear layers with their depth in reverse: other sums of the same products."""
        return _run(self.reversed, which, None, DEFAULT)


def _run(
    calls: dict[str, Call], which: Tiles, names: set[str] | None, order: ReductionOrder
) -> TilesComputed:
    from kvparity_kernels.launch import record

    results, launched = {}, {}
    for name, call in calls.items():
        if names is None or name in names:
            with tiles.using(which), record() as log:
                results[name] = call(order)
            launched[name] = [
                {key: value for key, value in facts.items() if key != "hash"}
                for facts in log.kernels.values()
            ]
    return TilesComputed(results, launched)


def compare(reference: TilesComputed, candidate: TilesComputed) -> BitsDifference:
    """The candidate's bits beside those of the reference, which may have computed more."""
    count, compared, first = 0, 0, None
    for name, parts in candidate.results.items():
        for number, (a, b) in enumerate(zip(reference.results[name], parts, strict=True)):
            apart = differing(a, b)
            compared += a.numel()
            if found := int(apart.sum()):
                count += found
                first = first or _place(name, number, a, b, apart)
    return BitsDifference(count, compared, first)


def finite(outcome: TilesComputed) -> bool:
    """Whether every number that was computed is one: NaN would hide what stands in its place."""
    return all(bool(part.isfinite().all()) for parts in outcome.results.values() for part in parts)


def _place(name: str, number: int, a: Tensor, b: Tensor, apart: Tensor) -> str:
    at = tuple(apart.nonzero()[0].tolist())
    part = "" if number == 0 else ", log-sum-exp"
    return f"{name}{part}, {list(at)}: {a[at].item()!r} became {b[at].item()!r}"


def _attention(case: AttentionCase, dtype: torch.dtype, device: torch.device) -> dict[str, Call]:
    from kvparity_kernels.attention import attend_decode, attend_prefill

    scale = case.dim**-0.5

    def limits(data: ProbeBatch, first: Tensor | None) -> RowLimits:
        return {
            "window": case.window,
            "softcap": case.softcap,
            "sinks": data.sinks,
            "first_key": first,
        }

    def prefill(data: ProbeBatch) -> Call:
        def call(order: ReductionOrder) -> tuple[Tensor, ...]:
            found = attend_prefill(
                data.q,
                data.kv,
                q_starts=data.starts,
                q_lens=data.lens,
                max_q=data.most_rows,
                order=order,
                scale=scale,
                **limits(data, data.first),
            )
            return tuple(torch.cat(list(_rows(part, data))) for part in found)

        return call

    def decode(data: ProbeBatch) -> Call:
        rows = data.starts.long()
        q = data.q[rows]
        first = None if data.first is None else data.first[rows]

        def call(order: ReductionOrder) -> tuple[Tensor, ...]:
            most = data.most_keys
            return attend_decode(
                q, data.kv, max_kv=most, order=order, scale=scale, **limits(data, first)
            )

        return call

    keys = list(case.keys)
    whole = [min(case.rows, length) for length in keys]
    # The last of a chunk is not the last of its sequence, and chunks begin anywhere in a tile.
    ends = [max(1, length - 1 - b % 5) for b, length in enumerate(keys)]
    some = [min(end, case.rows, 1 + (7 * b) % 23) for b, end in enumerate(ends)]
    ones = [1] * len(keys)
    return {
        f"prefill: {case.name}": prefill(batch(case, keys, whole, dtype, device)),
        f"chunks: {case.name}": prefill(batch(case, ends, some, dtype, device)),
        f"decode: {case.name}": decode(batch(case, keys, ones, dtype, device)),
        f"decode of one: {case.name}": decode(batch(case, keys[-1:], ones[:1], dtype, device)),
    }


def _rows(part: Tensor, data: ProbeBatch) -> Iterator[Tensor]:
    """The rows that belong to a sequence."""
    for start, count in zip(data.starts.tolist(), data.lens.tolist(), strict=True):
        yield part[start : start + count]


def _linear(
    case: LinearCase, dtype: torch.dtype, device: torch.device, backwards: bool
) -> dict[str, Call]:
    from kvparity_kernels.linear import linear

    x = numbers("x", (max(case.rows), case.depth), -6, 4)
    w = numbers("w", (case.columns, case.depth), -10, 0)
    if backwards:
        x, w = x.flip(1), w.flip(1)
    x, w = (each.to(dtype).to(device) for each in (x, w))
    bias = numbers("bias", (case.columns,), -8, 2).to(dtype).to(device) if case.bias else None

    def call(order: ReductionOrder, rows: int) -> tuple[Tensor, ...]:
        wide = torch.float32 if case.wide else None
        return (linear(x[:rows], w, bias, order=order, out_dtype=wide),)

    def of(rows: int) -> Call:
        return lambda order: call(order, rows)

    return {f"linear of {rows}: {case.name}": of(rows) for rows in case.rows}
