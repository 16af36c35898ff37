from __future__ import annotations

from collections.abc import Callable

import pytest

from kvparity_contracts import LoadedContract, lint
from kvparity_contracts.linter import told

Loads = Callable[..., LoadedContract]
Change = tuple[str, str]

ACCURACY = "  - {name: close, relation: accuracy, limits: {max_abs_dlogp: 0.1}}\n"
INVARIANCE = "  - {name: same bits, relation: invariance, paths: [decode, batched, chunked(7)]}\n"
LIMITS = "{max_abs_dlogp: 0.1}"
WINDOWED = (
    "{vocab_size: 256, hidden_size: 8, intermediate_size: 8, layers: 1, heads: 2, kv_heads: 2, "
    "head_dim: 16, max_positions: 512, sliding_window: 8}"
)
LONG = "  - {name: long, prompt_tokens: [250], generate: 8}\n"


def test_a_good_contract_has_no_findings(loads: Loads) -> None:
    assert lint(loads()) == []


WEAK: dict[str, tuple[list[Change], str, str]] = {
    "no accuracy": (
        [(ACCURACY, ""), ("checks:", "§checks:")],
        "checks",
        "there is no accuracy check",
    ),
    "no invariance": (
        [(INVARIANCE, ""), ("checks:", "§checks:")],
        "checks",
        "there is no invariance check",
    ),
    "a loose limit": (
        [(LIMITS, "{max_abs_dlogp: 0.1, approx_kl0: §0.0052}")],
        "checks[1].limits.approx_kl0",
        "cannot fail: max_abs_dlogp 0.1 already keeps it below 0.00517",
    ),
    "a loose clip fraction": (
        [(LIMITS, "{max_abs_dlogp: 0.18, clipfrac0: §0}")],
        "checks[1].limits.clipfrac0",
        "cannot fail: max_abs_dlogp 0.18 already keeps it at 0",
    ),
    "a share of 1": (
        [(LIMITS, "{clipfrac0: §1}")],
        "checks[1].limits.clipfrac0",
        "cannot fail: a share is at most 1",
    ),
    "a loose limit of one format": (
        [(LIMITS, "{float32: {approx_kl0: 1}, bfloat16: {max_abs_dlogp: 0.1, approx_kl0: §1}}")],
        "checks[1].limits.bfloat16.approx_kl0",
        "cannot fail",
    ),
    "one split": (
        [("split: 128", "split: 512"), ("workloads:", "§workloads:")],
        "workloads",
        "no sequence is longer than one split of 512 keys (the longest has 258)",
    ),
    "one tile": (
        [("[250], generate: 8", "[57], generate: 7"), ("workloads:", "§workloads:")],
        "workloads",
        "no sequence is longer than one tile of 64 keys (the longest has 64)",
    ),
    "an edge that is only prefilled": (
        [("[250], generate: 8", "[200], generate: 8"), ("workloads:", "§workloads:")],
        "workloads",
        "no decoded token sees a whole number of tiles or one key of its last tile of 64 keys, so "
        "a fault at the edge of a tile shows in prefill alone; a prompt of 191 tokens",
    ),
    "one side of an edge": (
        [("[250], generate: 8", "[256], generate: 8"), ("workloads:", "§workloads:")],
        "workloads",
        "no decoded token sees a whole number of tiles of 64 keys",
    ),
    "the other side": (
        [("[250], generate: 8", "[250], generate: 7"), ("workloads:", "§workloads:")],
        "workloads",
        "no decoded token sees one key of its last tile of 64 keys",
    ),
    "a chunk longer than some": (
        [("chunked(7)", "§chunked(25)")],
        "checks[0].paths[2]",
        "every sequence of short fits into one chunk",
    ),
    "an edge at which no draw cuts": (
        [("chunked(7)", "§random(1)")],
        "checks[0].paths[2]",
        "no draw of 'random(1)' cuts a prompt of short on the edge of a page of 16; random(2) does",
    ),
    "an unused workload": (
        [
            ("limits: {max_abs", "workloads: [short], limits: {max_abs"),
            ("chunked(7)]", "chunked(7)], workloads: [short]"),
            ("name: long", "name: §long"),
        ],
        "workloads[1].name",
        "no check uses the workload 'long'",
    ),
    "an unused pad": (
        [("[250], generate: 8", "[250], generate: 8, pad: §[left]")],
        "workloads[1].pad",
        "no check of this workload has the path 'padded' or 'padded-left'",
    ),
    "a pad of which one side is used": (
        [
            ("[250], generate: 8", "[250], generate: 8, pad: §[left, right]"),
            ("chunked(7)]", "chunked(7), padded-left]"),
        ],
        "workloads[1].pad",
        "no check of this workload has the path 'padded' or 'padded-right'",
    ),
    "nothing decoded": (
        [("[3, 17], generate: 8", "[3, 17], generate: §1")],
        "workloads[0].generate",
        "nothing is decoded",
    ),
    "all controls, without a temperature": (
        [(", temperatures: [1.0, 0.7]", ""), ("controls: all", "controls: §all")],
        "controls",
        "left out, because they cannot show here without what they need: temperature-ignored, "
        "scaled-logprobs (a temperature other than 1); raw-rollout-logprobs (a temperature",
    ),
    "a control without its path": (
        [("controls: all", "controls: [§padding-leaks, wrong-input, stale-slot]")],
        "controls[0]",
        "padding-leaks is planted on padded-left, which no check of this contract compares; it is "
        "meant for path padded-left, and prompts of 2 lengths",
    ),
    "a control without its length": (
        [
            ("split: 128", "split: 512"),
            ("controls: all", "controls: [wrong-input, §split-by-batch]"),
        ],
        "controls[1]",
        "split-by-batch cannot be planted: no workload that is run can show it: it takes a "
        "sequence of at least 514 tokens, at least 2 generated",
    ),
    "a control of two tokens where one is generated": (
        [
            ("[3, 17], generate: 8", "[3, 17], generate: 1"),
            ("[250], generate: 8", "[250], generate: 1"),
            ("controls: all", "controls: [wrong-input, §retokenised]"),
        ],
        "controls[1]",
        "retokenised cannot be planted: no workload that is run can show it: it takes a sequence "
        "of at least 3 tokens, at least 2 generated",
    ),
    "an order of one tile": (
        [("controls: all", "  - {name: o, relation: order, keys: §[33, 64]}\ncontrols: all")],
        "checks[2].keys",
        "no number of keys is above one tile of 64, so the order of tiles and splits is not",
    ),
    "an order of a window within one tile": (
        [
            ("preset: tiny", f"config: {WINDOWED}"),
            ("controls: all", "  - {name: o, relation: order, keys: §[72, 96]}\ncontrols: all"),
        ],
        "checks[2].keys",
        "at no number of keys does the edge of a tile of 64 lie among the last 8, so in layers",
    ),
    "a control without its keys": (
        [
            ("controls: all", "  - {name: o, relation: order, keys: [64]}\ncontrols: all"),
            ("controls: all", "controls: §all"),
        ],
        "controls",
        "(attention whose order can be changed, and an order check with more keys than one tile "
        "or an audit check)",
    ),
    "an audit without a control": (
        [
            ("controls: all", "  - {name: §a, relation: audit}\ncontrols: [ragged-split]"),
        ],
        "checks[2].name",
        "no control of this contract is meant for this check",
    ),
    "a control without its check": (
        [("controls: all", "controls: [§other-warps]")],
        "controls[0]",
        "other-warps cannot be planted: the contract has no audit check",
    ),
    "a check without a control": (
        [("controls: all", "controls: [stale-slot]"), ("name: close", "name: §close")],
        "checks[1].name",
        "no control of this contract is meant for this check",
    ),
}


