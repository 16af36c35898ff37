"""What a contract declares of a pair's scores and shapes: a right pair holds, a faulty one not.

Each part with a fault that both kernels share: their bits agree, and float64 tells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import semantic_pairs
import small_pair

from kvparity import Report, check_pair, verify
from kvparity.core.errors import SubjectError
from kvparity.core.isolation.inside import here
from kvparity_contracts.pair_faults import DECODED, PASSED, TAKES
from kvparity_kernels.attention.launching import RowLimits

PATHS = ("decode", "batched", "chunked(24)")
HEADS = {"query": 4, "kv": 2, "dim": 8}
PARTS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what is declared, what the faulty functions end with, its control
    "sinks": ({"sinks": [-1, 3]}, "twice", "sink-twice"),
    "alibi_slopes": ({"bias": {"kind": "alibi"}}, "uphill", "bias-with-wrong-sign"),
    "v_dim": ({"heads": HEADS | {"v_dim": 6}}, "columns", "scores-of-first-columns"),
    "latent": (
        {"heads": {"query": 4, "kv": 1, "dim": 8, "v_dim": 5}, "values": "latent"},
        "columns",
        "scores-of-first-columns",
    ),
    "bias": ({"bias": {"kind": "relative", "distances": 6}}, "farther", "bias-one-off"),
}


def checked(
    folder: Path, fault: str = "", paths: Sequence[str] = PATHS,
    functions: Mapping[str, Any] | None = None, **subject: Any,
) -> Report:  # fmt: skip
    """Bits and float64 of given functions, or of those that end with ``fault``."""
    prefill, decode = (
        (functions or vars(semantic_pairs))[f"{name}_{fault}".rstrip("_")]
        for name in ("prefill", "decode")
    )
    heads = tuple(subject.pop("heads", HEADS).values())
    return check_pair(
        prefill, decode, heads=heads, dtype="bfloat16", lengths=(5, 30), generate=2,
        paths=paths, subject=subject, run_dir=folder / "run",
    )  # fmt: skip


def verdicts(report: Report) -> tuple[str, str]:
    return tuple(each.verdict for each in report.checks)  # type: ignore[return-value]


@pytest.mark.parametrize("name", PARTS)
def test_a_right_pair_holds_and_the_planted_fault_is_caught(tmp_path: Path, name: str) -> None:
    declared, _, control = PARTS[name]
    report = checked(tmp_path, **declared)
    assert verdicts(report) == ("holds", "holds")
    assert {each.name: each.caught for each in report.controls}[control]


@pytest.mark.parametrize("name", PARTS)
def test_a_fault_that_both_kernels_share_is_told_by_float64(tmp_path: Path, name: str) -> None:
    declared, fault, _ = PARTS[name]
    report = checked(tmp_path, fault, **declared, empty="never")
    assert verdicts(report) == ("holds", "differs")


@pytest.mark.parametrize("name", ["sinks", "alibi_slopes", "bias"])
def test_what_is_not_declared_is_not_passed(tmp_path: Path, name: str) -> None:
    """A faulty function asks for its part by keyword, and is not given it."""
    with pytest.raises(SubjectError, match=f"missing 1 required keyword-only argument: '{name}'"):
        checked(tmp_path, PARTS[name][1])


@pytest.mark.parametrize("module", TAKES)
def test_what_known_functions_take_is_what_they_are_written_for(module: str) -> None:
    """The contract refuses what their signatures lack, and nothing else."""
    for name, function in vars(import_module(module)).items():
        if name.rpartition("_")[2] not in ("prefill", "decode") or name.startswith(("_", "attend")):
            continue
        names = set(signature(function).parameters)
        if "limits" in names:
            names |= set(RowLimits.__annotations__)
        takes = {each for each in PASSED if each in names}
        if name.endswith("decode"):
            takes |= {each for each, keyword in DECODED.items() if keyword in names}
        assert takes == {each for each in TAKES[module] if each in PASSED or "decode" in name}, name


NARROW = ("v_dim", "latent")
OTHERS = (
    {"name": "live", "relation": "liveness", "paths": ["decode"]},
    {"name": "traced", "relation": "trace", "paths": ["decode"]},
    {"name": "ordered", "relation": "order", "keys": [5]},
)


@pytest.mark.parametrize("name", PARTS)
def test_the_other_relations_know_the_parts(tmp_path: Path, name: str) -> None:
    """Right functions hold; what the faulty ones share is seen by a trace alone.

    Of values that are not as wide as keys no order is probed, and a contract says so.
    """
    others = [each for each in OTHERS if name not in NARROW or each["relation"] != "order"]
    orders = {} if name in NARROW else {"ordered": {"holds"}}
    for fault, traced in (("", "holds"), (f"_{PARTS[name][1]}", "differs")):
        pair = {each: f"{semantic_pairs.__file__}:{each}{fault}" for each in ("prefill", "decode")}
        file = tmp_path / "c.yaml"
        file.write_text(json.dumps({
            "version": 1, "name": "others", "checks": others,
            "subject": {"kind": "attention", "heads": HEADS, "queries": "normal", **pair,
                        **PARTS[name][0]},
            "numerics": {"execution": "float32"},
            "workloads": [{"name": "w", "prompt_tokens": [14], "generate": 2}],
            "controls": ["stale-slot"],
        }))  # fmt: skip
        with here(True):
            report = verify(file, run_dir=tmp_path / f"run{fault}")
        found = {check.name: {case.verdict for case in check.cases} for check in report.checks}
        assert found == {"live": {"holds"}, "traced": {traced}} | orders


@pytest.mark.parametrize("seen", [{}, {"window": 2}, {"window_size": [9, 1]}], ids=str)
def test_rows_that_see_later_keys(tmp_path: Path, seen: dict[str, Any]) -> None:
    """Whole sequences alone and together have the same bits, and both faults are caught."""
    report = checked(tmp_path, paths=("permuted", "uncached"), causal=False, **seen)
    assert verdicts(report) == ("holds", "holds")
    caught = {each.name: each.caught for each in report.controls}
    assert caught["later-keys-hidden"]
    assert caught["reads-into-neighbour"]
    assert caught.get("window-ahead-one-long") is (True if seen else None)
    assert caught.get("window-before-one-long") is (True if seen else None)


CROSS = ("decode", "batched", "chunked(3)", "permuted", "mixed", "uncached", "reset")


def test_rows_see_the_keys_of_an_encoder_whatever_their_number(tmp_path: Path) -> None:
    subject = {"causal": False, "cross": [3, 20]}
    report = checked(tmp_path, paths=CROSS, **subject)
    assert verdicts(report) == ("holds", "holds")
    assert all(each.caught for each in report.controls)
    caught = {each.name for each in report.controls}
    assert {"keys-of-longest-encoder", "later-keys-hidden", "stale-slot", "narrow-cache"} <= caught


def test_an_encoder_has_as_many_keys_whatever_its_rows() -> None:
    found = small_pair.subject(causal=False, cross=[3, 9])
    counts = {name: found.keys(name, 5) for name in "abcdefghijklmnopqrstuvwxyz"}
    assert counts == {name: found.keys(name, 200) for name in counts}
    assert {*counts.values()} == {3, 4, 5, 6, 7, 8, 9}


@pytest.mark.parametrize(
    ("fault", "seen"), [("hiding", {}), ("farther_ahead", {"window_size": [-1, 0]})]
)
def test_other_later_keys_differ_from_float64(
    tmp_path: Path, fault: str, seen: dict[str, Any]
) -> None:
    pair = {
        "prefill": vars(semantic_pairs)[f"prefill_{fault}"],
        "decode": semantic_pairs.decode,
    }
    report = checked(tmp_path, paths=("permuted",), functions=pair, causal=False, **seen)
    assert verdicts(report) == ("holds", "differs")
