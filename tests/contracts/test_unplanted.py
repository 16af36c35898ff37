"""Why a named control cannot be planted: the linter says it at the control's line and column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from one_key import CONFIG, Doc, changed
from test_one_key import AUDIT, W, order

from kvparity_contracts import ContractError, lint, load
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.features import FEATURES, Feature
from kvparity_contracts.needs import needs

PATHS = "checks.0.paths"
TRACE = {"name": "told", "relation": "trace"}
BEHIND = {"checks.0.reference": "decode", PATHS: ["batched"]}
SMALL = CONFIG | {"vocab_size": 63, "layers": 1}
NO_IDS = {W: None, "workloads.0.prompts": [[1, 2, 3], [1] * 62]}

REASONS: list[tuple[str, str, Doc, str]] = [
    # control, contract, its changes, why it cannot be planted
    ("other-warps", "decoder", {}, "the contract has no audit check"),
    ("other-architecture", "decoder", {"checks.+": AUDIT},
     "it takes 16-bit execution first, and an audit check"),
    ("other-tile", "decoder", {"checks.+": order(32)},
     "no order check has more than 32 keys, one tile"),
    ("tile-by-mean-query", "pair", {"subject.order": None},
     "it picks the order of each call, and the kernels of this pair take none"),
    ("window-one-short", "decoder", {}, "it cannot show here: it takes ..."),
    ("wrong-donor", "decoder", {"checks.+": TRACE}, "it cannot show here: it takes ..."),
    ("retokenised", "decoder", {"subject.config": SMALL, **NO_IDS},
     "it cannot show here: it takes ..."),
    ("temperature-ignored", "decoder", {}, "every temperature of the contract is 1"),
    ("uniform-attention", "decoder", {}, "the contract has no trace check"),
    ("narrow-cache", "model", {"checks.0.reference": "generate"},
     "it cannot be planted in the subject's own loop, the reference of the check"),
    ("narrow-cache", "decoder", BEHIND,
     "it shows between decode and another path, but not within decode"),
    ("padding-leaks", "decoder", {W: [3]}, "no workload that is run can show it: it takes "
     "a sequence of at least 3 tokens, prompts of 2 lengths"),
    ("split-by-batch", "decoder", {W: [3, 57]}, "no workload that is run can show it: it takes "
     "a sequence of at least 66 tokens, at least 2 generated"),
    ("prefix-shifts-positions", "decoder", {W: [8], "workloads.0.generate": 40},
     "no workload that is run can show it: it takes a sequence of at least 34 tokens, at least 2 "
     "generated, a prompt of more than 8"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("control", "base", "changes", "reason"),
    [pytest.param(*row, id=f"{i}-{row[0]}") for i, row in enumerate(REASONS)],
)
def test_the_linter_says_where_and_why_a_control_cannot_be_planted(
    control: str, base: str, changes: Doc, reason: str, tmp_path: Path
) -> None:
    """A control beside it that can be planted has no such line."""
    file, line = written(changed(base, changes), control, tmp_path)
    (found,) = [each for each in lint(load(file)) if "cannot be planted" in each.message]
    assert (found.line, found.col, found.key) == (line, 5, "controls[1]")
    why = reason.replace("...", needs(CONTROLS[control]))
    assert found.message == f"{control} cannot be planted: {why}"


def written(whole: Doc, control: str, folder: Path) -> tuple[Path, int]:
    """A contract whose second control is this one, and the line where that stands."""
    file = folder / "c.yaml"
    file.write_text(json.dumps(whole | {"controls": ["unequal-lengths", control]}, indent=2))
    lines = file.read_text().splitlines()
    return file, next(i for i, text in enumerate(lines, 1) if text.strip() == f'"{control}"')


@pytest.mark.parametrize(
    ("control", "changes", "message"),
    [
        ("strides-ignored", {}, "'strides-ignored' cannot be planted in a subject of kind decoder"),
        ("split-by-batch", {"subject.attention": "sdpa", "subject.order": None},
         "'split-by-batch' plants another order, but attention: sdpa takes none"),
        ("stale-slots", {}, "found the unknown control 'stale-slots'"),
    ],
)  # fmt: skip
def test_a_control_that_is_none_of_this_subject_is_refused_where_it_stands(
    control: str, changes: Doc, message: str, tmp_path: Path
) -> None:
    file, line = written(changed("decoder", changes), control, tmp_path)
    with pytest.raises(ContractError) as refused:
        load(file)
    (found,) = refused.value.problems
    assert (found.line, found.col, found.key) == (line, 5, "controls[1]")
    assert found.message == message


@pytest.mark.parametrize("feature", FEATURES)
def test_each_feature_is_said_of_the_controls_that_need_it(feature: Feature) -> None:
    words = FEATURES[feature][0]
    having = [row for row in CONTROLS.values() if feature in row.features]
    assert having
    for row in CONTROLS.values():
        said = needs(row).replace(", and ", ", ").split(", ")
        assert (words in ", ".join(said)) == (row in having), row.name


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ("log-of-softmax", "nothing more"),
        ("wrong-input", "an accuracy check"),
        ("padding-leaks", "path padded-left, and prompts of 2 lengths"),
        ("stale-after-update", "path reset, a sequence of at least 5 tokens, and at least 2 "
         "generated tokens"),
        ("raw-rollout-logprobs", "a temperature other than 1, and at least 2 generated tokens"),
        ("window-one-long", "a sliding window, an accuracy or liveness check, a sequence longer "
         "than the window, and at least 2 generated tokens"),
        ("chunk-from-budget", "attention whose order can be changed, a layer that sees all keys, a "
         "path that decodes or path permuted, a sequence longer than one tile, and at least 2 "
         "generated tokens"),
        ("narrow-cache", "a cache of numbers, not of codes, a path that reads a cache, and at "
         "least 2 generated tokens"),
        ("splits-over-batch", "attention whose order can be changed, kernels that take an order, a "
         "path that computes sequences together, a sequence longer than one split, and at least 2 "
         "generated tokens"),
        ("baked-cache", "path exported or compiled, and at least 4 generated tokens"),
        ("other-tile", "attention whose order can be changed, and an order check with more keys "
         "than one tile or an audit check"),
        ("ragged-split", "an order check with more keys than one tile"),
        ("other-warps", "an audit check"),
        ("other-architecture", "16-bit execution first, and an audit check"),
    ],
)  # fmt: skip
def test_what_a_control_needs_in_words(control: str, words: str) -> None:
    assert needs(CONTROLS[control]) == words
