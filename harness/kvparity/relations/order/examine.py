"""The order report: both sides of a pair at one number of keys."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from kvparity.core.bits import differing
from kvparity.relations.order.errors import NotMeasured
from kvparity.relations.order.parts import (
    DENOMINATOR,
    PRODUCTS,
    division_part,
    edges_part,
    key_part,
    tree_part,
    tried,
)
from kvparity.relations.order.replay import replay
from kvparity.relations.order.report import PARTS, Drawn, OrderReport, Part, Replayed
from kvparity.relations.order.sides import Side
from kvparity.relations.order.tree import SumTree
from kvparity.subjects.pair.subject import AttentionSubject

Progress = Callable[[str], None]


def order_report(
    subject: AttentionSubject,
    keys: int,
    *,
    batch: int = 1,
    rows: int | None = None,
    draws: int = 8,
    seed: int = 0,
    only: Collection[str] = PARTS,
    progress: Progress = lambda what: None,
) -> OrderReport:
    """Recover decode's orders at ``keys`` keys and certify them against prefill's last row.

    Prefill computes ``rows`` query rows of each of the ``batch`` sequences, by default all
    ``keys`` of them; fewer are the last chunk of a chunked prefill, and cheaper where kernels are
    interpreted. ``draws`` random calls of both sides are compared bit for bit. ``only`` these parts
    are looked at, and reported.

    Raises:
        ValueError: there are fewer than three keys, or fewer are seen, or the rows do not fit.
        SubjectError: the pair raises or returns something else than it should.
    """
    rows = keys if rows is None else rows
    if keys < 3 or batch < 1 or draws < 1 or not 1 <= rows <= keys:
        raise ValueError(
            f"{keys} keys, {rows} rows, {batch} sequences, {draws} draws; expected at least 3 keys "
            "and 1 of the others, and no more rows than keys"
        )
    decode = Side(subject, "decode", keys=keys, batch=batch, rows=1)
    prefill = Side(subject, "prefill", keys=keys, batch=batch, rows=rows)
    if decode.keys < 3:
        raise ValueError(f"a window of {decode.keys} keys has one order; expected at least 3")
    finders: tuple[tuple[str, Callable[[], Part]], ...] = (
        ("key order", lambda: key_part(decode, prefill)),
        ("denominator", lambda: tree_part(DENOMINATOR, decode, prefill)),
        ("products", lambda: tree_part(PRODUCTS, decode, prefill)),
        ("rescale edges", lambda: edges_part(decode, prefill)),
        ("division", lambda: division_part(decode, prefill)),
    )
    parts = {}
    for name, find in finders:
        if name in only:
            progress(f"{keys} keys: {name}")
            parts[name] = tried(name, find)
    progress(f"{keys} keys: random data")
    trees = parts["key order"].trees if "key order" in parts else {}
    replayed = []
    if "decode" in trees:
        replayed = [
            _replayed(decode, trees["decode"], seed),
            _replayed(prefill, trees.get("prefill", trees["decode"]), seed),
        ]
    return OrderReport(
        keys=keys,
        rows=rows,
        batch=batch,
        subject={
            **subject.describe(),
            "execution": str(subject.execution).removeprefix("torch."),
            "kv_cache": str(subject.kv_cache).removeprefix("torch."),
        },
        parts=tuple(parts.values()),
        replayed=tuple(replayed),
        drawn=_drawn(decode, prefill, draws, seed),
        first=decode.first,
        notes=tuple(dict.fromkeys((*decode.notes, *prefill.notes))),
    )


def _replayed(side: Side, tree: SumTree, seed: int) -> Replayed:
    if tree.fan_out > 2:
        # What a fused addition keeps of its terms has to be measured on the device that does it.
        reason = f"nodes add {tree.fan_out} terms at once; the adder's bits are not measured"
        return Replayed(side.which, 0, 0, reason)
    if side.format.name == "fp8_e4m3":
        reason = "numbers of fp8_e4m3 are so alike that few of their sums are rounded"
        return Replayed(side.which, 0, 0, reason)
    try:
        return Replayed(side.which, *replay(side, tree, seed=seed))
    except NotMeasured as reason:  # the cache's format does not hold the values
        return Replayed(side.which, 0, 0, str(reason))


def _drawn(decode: Side, prefill: Side, draws: int, seed: int) -> Drawn:
    """The same random normal q, k, v and sinks through both sides."""
    rng = torch.Generator().manual_seed(seed)
    equal = values = wrong = 0
    for _ in range(draws):
        before = rng.get_state()
        mine = decode.random(rng)
        rng.set_state(before)
        other = prefill.random(rng)
        unlike = int(differing(mine.out, other.out).sum())
        values += mine.out.numel()
        if mine.lse is not None and other.lse is not None:
            unlike += int(differing(mine.lse, other.lse).sum())
            values += mine.lse.numel()
        wrong += unlike
        equal += unlike == 0
    return Drawn(draws, equal, values, wrong)
