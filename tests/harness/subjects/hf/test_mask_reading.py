"""What is read from a mask, against plain lists: every field, and every mask with one flag turned.

A row of a batch is a list of columns, real or pads; position p is that of its p-th real column.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from mask_batches import BATCHES, Batch
from transformers import StaticLayer
from transformers_masks import causal, make_mask, window

from kvparity.subjects.base import UnsupportedError
from kvparity.subjects.hf import mask as masks
from kvparity.subjects.hf.run_counts import Observation, observing


def expected(batch: Batch, flags: Any) -> dict[str, Any] | None:
    """The fields of what is seen, None where rows see anything but real keys up to their own."""
    found: dict[str, Any] = {name: [] for name in ("q_lens", "kv_lens", "own", "firsts", "slots")}
    starts, begins, solid = [], [], True
    for row in range(len(batch.rows)):
        held = [s for s in range(batch.first + batch.queries) if batch.real(row, s)]
        gone = batch.position(row, batch.begin)
        own, firsts = [], []
        for query in range(batch.queries):
            seen = [s for s in range(batch.keys) if flags[row][0][query][s]]
            slot = batch.first + query
            if slot not in seen:
                own, firsts = [*own, -1], [*firsts, 0]
                continue
            if seen[0] not in held or slot not in held:
                return None
            if seen != held[held.index(seen[0]) : held.index(slot) + 1]:
                return None
            own.append(gone + held.index(slot))
            firsts.append(gone + held.index(seen[0]))
        computed = [query for query, position in enumerate(own) if position >= 0]
        if computed and computed[-1] - computed[0] + 1 != len(computed):
            return None
        length = max(own) + 1
        used = held[: max(0, length - gone)]
        solid = solid and not gone and used == list(range(used[0], used[-1] + 1) if used else [])
        begins.append(computed[0] if computed else 0)
        starts.append(used[0] if used else 0)
        for name, value in (("q_lens", len(computed)), ("kv_lens", length), ("own", own)):
            found[name].append(value)
        found["firsts"].append(firsts)
        found["slots"].append([0] * gone + used)
    longest = max(found["kv_lens"])
    found["slots"] = [(each + [0] * longest)[:longest] for each in found["slots"]]
    gone = max(batch.position(row, batch.begin) for row in range(len(batch.rows)))
    return found | {
        "q_starts": begins,
        "starts": starts if solid else None,
        "solid": solid,
        "queries": batch.queries,
        "keys": batch.keys,
        "first": batch.first,
        "max_kv": longest,
        "all_real": all(position >= 0 for each in found["own"] for position in each),
        "before": batch.first > 0 or gone > 0,
    }


def told(visible: masks.VisibleKeys) -> dict[str, Any]:
    fields = {name: value for name, value in vars(visible).items() if name != "_windows"}
    found = {
        name: value.tolist() if isinstance(value, torch.Tensor) else value
        for name, value in fields.items()
    }
    return found if visible.solid else found | {"starts": None}  # of use to nobody then


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_every_field_is_that_of_plain_lists(batch: Batch) -> None:
    flags = batch.mask()
    visible, wanted = batch.read(flags), expected(batch, flags.tolist())
    assert wanted is not None
    assert told(visible) == wanted
    for size in range(8):
        seen = [
            first == (max(0, own - size + 1) if size else 0)
            for each, others in zip(wanted["own"], wanted["firsts"], strict=True)
            for own, first in zip(each, others, strict=True)
            if own >= 0
        ]
        assert visible.is_window(size) == all(seen), size
        assert visible.is_window(size) == all(seen), f"{size} again"


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_one_flag_turned_is_read_or_refused(batch: Batch) -> None:
    flags, outcomes = batch.mask(), set()
    for place in product(*(range(n) for n in flags.shape)):
        flags[place] = ~flags[place]
        wanted = expected(batch, flags.tolist())
        outcomes.add(wanted is None)
        if wanted is None:
            with pytest.raises(UnsupportedError, match="do not end at their own key or have gaps"):
                batch.read(flags)
        else:
            assert told(batch.read(flags)) == wanted, place
        flags[place] = ~flags[place]
    assert True in outcomes or batch.keys == 1


@pytest.mark.parametrize(("first", "keys"), [(-1, 4), (2, 4), (3, 4), (0, 2)])
def test_queries_without_a_slot_of_their_own_are_refused(first: int, keys: int) -> None:
    flags = torch.ones(1, 1, 3, keys, dtype=torch.bool)
    with pytest.raises(UnsupportedError, match=f"of 3 queries would start at slot {first} of"):
        masks.read(flags, first)


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize(
    "batch",
    [b for b in BATCHES.values() if not b.chunk],
    ids=[n for n, b in BATCHES.items() if not b.chunk],
)
def test_what_transformers_builds_is_read_the_same(batch: Batch, version: str) -> None:
    """Its windows are counted in columns: where pads lie between keys there is none here."""
    first, count = batch.begin + batch.first, len(batch.rows[0])
    pads = torch.tensor([[mark == "#" for mark in row] for row in batch.rows])
    # transformers 4 says where the queries are, 5 how far they are off.
    more: dict[str, Any] = {"cache_position": torch.arange(first, count)}
    if version == "5" and hasattr(StaticLayer(1), "cumulative_length"):
        more = {"cache_position": None}
    for room in (0, 2):  # a mask of all that the cache may hold some day
        real = torch.nn.functional.pad(pads, (0, room)) if batch.said else None
        made = make_mask(
            batch.queries, batch.keys, first, real, kv_offset=batch.begin,
            mask_function=window(batch.window) if batch.window else causal, **more,
        )  # fmt: skip
        flags = batch.mask()
        assert told(masks.of(made)) == expected(batch, flags.tolist())


def test_a_prompt_begins_at_the_first_slot_where_nothing_else_is_said() -> None:
    here = {} if hasattr(StaticLayer(1), "cumulative_length") else {"cache_position": [0]}
    sizes = {"batch_size": 1, "q_length": 3, "kv_length": 5, "mask_function": causal, **here}
    batch = Batch(("###",), 3, 5, said=False)
    assert told(masks.of(masks.make(**sizes))) == expected(batch, batch.mask().tolist())


@pytest.mark.parametrize(
    "name", ["a chunk, room for more", "pads before", "a window", "a window that drops"]
)
def test_the_last_rows_are_read_as_a_batch_of_their_own(name: str) -> None:
    """And nothing else that is no such part, whatever it is."""
    batch = BATCHES[name]
    pads = torch.tensor([[mark == "#" for mark in row] for row in batch.rows])
    first = batch.begin + batch.first
    with observing(Observation()):
        made = make_mask(
            batch.queries, batch.keys, first, pads, kv_offset=batch.begin,
            mask_function=window(batch.window) if batch.window else causal,
        )  # fmt: skip
        flags = batch.mask()
        for count in range(1, batch.queries + 1):
            wanted = expected(replace(batch, queries=count), flags[:, :, -count:].tolist())
            assert told(masks.of(made[:, :, -count:])) == wanted
        longer = make_mask(batch.keys + 1, batch.keys + 1, 0)
        masks.current().masks.pop()
        vars(longer).clear()
        others: list[Any] = [None, "mask", flags, flags[0], flags[0, 0], flags[0, 0, 0], longer]
        for mask in others:
            with pytest.raises(UnsupportedError, match="did not pass on"):
                masks.of(mask)