@pytest.mark.parametrize(("changes", "key", "words"), WEAK.values(), ids=WEAK)
def test_a_weak_contract_is_found(
    marked: Callable[..., tuple[LoadedContract, tuple[int, int]]],
    changes: list[Change],
    key: str,
    words: str,
) -> None:
    loaded, place = marked(*changes)
    findings = lint(loaded)
    found = [each for each in findings if (each.line, each.col, each.key) == (*place, key)]
    assert found, "\n".join(map(str, findings))
    assert words in found[0].message
    assert str(found[0]).startswith(f"{found[0].file}:{place[0]}:{place[1]}: warning: {key}: ")


@pytest.mark.parametrize(
    "limits",
    [
        "{max_abs_dlogp: 0.1, approx_kl0: 0.0051}",  # e^0.1 - 1.1 = 0.00517
        "{max_abs_dlogp: 0.19, clipfrac0: 0}",  # e^0.19 = 1.21
        "{max_abs_dlogp: 1000, approx_kl0: 1}",
        "{approx_kl0: 1, clipfrac0: 0.5}",
    ],
)
def test_limits_that_can_fail_are_left_alone(loads: Loads, limits: str) -> None:
    assert lint(loads((LIMITS, limits))) == []


def test_checks_of_kernels_can_be_strong(loads: Loads) -> None:
    both = "  - {name: o, relation: order, keys: [65]}\n  - {name: a, relation: audit}\n"
    assert lint(loads(("controls: all", f"{both}controls: all"))) == []


