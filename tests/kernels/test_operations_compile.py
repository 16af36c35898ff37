"""The operations compile for GPUs that this machine need not have, and into what."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fma_order import fma_order

ARCHS = ["sm_80", "sm_90", "sm_100"]
Facts = dict[str, dict[str, dict[str, list[str]]]]


@pytest.fixture(scope="module")
def compiled(run_compiler: Callable[..., Any]) -> Facts:
    result: Facts = run_compiler("compile_operations.py", *ARCHS)
    return result


def test_all_operations_compile_everywhere(compiled: Facts) -> None:
    operations = {name.split()[0] for name in compiled}
    assert operations == {
        *("linear", "rms_norm", "tables", "rotate", "swiglu", "embed", "logprob", "parts"),
        *("row_digest", "matmul", "row_sum", "softmax"),
    }
    for name, by_arch in compiled.items():
        assert list(by_arch) == (ARCHS[:1] if "contracted" in name else ARCHS)


def test_nothing_is_added_by_atomics(compiled: Facts) -> None:
    assert not [n for n, by in compiled.items() for facts in by.values() if facts["atomics"]]


def test_the_atomics_pattern_sees_atomics() -> None:
    source = Path(__file__).with_name("compile_common.py").read_text()
    found = re.search(r'"atomics": r"(.*)"', source)
    assert found is not None
    for line in (
        "atom.global.gpu.acq_rel.add.f32 %f1, [%rd1], %f2;",
        "red.global.add.f32 [%r], %f;",
    ):
        assert re.search(found[1], line)


@pytest.mark.parametrize("name", ["linear", "matmul"])
def test_products_take_the_matrix_instruction_of_their_gpu(compiled: Facts, name: str) -> None:
    for arch, kind in zip(ARCHS, ("mma.sync", "wgmma", "tcgen05"), strict=True):
        (instruction,) = {i.split(".row")[0] for i in compiled[f"{name} bf16"][arch]["mma"]}
        assert instruction.startswith(kind)
        facts = compiled[f"{name} fp32"][arch]
        assert facts["mma"] == []  # float32 means float32: no TF32
        assert facts["tf32"] == []
        # By pairs on sm_100 with Triton 3.7: two roundings to the nearest, as without.
        assert facts["fma"][0].removesuffix("x2") == "fma.rn.f32"


@pytest.mark.parametrize("name", ["linear fp32", "matmul fp32"])
def test_float32_products_are_chains_of_fma_along_ascending_k(compiled: Facts, name: str) -> None:
    """What the model of a device computes for them (``fixed_arithmetic.fma_dot``).

    Two accumulators in one instruction (sm_100 with Triton 3.7) are not read.
    """
    read = [arch for arch in ARCHS if not any("x2" in f for f in compiled[name][arch]["fma"])]
    assert read[:2] == ARCHS[:2]
    assert {tuple(compiled[name][arch]["fma_order"]) for arch in read} == {("ascending",)}


@pytest.mark.parametrize(
    ("steps", "told"),
    [(range(16), ["ascending"]), ([*range(8), 9, 8, *range(10, 16)], ["other"]), (range(15), [])],
)
def test_another_order_of_a_chain_is_told(steps: Sequence[int], told: list[str]) -> None:
    loads = [f"ld.shared.v2.b32 {{%a{i}, %a{i + 1}}}, [%r1+{4 * i}];" for i in range(0, 16, 2)]
    loads += [f"ld.shared.b32 %b{i}, [%r2+{256 * i}];" for i in range(16)]
    adds = [
        f"fma.rn.f32 %c{n + 1}, %a{i}, %b{i}, {f'%c{n}' if n else '0f00000000'};"
        for n, i in enumerate(steps)
    ]
    assert fma_order("\n".join(loads + adds)) == told


def test_products_and_sums_are_not_contracted(compiled: Facts) -> None:
    names = ("rotate", "rms_norm", "swiglu", "tables", "logprob", "parts", "linear", "matmul",
             "row_sum", "softmax")  # fmt: skip
    for name in (*(f"{each} bf16" for each in names), "softmax fp32"):
        for facts in compiled[name].values():
            assert facts["contractable"] == []
    for facts in compiled["rotate bf16"].values():
        assert facts["fma"] == []
    assert compiled["rotate contracted"][ARCHS[0]]["contractable"] != []  # control
