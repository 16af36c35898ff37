"""Rows of a prompt that are compared: which are chosen, what is said of them, who cannot."""

from __future__ import annotations

from typing import Any

import pytest
from one_key import changed

from kvparity_contracts.chosen import choose, places, told
from kvparity_contracts.contract import Contract
from kvparity_contracts.draws import CutEdge, DrawMeans
from kvparity_contracts.workloads import ChosenRows, Workload

TILE, WINDOW = CutEdge("tile", 64), CutEdge("window", 100, once=True)


@pytest.mark.parametrize(
    ("edge", "stop", "found"),
    [
        (TILE, 1_000, [64, 128, 256, 512, 960]),
        (TILE, 513, [64, 128, 256, 512]),
        (TILE, 512, [64, 128, 256, 448]),
        (TILE, 65, [64]),
        (TILE, 64, []),
        (WINDOW, 1_000, [100]),
        (WINDOW, 100, []),
    ],
)
def test_edges_are_looked_at_ever_farther_out(edge: CutEdge, stop: int, found: list[int]) -> None:
    assert places(edge, stop) == found


def chosen(length: int = 300, seed: int = 0, name: str = "w/0", **rows: Any) -> tuple[int, ...]:
    load = Workload(name="w", prompt_tokens=(length,), generate=2, rows=ChosenRows(**rows))
    return choose(load, length, name, seed, DrawMeans((TILE, WINDOW), block=16))


def test_both_sides_of_each_edge_and_rows_of_the_seed() -> None:
    edges = chosen()
    # Tiles at 64, 128, 256; the window at 100; blocks of queries at 16, 32, ... and 288.
    sides = {each + side for each in (16, 32, 64, 100, 128, 256, 288) for side in (-1, 0)}
    assert edges == tuple(sorted(sides))
    drawn = chosen(edges=False, random=7)
    assert len(drawn) == 7
    assert max(drawn) < 299  # the last row of the prompt generates, and is compared anyway
    assert set(chosen(random=7)) == {*edges, *drawn}
    others = chosen(edges=False, random=7, seed=1), chosen(edges=False, random=7, name="w/1")
    assert len({drawn, *others}) == 3
    assert chosen(edges=False, random=7) == drawn


def test_no_more_rows_than_there_are() -> None:
    assert chosen(length=9, random=50) == tuple(range(8))
    assert chosen(length=1, random=50) == ()
    own = Workload(name="w", prompt_tokens=(9,), generate=2, rows=ChosenRows())
    first = DrawMeans((CutEdge("window", 1, once=True),), block=8)
    assert choose(own, 9, "w/0", 0, first) == (0, 1)


def with_rows(base: str, **changes: Any) -> dict[str, Any]:
    return changed(base, {"workloads.0.rows": {"random": 3}, **changes})


def test_a_contract_says_which_edges_are_reached() -> None:
    (note,) = told(
        Contract.model_validate(with_rows("pair", **{"workloads.0.prompt_tokens": [200]}))
    )
    assert note == (
        ("workloads", 0, "rows"),
        "w/0: 19 of 207 rows are compared: 4 of 6 edges of a tile of 32, at 32 to 192; "
        "3 of 3 edges of a split of 64, at 64 to 192; "
        "3 of 3 edges of a block of queries of 64, at 64 to 192; 3 by the seed; the last 8",
    )
    assert not list(told(Contract.model_validate(changed("pair", {}))))
    window = {"subject.window": 40, "workloads.0.prompt_tokens": [193, 194]}
    notes = [words for _, words in told(Contract.model_validate(with_rows("pair", **window)))]
    assert all("1 of 1 edges of a window of 40, at 40;" in words for words in notes)
    assert ["of 5 edges" in notes[0], "of 6 edges" in notes[1]] == [True, True]
    Contract.model_validate(with_rows("model"))  # invariance of a transformers model is compared


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("pair", {"subject.causal": False, "subject.order": None, "checks.0.paths": ["permuted"],
                  "workloads.0.generate": 2},
         "found rows, but rows of this pair see keys that are not before them"),
        ("decoder", {"checks.0.paths": ["decode", "reset"]},
         "found 'reset', but the workload w compares chosen rows, expected one of prefill"),
        ("decoder", {"checks.0.paths": ["uncached"]}, "found 'uncached', but the workload w"),
        ("decoder", {"checks.0.paths": ["random(2)"]}, r"found 'random\(2\)', but the workload w"),
        ("decoder", {"checks.0.reference": "uncached"}, "found 'uncached', but the workload w"),
        ("decoder", {"checks.+": {"name": "x", "relation": "liveness", "paths": ["decode"]}},
         "found 'liveness', which looks at all rows, but the workload w compares chosen rows"),
        ("model", {"checks.+": {"name": "x", "relation": "accuracy", "paths": ["decode"],
                                "limits": {"max_abs_dlogp": 0.1}}},
         "float64 of a transformers model holds all rows"),
    ],
)  # fmt: skip
def test_who_cannot_choose_rows_is_told_so(
    base: str, changes: dict[str, Any], message: str
) -> None:
    Contract.model_validate(changed(base, changes))  # without rows it is right
    with pytest.raises(ValueError, match=message):
        Contract.model_validate(with_rows(base, **changes))


@pytest.mark.parametrize("rows", [None, {"random": 3}])
def test_a_server_computes_every_row(rows: dict[str, int] | None) -> None:
    server = {"kind": "server", "api": "vllm", "url": "http://127.0.0.1:1", "vocabulary": 256}
    load = {"name": "w", "prompt_tokens": [3, 62], "generate": 8, "rows": rows}
    document = {
        "version": 1, "name": "c", "subject": server, "numerics": {"execution": "bfloat16"},
        "workloads": [load], "checks": [{"name": "bits", "relation": "invariance",
                                         "paths": ["decode"]}],
    }  # fmt: skip
    if rows is None:
        Contract.model_validate(document)
        return
    with pytest.raises(ValueError, match="found rows beside a subject of kind server"):
        Contract.model_validate(document)
