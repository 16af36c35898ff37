"""Every fault that the audit claims to see, and the same kernels without it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from audit_cases import Planted, compared

from kvparity.relations.audit.compile import compile_all
from kvparity.relations.audit.request import Request
from kvparity.relations.audit.views import AuditSide

NAMES = (
    "tf32",
    "fusion",
    "num_warps",
    "exp",
    "atomics",
    "tile",
    "block_m",
    "merge in another form",
    "one merge of eight",
)

FLOATING = re.compile(r"\b(?:F(?:FMA|ADD|MUL)|MUFU|HG?MMA)\b[.\w]*")


def test_every_fault_is_listed(planted: dict[str, Planted]) -> None:
    assert tuple(planted) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_fault_is_seen(
    name: str, planted: dict[str, Planted], sides: dict[Request, AuditSide]
) -> None:
    found = compared(sides, planted[name].faulty)
    assert found.verdict == planted[name].verdict
    assert planted[name].fields <= {each.name for each in found.deciding}


@pytest.mark.parametrize("name", NAMES)
def test_without_the_fault_both_are_the_same(
    name: str, planted: dict[str, Planted], sides: dict[Request, AuditSide]
) -> None:
    found = compared(sides, planted[name].sound)
    assert found.verdict == "same", found.deciding


def test_contraction_is_read_from_the_machine_code(
    planted: dict[str, Planted], sides: dict[Request, AuditSide]
) -> None:
    fused, plain = planted["fusion"].faulty[0], planted["fusion"].sound[0]
    with_it, without = sides[fused].walk, sides[plain].walk
    assert with_it.contraction.allowed
    assert with_it.contraction.made > 0
    assert with_it.sass.fma > without.sass.fma
    assert (without.contraction.allowed, without.contraction.made) == (False, 0)


@pytest.mark.compile
def test_contraction_makes_what_the_text_spells_out(
    planted: dict[str, Planted], compiled_at: Path
) -> None:
    """So a kernel that is contracted can be planted where nothing is compiled.

    Registers are the compiler's choice (Triton 3.7 and 3.9 differ in them), instructions are not.
    """
    plain = planted["fusion"].sound[1]
    asked = [replace(plain, fusion=True), plain, replace(plain, source=None)]
    contracted, separate, written = (
        [Counter(FLOATING.findall(kernel.sass)) for kernel in kernels]
        for kernels in compile_all(asked, folder=compiled_at)
    )
    assert all(each["FFMA"] for each in written)
    assert contracted == written != separate


def test_tf32_shows_in_the_instruction(
    planted: dict[str, Planted], sides: dict[Request, AuditSide]
) -> None:
    faulty, sound = (pair[1] for pair in (planted["tf32"].faulty, planted["tf32"].sound))
    assert any("tf32" in op for op in sides[faulty].walk.instructions)
    assert sides[sound].walk.families == {"fma"}


def test_exp_is_told_from_exp2_by_flushing(
    planted: dict[str, Planted], sides: dict[Request, AuditSide]
) -> None:
    faulty, sound = planted["exp"].faulty
    assert "ex2.approx.f32" in sides[faulty if faulty.source else sound].walk.exp
    assert sides[planted["exp"].sound[1]].walk.exp == ("ex2.approx.ftz.f32",)
