"""Rules that only one input tells apart: what a part refuses, suggests, exposes or passes over."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path

import pytest
from editor import underlined
from one_key import BITS, Doc, changed
from pydantic import TypeAdapter, ValidationError
from test_one_key import SHORT, order

from kvparity_contracts import lint, load
from kvparity_contracts.checks import Accuracy
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.faint import between
from kvparity_contracts.paths import KINDS, PathError, PathName, one_of_the_paths
from kvparity_contracts.planning import exposed, fates
from kvparity_contracts.stores import Stores

REFUSED: list[tuple[str, Doc, str]] = [
    ("a store that is no text", {"numerics.kv_cache": [5]}, "found 5, expected one of float32"),
    ("limits that are a number", {"checks.1.limits": 5}, "limits"),
]


@pytest.mark.parametrize(
    ("changes", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_a_value_of_another_type_is_refused(changes: Doc, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Contract.model_validate(changed("decoder", changes))


def test_a_format_without_limits_has_none_to_be_judged_by() -> None:
    check = Accuracy.model_validate(
        {"name": "a", "relation": "accuracy", "limits": {"float32": {"max_abs": 0.5}}}
    )
    assert check.limits_for("float32").max_abs == 0.5
    with pytest.raises(KeyError, match="no limits for bfloat16"):
        check.limits_for("bfloat16")


def test_a_kind_that_is_no_path_is_refused_in_words() -> None:
    with pytest.raises(PathError) as caught:
        PathName("decoded")  # type: ignore[arg-type]  # that is the test
    text = str(caught.value)
    assert text.startswith("found 'decoded', expected one of prefill, decode, ")
    assert text.endswith(" (did you mean decode?)")


def test_paths_are_named_as_they_are_written() -> None:
    told = one_of_the_paths(["decode", "chunked", "batched"])
    assert told == "one of decode, chunked(n), batched, batched(n)"


@pytest.mark.parametrize("after", ["", "(3)", "(0)", "(x)", "(0:0-2)"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_editor_takes_the_paths_that_a_contract_takes(kind: str, after: str) -> None:
    written = kind + after
    try:
        taken = str(PathName.parse(written)) == written
    except PathError:
        taken = False
    assert (underlined(changed("decoder", {"checks.0.paths": [written]})) == []) == taken


@pytest.mark.parametrize("stores", ["float32", ["float32"], ["int8(16)", "float32"], [], ["int8"]])
def test_an_editor_takes_the_stores_that_a_contract_takes(stores: object) -> None:
    try:
        taken = bool(TypeAdapter(Stores).validate_python(stores))
    except ValidationError:
        taken = False
    assert (underlined(changed("decoder", {"numerics.kv_cache": stores})) == []) == taken


DIGITS = sorted(float(f"{digit}e{power}") for digit in range(1, 10) for power in range(-6, 2))


@pytest.mark.parametrize("rounded", [6e-3, 1e-5, 1.0])
def test_the_limit_that_is_named_is_the_largest_of_one_digit_half_way(rounded: float) -> None:
    for factor in (1.25, 1.4, 1.69, 2.9, 4.0, 6.1, 8.0, 20.0, 77.0):
        fault = factor * rounded
        middle = math.sqrt(fault * rounded)
        found = between(fault, rounded)
        assert found is not None
        assert rounded < found < fault
        short = max(each for each in DIGITS if each <= middle)
        if short > rounded:
            assert found == short


def test_what_no_check_of_the_contract_asks_of_a_control_is_told_once() -> None:
    given = Contract.model_validate(changed("decoder", {"controls": ["other-tile"]}))
    assert len(CONTROLS["other-tile"].relations) > 1
    assert len(list(fates(given))) == 1


def test_a_workload_that_runs_on_no_path_of_a_check_exposes_nothing() -> None:
    """``padded`` is no path where a workload names no side."""
    changes = {
        "checks.0": BITS | {"paths": ["padded"]},
        "checks.1": order(16),
        "workloads.+": SHORT | {"pad": ["left"]},
    }
    given = Contract.model_validate(changed("decoder", changes))
    anywhere = next(
        each
        for each in CONTROLS.values()
        if not each.paths and "invariance" in each.relations and "decoder" in each.subjects
    )
    assert [each.name for each in exposed(anywhere, given)] == ["short"]


def test_a_pipe_in_the_place_of_a_pair_is_not_waited_for(tmp_path: Path) -> None:
    pipe, file = tmp_path / "pair.py", tmp_path / "c.json"
    os.mkfifo(pipe)
    changes = {"subject.prefill": "pair.py:p", "subject.decode": "pair.py:d"}
    file.write_text(json.dumps(changed("pair", changes)))
    loaded, found = load(file), []
    reader = threading.Thread(target=lambda: found.append(lint(loaded)), daemon=True)
    reader.start()
    reader.join(20)
    if waiting := reader.is_alive():  # let it go on
        os.close(os.open(pipe, os.O_WRONLY))
        reader.join()
    assert not waiting
    assert found