@pytest.mark.parametrize("paths", ["padded-left", "padded", "padded, padded-left"])
def test_each_way_to_use_a_pad_is_enough(loads: Loads, paths: str) -> None:
    loaded = loads(
        ("[250], generate: 8", "[250], generate: 8, pad: [left]"),
        ("chunked(7)]", f"chunked(7), {paths}]"),
    )
    assert [each.message for each in lint(loaded) if each.key.endswith("pad")] == []


def test_findings_come_in_the_order_of_the_file(loads: Loads) -> None:
    found = lint(loads((ACCURACY, ""), ("split: 128", "split: 512")))
    assert [each.line for each in found] == sorted(each.line for each in found)
    assert len(found) > 2


def test_a_transformers_model_needs_no_accuracy_check(loads: Loads) -> None:
    subject = "{kind: transformers, checkpoint: x, attention: sdpa}"
    old = "{kind: decoder, preset: tiny, order: {split: 128, tile: 64}}"
    alone = ("decode, batched, chunked(7)", "decode, chunked(7)")
    assert lint(loads((old, subject), alone, (ACCURACY, ""))) == []
    # Its tiles are not known, but one of the usual size must be crossed.
    short = lint(loads((old, subject), alone, (ACCURACY, ""), (LONG, "")))
    assert ["no sequence is longer than one tile of 64 keys" in short[0].message] == [True]


def test_paths_that_show_nothing_are_told_in_one_line_of_their_check(loads: Loads) -> None:
    loaded = loads(("chunked(7)]", "chunked(100), streamed(30), prefix(20), chunked(7)]"))
    found = [each for each in lint(loaded) if each.key.startswith("checks[0].paths")]
    assert [each.key for each in found] == ["checks[0].paths[2]"]
    for words in ("'chunked(100)' is the same", "'streamed(30)' is the same", "of 'prefix(20)'"):
        assert words in found[0].message


def test_a_pad_of_the_reference_is_used(loads: Loads) -> None:
    loaded = loads(
        ("[250], generate: 8", "[250], generate: 8, pad: [right]"),
        ("relation: invariance, paths", "relation: invariance, reference: padded-right, paths"),
    )
    assert [each.message for each in lint(loaded) if each.key.endswith("pad")] == []


def test_what_a_window_hides_is_told_with_the_window(loads: Loads) -> None:
    subject = f"subject: {{kind: decoder, config: {WINDOWED}}}"
    old = "subject: {kind: decoder, preset: tiny, order: {split: 128, tile: 64}}"
    (found,) = [each for each in lint(loads((old, subject))) if each.key == "controls"]
    for words in ("tile-by-mean-query", "whose window of 8 keys goes over an odd multiple of 32"):
        assert words in found.message


@pytest.mark.parametrize("size", [125, 126])
def test_a_vocabulary_that_text_may_not_fit_is_told(loads: Loads, size: int) -> None:
    config = WINDOWED.replace("vocab_size: 256", f"vocab_size: {size}")
    old = "subject: {kind: decoder, preset: tiny, order: {split: 128, tile: 64}}"
    loaded = loads((old, f"subject: {{kind: decoder, config: {config}}}"))
    found = [each.key for each in lint(loaded) if "bytes of text, up to 125" in each.message]
    assert found == ([f"workloads[{i}].prompt_tokens" for i in (0, 1)] if size == 125 else [])


def test_what_draws_reach_is_told_and_is_no_warning(
    marked: Callable[..., tuple[LoadedContract, tuple[int, int]]],
) -> None:
    loaded, place = marked(("chunked(7)", "§random(6)"))
    assert lint(loaded) == []  # six sides of edges: before, on and behind a tile and a split
    notes = told(loaded)
    assert {(each.line, each.col, each.key) for each in notes} == {(*place, "checks[0].paths[2]")}
    (long,) = [each for each in notes if "over long " in each.message]
    tile = "one before, on, one behind the edge of a tile of 64"
    assert f"{tile}; one before, on, one behind the edge of a split of 128; of 6" in long.message
    assert str(long).partition(" note: ")[0].endswith(f":{place[0]}:{place[1]}:")
    assert told(marked(("batched, ", "§batched, "))[0]) == []
