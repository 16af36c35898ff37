"""Where a control is planted: against a search through all places, and a table of contracts."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from one_key import Doc, changed
from test_one_key import AUDIT, SHORT, WINDOW, W, order

from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS, Control
from kvparity_contracts.paths import PathName
from kvparity_contracts.placing import Edge, WorkloadPart, edge_of, smallest
from kvparity_contracts.planning import LeftOut, fates

FEW, SEVERAL = CONTROLS["stale-slot"], replace(CONTROLS["padding-leaks"], generate=2)
PREFIX = replace(CONTROLS["ring-stale-on-reuse"], path=PathName("prefix", 8))
PATHS = "checks.0.paths"


def cut(edge: Edge, position: int) -> bool:
    """Whether a row at a position sees keys on both sides of an odd multiple of ``every``."""
    seen = range(max(position - edge.window + 1, 0), position + 1)
    return any(key % edge.every == 0 and key // edge.every % 2 for key in seen[1:])


def searched(
    control: Control, lengths: tuple[int, ...], generate: int, keys: int, edge: Edge | None
) -> WorkloadPart | None:
    """The same by looking at every prompt and every number of tokens."""
    taken = control.path.argument if control.path.kind == "prefix" else 0
    fitting = []
    for i, length in enumerate(lengths):
        for tokens in range(min(4, generate), generate + 1):
            enough = length + tokens - 1 >= keys
            if edge is not None:
                decoded = range(length, length + tokens - 1)
                enough = any(cut(edge, at) and at >= keys - 1 for at in decoded)
            if enough and length > (taken or 0):
                fitting.append((length + tokens, i, tokens))
    if generate < control.generate or not fitting:
        return None
    _, main, tokens = min(fitting)
    groups = []
    for group in combinations(range(len(lengths)), control.sequences):
        if main in group and len({lengths[i] for i in group}) == control.sequences:
            groups.append((sum(lengths[i] + tokens for i in group), group))
    return WorkloadPart(min(groups)[1], tokens, min(groups)[0]) if groups else None


@pytest.mark.parametrize("control", [FEW, SEVERAL, PREFIX], ids=["one", "two", "behind a prefix"])
@pytest.mark.parametrize("edge", [None, Edge(3, 4), Edge(9, 4), Edge(2, 1), Edge(40, 16)], ids=str)
def test_the_smallest_part_is_what_a_search_finds(control: Control, edge: Edge | None) -> None:
    found = 0
    for lengths in [(1,), (2,), (9,), (3, 1), (7, 7), (8, 10), (12, 3, 9), (30, 4), (16, 1, 1, 2)]:
        for generate in (1, 2, 3, 5, 9, 20):
            for keys in (2, 3, 9, 12, 33):
                part = smallest(control, lengths, generate, keys, edge)
                assert part == searched(control, lengths, generate, keys, edge), (
                    lengths, generate, keys,
                )  # fmt: skip
                found += part is not None
    assert found > 5


def test_scoring_takes_the_shortest_sequence_that_has_enough_tokens() -> None:
    control = CONTROLS["log-of-softmax"]

    def part(*lengths: int) -> WorkloadPart:
        found = smallest(control, lengths, 4, keys=1)
        assert found is not None
        return found

    assert part(61, 90, 62).sequences == (0,)  # 65, and 64 are compared behind the first
    assert part(60, 90, 70).sequences == (2,)
    assert part(9, 60, 4).sequences == (1,)  # none has enough: the longest
    assert {part(9).generate, part(90).generate} == {4}
    # What ranks them: enough tokens first, then the fewest; else the more, the better.
    ranked = [part(n).cost for n in (61, 62, 90, 4000, 60, 59, 1)]
    assert ranked == sorted(set(ranked))
    assert smallest(replace(control, generate=5), (90,), 4, keys=1) is None


EDGES: list[tuple[str, Doc, int, int, int]] = [
    # control, changes of the pair, one order, another order, the window
    ("split-by-batch", {"subject.window": 8}, 64, 32, 8),
    ("tile-by-query-count", {"subject.window": 8}, 32, 16, 8),
    ("tile-by-query-count", {"subject.window": 20,
                             "subject.order": {"split": 16, "tile": 16}}, 16, 32, 20),
    ("split-by-batch", {"subject.window": 8,
                        "subject.order": {"split": 32, "tile": 32}}, 32, 16, 8),
    ("split-by-batch", {"subject.window": 20, "subject.order": {"split": 16, "tile": 16}},
     16, 32, 20),
    ("split-by-batch", {"subject.window": 8, "subject.order": {"split": 128, "tile": 32}},
     128, 64, 8),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "own", "other", "window"), EDGES)
def test_an_edge_is_where_two_orders_cut_a_window_differently(
    name: str, changes: Doc, own: int, other: int, window: int
) -> None:
    edge = edge_of(CONTROLS[name], Contract.model_validate(changed("pair", changes)))
    assert edge is not None

    def differ(position: int) -> bool:
        inside = range(max(position - window + 1, 0) + 1, position + 1)
        return [k for k in inside if k % own == 0] != [k for k in inside if k % other == 0]

    for start in range(0, 200, 3):
        for stop in (start, start + 1, start + 30, start + 150):
            first = next((p for p in range(start, stop) if differ(p)), None)
            assert edge.first(start, stop) == first


def test_only_an_order_in_windows_alone_needs_an_edge() -> None:
    windowed = Contract.model_validate(changed("pair", {"subject.window": 8}))
    assert edge_of(FEW, windowed) is None
    assert edge_of(CONTROLS["split-by-batch"], Contract.model_validate(changed("pair", {}))) is None


def outcome(contract: Contract, relation: str = "") -> str:
    """What becomes of the one control of a contract, for one relation, in a line."""
    for fate in fates(contract):
        if relation in ("", fate.relation):
            if isinstance(fate, LeftOut):
                return fate.reason
            place = fate.place
            if place is None:
                return "in kernels"
            words = [place.check, place.workload, *map(str, place.sequences), f"+{place.generate}"]
            words += [str(place.reference), *["covered"] * place.covered, *["alone"] * place.alone]
            return " ".join(words)
    return "no fate"


SHARED = {W: None, "workloads.0.prompts": [[*range(33)], [*range(32), 9, 9]]}
MORE = {"name": "more", "relation": "invariance", "paths": ["batched"]}
TOLD = {"name": "told", "relation": "trace"}
PLACES: list[tuple[str, str, Doc, str]] = [
    ("stale-slot", "decoder", {}, "bits w 0 +4 prefill covered"),
    ("stale-slot", "decoder", {"workloads.0.generate": 3}, "bits w 0 +3 prefill covered"),
    ("stale-slot", "decoder", {"workloads.0.generate": 1},
     "no workload that is run can show it: it takes a sequence of at least 4 tokens, at least 2 "
     "generated"),
    ("stale-slot", "decoder", {PATHS: ["chunked(4)"]}, "bits w 0 +4 prefill"),
    ("stale-slot", "decoder", {"checks.0": TOLD, "checks.1": MORE}, "more w 0 +4 prefill"),
    ("stale-slot", "decoder", {"checks.0": {"name": "x", "relation": "accuracy",
                                                      "limits": {"max_abs_dlogp": 1.0}}},
     "the contract has no invariance check"),
    # A check that compares the control's path goes first, then the cheapest, then the first.
    ("stale-slot", "decoder", {"workloads.+": SHORT | {"prompt_tokens": [2]}, "checks.+": MORE,
                               "checks.0.workloads": ["w"]}, "bits w 0 +4 prefill covered"),
    ("stale-slot", "decoder", {"workloads.+": SHORT | {"prompt_tokens": [2]}},
     "bits short 0 +4 prefill covered"),
    ("stale-slot", "decoder", {"workloads.+": SHORT | {"prompt_tokens": [3]}},
     "bits w 0 +4 prefill covered"),
    ("stale-slot", "decoder", {"checks.+": MORE | {"paths": ["decode"]}},
     "bits w 0 +4 prefill covered"),
    ("split-by-batch", "decoder", {}, "bits w 1 +4 prefill"),
    ("split-by-batch", "decoder", {f"{PATHS}.+": "batched"}, "bits w 1 +4 prefill covered"),
    ("split-by-batch", "decoder", {W: [3, 61]}, "bits w 1 +5 prefill"),
    ("split-by-batch", "decoder", {W: [3, 58]}, "bits w 1 +8 prefill"),
    ("split-by-batch", "decoder", {W: [3, 57]},
     "no workload that is run can show it: it takes a sequence of at least 66 tokens, at least 2 "
     "generated"),
    # Where the reference would show the defect in the same way, the path alone has it.
    ("split-by-batch", "decoder", {"checks.0.reference": "uniform"}, "bits w 1 +4 uniform alone"),
    ("split-by-batch", "decoder", {"checks.0.reference": "batched"},
     "it shows between batched and another path, but not within batched"),
    ("stale-slot", "decoder", {"checks.0.reference": "batched"}, "bits w 0 +4 batched covered"),
    ("stale-slot", "decoder", {"checks.0.reference": "decode", PATHS: ["batched"]},
     "bits w 0 +4 decode"),
    ("narrow-cache", "decoder", {"checks.0.reference": "decode", PATHS: ["batched"]},
     "it shows between decode and another path, but not within decode"),
    ("rope-table-bfloat16", "decoder", {"checks.0.reference": "decode", PATHS: ["batched"]},
     "it shows between decode and another path, but not within decode"),
    ("narrow-cache", "decoder", {"checks.0.reference": "decode", PATHS: ["batched"],
                                 "checks.+": MORE}, "more w 0 +4 prefill"),
    ("narrow-cache", "model", {"checks.0.reference": "generate"},
     "it cannot be planted in the subject's own loop, the reference of the check"),
    ("stale-slot", "model", {"checks.0.reference": "generate"}, "bits w 0 +4 generate covered"),
    ("log-of-softmax", "decoder", {}, "bits w 1 +8 prefill"),
    ("log-of-softmax", "decoder", {"checks.0.reference": "decode", PATHS: ["prefill"]},
     "bits w 1 +8 prefill"),
    ("wrong-input", "decoder", {}, "close w 0 +4 prefill covered"),
    ("wrong-input", "decoder", {"checks.1.paths": ["decode"]}, "close w 0 +4 prefill"),
    ("wrong-input", "model", {"checks.0": TOLD}, "the contract has no accuracy check"),
    ("padding-leaks", "decoder", {W: [5, 5, 62]}, "bits w 0 2 +4 prefill"),
    ("padding-leaks", "decoder", {W: [62]},
     "no workload that is run can show it: it takes a sequence of at least 3 tokens, prompts of 2 "
     "lengths"),
    ("prefix-shifts-positions", "decoder", {W: [8, 9], "workloads.0.generate": 40},
     "bits w 1 +25 prefill"),
    ("prefix-shifts-positions", "decoder", {W: [8], "workloads.0.generate": 40},
     "no workload that is run can show it: it takes a sequence of at least 34 tokens, at least 2 "
     "generated, a prompt of more than 8"),
    ("cascade-of-shared-prefix", "decoder", SHARED, "bits w 0 1 +4 prefill"),
    ("cascade-of-shared-prefix", "decoder", SHARED
     | {"workloads.+": SHORT | {"prompt_tokens": [33, 40]}, "checks.0.workloads": ["short"]},
     "no workload that is run can show it: it takes a sequence of at least 34 tokens, at least 2 "
     "generated, prompts of 2 lengths, prompts that share their first 32"),
    ("cascade-of-shared-prefix", "decoder", {}, "it cannot show here: it takes ..."),
    ("temperature-ignored", "decoder", {}, "every temperature of the contract is 1"),
    ("temperature-ignored", "decoder", {"numerics.temperatures": [1.0, 0.7]},
     "bits w 1 +8 prefill"),
    ("window-one-short", "decoder", {}, "it cannot show here: it takes a sliding window..."),
    ("window-one-short", "decoder", {"subject.config": WINDOW}, "bits w 0 +7 prefill covered"),
    # Rounding to less may hide a defect, and need not: planted where it is named.
    ("norm-block-by-rows", "decoder", {"numerics.execution": "bfloat16"},
     "bits w 1 +4 prefill covered"),
    ("dequant-rounds", "decoder", {"numerics.execution": "bfloat16"}, "it cannot show here..."),
    ("dequant-rounds", "decoder", {"numerics.execution": "bfloat16",
                                   "numerics.kv_cache": "int8(16)"},
     "close w 0 +4 prefill"),
    # kernels
    ("other-tile", "decoder", {"checks.+": order(33)}, "in kernels"),
    ("other-tile", "decoder", {"checks.+": order(32)},
     "no order check has more than 32 keys, one tile"),
    ("other-tile", "decoder", {}, "the contract has no order or audit check"),
    ("other-warps", "decoder", {"checks.+": AUDIT}, "in kernels"),
    ("other-warps", "decoder", {"checks.+": order(33)}, "the contract has no audit check"),
    ("split-by-batch", "pair", {"subject.window": 8, W: [3, 93]}, "bits w 1 +5 prefill"),
    ("split-by-batch", "pair", {"subject.window": 8, W: [3, 102]}, "bits w 1 +4 prefill"),
    ("split-by-batch", "pair", {"subject.window": 8, W: [3, 103]}, "no workload that is run..."),
    ("split-by-batch", "pair", {"subject.window": 8, W: [3, 80]},
     "no workload that is run can show it: it takes a sequence of at least 66 tokens, at least 2 "
     "generated, a decoded token whose window of 8 keys goes over an odd multiple of 32"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("control", "base", "changes", "expected"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(PLACES)],
)
def test_a_control_is_planted_at_the_cheapest_place_that_shows_it(
    control: str, base: str, changes: Doc, expected: str
) -> None:
    contract = Contract.model_validate(changed(base, changes | {"controls": [control]}))
    relation = CONTROLS[control].relations[0]
    found = outcome(contract, relation)
    if expected.endswith("..."):
        assert found.startswith(expected[:-3])
    else:
        assert found == expected
