"""The guards that only a compiler sees, checked on code compiled for GPUs that need not be here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

FORMS = [
    *(("plain", each) for each in ("sm_80", "sm_90", "sm_100")),
    *(("fp8_e4m3(head)", each) for each in ("sm_80", "sm_90")),
    *(("int4(32)", "sm_90"), ("int8(16)", "sm_100"), ("fp8_e5m2(tensor)", "sm_80")),
]
KERNELS = {"attention.prefill", "attention.decode_split", "attention.decode_combine"}
Facts = dict[str, dict[str, dict[str, dict[str, list[str]]]]]
forms = pytest.mark.parametrize(("form", "arch"), FORMS)


@pytest.fixture(scope="module")
def compiled(run_compiler: Callable[..., Any]) -> Facts:
    result: Facts = run_compiler("compile_attention.py")
    return result


def test_every_form_is_tested(compiled: Facts) -> None:
    found = {(form, arch) for form in compiled for arch in compiled[form]}
    assert found == {*FORMS, ("contraction", "sm_90")}


@forms
def test_attention_compiles(compiled: Facts, form: str, arch: str) -> None:
    kernels = compiled[form][arch]
    assert set(kernels) == KERNELS
    for name, facts in kernels.items():
        assert facts["atomics"] == facts["tf32"] == []
        # Not of codes of few bits, nor where each thread of a device merges one column.
        if form == "plain" and name != "attention.decode_combine":
            assert facts["wide_loads"]  # though strides are not specialised


@forms
def test_nothing_is_left_to_contract(compiled: Facts, form: str, arch: str) -> None:
    for facts in compiled[form][arch].values():
        assert facts["contractable"] == []
        assert facts["rounded"]
        assert facts["fma"]  # those that the source asks for
    # The control: with contraction allowed, the same kernel leaves it to the assembler.
    loose = compiled["contraction"]["sm_90"]["attention.decode_combine"]
    assert loose["contractable"]
    assert loose["rounded"] == []


@forms
def test_division_is_exact(compiled: Facts, form: str, arch: str) -> None:
    for name, facts in compiled[form][arch].items():
        assert facts["loose_division"] == []
        divides = name != "attention.decode_split" or form != "plain"  # the others have a cap
        assert bool(facts["exact_division"]) == divides


@forms
def test_prefill_and_decode_use_the_same_matrix_instructions(
    compiled: Facts, form: str, arch: str
) -> None:
    # Needed for equal bits on a GPU, not sufficient: only a run there shows that.
    kernels = compiled[form][arch]
    assert kernels["attention.prefill"]["mma"] == kernels["attention.decode_split"]["mma"] != []
    assert kernels["attention.decode_combine"]["mma"] == []
