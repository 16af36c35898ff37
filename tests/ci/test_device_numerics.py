"""The model of matrix instructions against MMA-Sim; each parameter put wrong is seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import device_numerics as study
import numpy as np
import pytest
import torch

from kvparity_kernels import fused_products, tensor_cores
from kvparity_kernels.tensor_cores import TABLE, FusedAdd, Operand, TensorCoreRow, UnmodelledError

SIDE = 16
PAIRS = {f"{e.architecture} {e.instruction} {o}": (e, o) for e, o in study.pairs()}
BFLOAT16 = {e.architecture: e for e in TABLE if "bfloat16" in e.operands}


@cache
def given(operand: Operand) -> list[study.Operands]:
    k = 2 * study.NAMES[operand][2]
    return [study.operands(kind, operand, SIDE, k, seed) for kind in study.KINDS for seed in (0, 1)]


def differing(entry: TensorCoreRow, operand: Operand, unit: FusedAdd | None = None) -> int:
    return sum(study.differing(entry, operand, each, unit) for each in given(operand))


@pytest.mark.parametrize("name", PAIRS)
def test_every_bit_is_that_of_mma_sim(name: str) -> None:
    assert differing(*PAIRS[name]) == 0


def wrong(unit: FusedAdd) -> Iterator[tuple[str, FusedAdd]]:
    yield "L", replace(unit, terms=2 * unit.terms)
    yield "L", replace(unit, terms=unit.terms // 2)
    for name, field in (("F", "kept"), ("e_zero", "e_zero"), ("result", "result")):
        for step in (-1, 1):
            yield name, replace(unit, **{field: getattr(unit, field) + step})


@pytest.mark.slow
@pytest.mark.parametrize("architecture", BFLOAT16)
def test_a_wrong_parameter_is_seen(architecture: str) -> None:
    entry = BFLOAT16[architecture]
    unseen = [what for what, unit in wrong(entry.unit) if not differing(entry, "bfloat16", unit)]
    assert unseen == []


def test_rounding_to_nearest_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_products, "_cut", np.rint)
    assert differing(BFLOAT16["sm_90"], "bfloat16")


def test_another_order_of_groups_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = study.dot

    def descending(a, b, c, operand, unit):
        back = np.arange(a.shape[1]).reshape(-1, unit.terms)[::-1].ravel()
        return right(a[:, back], b[back], c, operand, unit)

    monkeypatch.setattr(study, "dot", descending)
    assert differing(BFLOAT16["sm_90"], "bfloat16")


def test_operands_of_every_kind_are_there() -> None:
    """Else equal bits would show nothing of a kind."""
    for operand in tensor_cores.OPERANDS:
        least = 2.0 ** tensor_cores.LEAST_EXPONENT[operand]
        x = torch.cat([each.float().ravel() for a, b, _ in given(operand) for each in (a, b)])
        assert (x == 0).any()
        assert ((x != 0) & (x.abs() < least)).any(), operand
        assert x.isnan().any()
        assert x.isinf().any() or operand == "fp8e4nv"  # which has no infinity


def test_a_row_depends_on_itself_alone_also_in_a_batch() -> None:
    unit = BFLOAT16["sm_90"].unit
    a, b, c = (x.float().numpy() for x in study.operands("random", "bfloat16", SIDE, 32, 0))
    whole = fused_products.dot(a, b, c, "bfloat16", unit)
    alone = fused_products.dot(a[3:4], b, c[3:4], "bfloat16", unit)
    batch = fused_products.dot(
        np.stack([c, a[:, :16]]),
        *(np.stack(x) for x in ([c[:16], b[:16]], [c, c])),
        "bfloat16",
        unit,
    )
    assert alone.tobytes() == whole[3:4].tobytes()
    assert (
        batch[1].tobytes() == fused_products.dot(a[:, :16], b[:16], c, "bfloat16", unit).tobytes()
    )


def test_both_instructions_of_hopper_add_alike_and_ampere_differs() -> None:
    units = {arch: tensor_cores.unit(arch, "bfloat16") for arch in ("sm_80", "sm_90")}
    assert units["sm_80"] != units["sm_90"]
    assert differing(BFLOAT16["sm_80"], "bfloat16", units["sm_90"])


@pytest.mark.parametrize(
    ("architecture", "operand", "words"),
    [
        ("sm_80", "fp8e5", "mma.sync with these operands is not in the table"),
        ("sm_90", "fp8e4nv", "mma.sync with these operands is not in the table"),
        ("sm_100", "fp8e5", "mma.sync with these operands is not in the table"),
    ],
)
def test_what_the_table_does_not_have_is_an_error(architecture, operand, words) -> None:
    with pytest.raises(UnmodelledError, match=words):
        tensor_cores.unit(architecture, operand)


def test_instructions_that_add_differently_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such row is known: one is made."""
    off = tuple(
        replace(e, unit=replace(e.unit, kept=24)) if e.instruction == "wgmma" else e for e in TABLE
    )
    monkeypatch.setattr(tensor_cores, "TABLE", off)
    with pytest.raises(UnmodelledError, match=r"mma\.sync and wgmma add differently"):
        tensor_cores.unit("sm_90", "bfloat16")
