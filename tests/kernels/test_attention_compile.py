"""The guards that only a compiler sees, checked on code compiled for GPUs that need not be here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

FORMS = [
    *(("plain", each) for each in ("80", "90", "100")),
    *(("fp8_e4m3(head)", each) for each in ("80", "90")),
    *(("int4(32)", "90"), ("int8(16)", "100"), ("fp8_e5m2(tensor)", "80")),
]
KERNELS = {"attention.prefill", "attention.decode_split", "attention.decode_combine"}
Facts = dict[str, dict[str, dict[str, dict[str, list[str]]]]]
forms = pytest.mark.parametrize(("form", "capability"), FORMS)


@pytest.fixture(scope="module")
def compiled(run_compiler: Callable[..., Any]) -> Facts:
    result: Facts = run_compiler("compile_attention.py")
    return result


def test_every_form_is_tested(compiled: Facts) -> None:
    found = {(form, capability) for form in compiled for capability in compiled[form]}
    assert found == {*FORMS, ("contraction", "90")}


@forms
def test_attention_compiles(compiled: Facts, form: str, capability: str) -> None:
    kernels = compiled[form][capability]
    assert set(kernels) == KERNELS
    for facts in kernels.values():
        assert facts["atomics"] == facts["tf32"] == []
        if form == "plain":  # codes of few bits are too short for it
            assert facts["wide_loads"]  # though strides are not specialised


@forms
def test_nothing_is_left_to_contract(compiled: Facts, form: str, capability: str) -> None:
    for facts in compiled[form][capability].values():
        assert facts["contractable"] == []
        assert facts["rounded"]
        assert facts["fma"]  # those that the source asks for
    # The control: with contraction allowed, the same kernel leaves it to the assembler.
    loose = compiled["contraction"]["90"]["attention.decode_combine"]
    assert loose["contractable"]
    assert loose["rounded"] == []


@forms
def test_division_is_exact(compiled: Facts, form: str, capability: str) -> None:
    for name, facts in compiled[form][capability].items():
        assert facts["loose_division"] == []
        divides = name != "attention.decode_split" or form != "plain"  # the others have a cap
        assert bool(facts["exact_division"]) == divides


@forms
def test_prefill_and_decode_use_the_same_matrix_instructions(
    compiled: Facts, form: str, capability: str
) -> None:
    # Needed for equal bits on a GPU, not sufficient: only a run there shows that.
    kernels = compiled[form][capability]
    assert kernels["attention.prefill"]["mma"] == kernels["attention.decode_split"]["mma"] != []
    assert kernels["attention.decode_combine"]["mma"] == []
