"""One thing is changed in decode's texts: which fields say so, and what the whole says."""

from __future__ import annotations

from typing import Any

import kernel_texts as texts
import pytest
from kernel_texts import Change, decode, prefill

from kvparity.relations.audit.compare import KernelComparison, compare

WALK = {"K chains", "before the loop", "loop", "merge", "finish"}
MMA = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r2}, {%r3}, {%r4}, {%r2};"
WGMMA = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%r2}, %rd3, %rd4, 1, 1, 1;"
LOOP_OF_MERGE = "@%p2 bra $L__BB0_1;\n"


def unlike(found: KernelComparison) -> dict[str, str]:
    return {each.name: each.verdict for each in found.fields if each.verdict != "same"}


def different(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "different")


def test_the_texts_agree() -> None:
    found = compare(prefill(), decode())
    assert unlike(found) == {}
    assert found.verdict == "same"
    assert found.deciding == found.fields
    assert len({each.name for each in found.fields}) == 14
    assert all(each.left != "none" for each in found.fields)


SPLIT: dict[str, tuple[Change, dict[str, str]]] = {
    "another architecture": (
        {"arch": "sm_90"},
        different("built for") | {"matrix instruction": "unknown"},
    ),
    "another Triton": ({"triton": "3.9.1"}, different("built for")),
    "another ptxas": ({"ptxas": "13.0"}, different("built for")),
    "queries": ({"dtypes": {"Q": "float16"}}, different("formats")),
    "cache": ({"dtypes": {"K": "int8"}}, different("formats")),
    "split": ({"constants": {"SPLIT": 128}}, different("split, tile")),
    "tile": ({"constants": {"TILE": 32}}, different("split, tile")),
    "shape of the instruction": (
        {"ptx": ("m16n8k16", "m16n8k8")},
        different("matrix instruction", "K chains", "loop"),
    ),
    "kind of instruction": (
        {"ptx": (MMA, WGMMA)},
        dict.fromkeys(("matrix instruction", "K chains", "loop"), "unknown"),
    ),
    "kind and layout": (
        {"ptx": (MMA, WGMMA), "ttgir": ("[1, 0]", "[0, 1]")},
        dict.fromkeys(
            ("matrix instruction", "layout of reductions", "K chains", "loop"), "unknown"
        ),
    ),
    "precision": ({"ttgir": ("= tf32", "= tf32x3")}, different("input precision")),
    "imprecise": (
        {"ttgir": ("= tf32", "= tf32 {maxNumImpreciseAcc = 32 : i32}")},
        different("input precision"),
    ),
    "a second product": (
        {"ttgir": (texts.DOT, texts.DOT + texts.DOT.replace("tf32", "ieee"))},
        different("input precision"),
    ),
    "combiner": ({"ttgir": ("addf", "maxnumf")}, different("layout of reductions")),
    "layout": ({"ttgir": ("[1, 0]", "[0, 1]")}, different("layout of reductions")),
    "size": ({"ttgir": ("(tensor<16x8", "(tensor<16x16")}, different("layout of reductions")),
    "steps": ({"ptx": (MMA, MMA + "\n" + MMA)}, different("K chains", "loop")),
    "two accumulators": (
        {"ptx": (MMA, MMA + "\n" + MMA.replace("{%r2}", "{%r62}"))},
        {},  # how many rows are computed at once is no matter of order
    ),
    "from zero": (
        {"ptx": (MMA, "mov.b32 %r2, 0;\n" + MMA)},
        different("K chains"),
    ),
    "before": ({"ptx": ("sub.rn.f32", "add.rn.f32")}, different("before the loop")),
    "loop": ({"ptx": ("mul.rn.f32", "mul.rn.ftz.f32")}, different("loop")),
    "loop through memory": (
        {"ptx": ("ex2.approx.ftz", "ld.shared.b32 %r5, [%r9];\nex2.approx.ftz")},
        different("loop"),
    ),
    "exp": ({"ptx": ("ex2.approx.ftz", "ex2.approx")}, different("loop", "exp")),
    "atomics": ({"ptx": ("ret;", "red.global.add.f32 [%rd1], %r7;\nret;")}, different("atomics")),
    "atomics in Triton": (
        {"ttgir": (texts.DOT, texts.DOT + "%t = tt.atomic_rmw fadd, %p\n")},
        different("atomics"),
    ),
    "contraction": (
        {"strict_sass": texts.SASS.replace("FFMA", "FADD"), "fusion": True},
        different("contraction"),
    ),
    "stores nothing else": ({"ptx": (texts.STORE, "")}, {}),
}
COMBINE: dict[str, tuple[Change, dict[str, str]]] = {
    "merge": ({"ptx": ("fma.rn.f32", "fma.rn.ftz.f32")}, different("merge")),
    "more in the merge": (
        {"ptx": (LOOP_OF_MERGE, "neg.f32 %r70, %r11;\n" + LOOP_OF_MERGE)},
        different("merge"),
    ),
    "less in the merge": (
        {"ptx": ("fma.rn.f32 %r11, %r18, %r12, %r13;\n", "")},
        different("merge"),
    ),
    "merge through memory": (
        {"ptx": ("fma.rn", "ld.shared.b32 %r18, [%r9];\nfma.rn")},
        {},
    ),
    "finish through memory": (
        {"ptx": ("div.full", "ld.shared.b32 %r14, [%r9];\ndiv.full")},
        {},
    ),
    "finish": ({"ptx": ("lg2.approx.ftz", "lg2.approx")}, different("finish")),
    "exp": ({"ptx": ("ex2.approx.ftz", "ex2.approx")}, different("merge", "exp")),
    "atomics": ({"ptx": ("ret;", "atom.add.f32 %r1, [%rd1], %r7;\nret;")}, different("atomics")),
    "contraction": (
        {"strict_sass": texts.SASS.replace("FFMA", "FADD"), "fusion": True},
        different("contraction"),
    ),
    "no loop": ({"ptx": (LOOP_OF_MERGE, "")}, dict.fromkeys(WALK, "unknown")),
}
CASES = [("split", name, *case) for name, case in SPLIT.items()]
CASES += [("combine", name, *case) for name, case in COMBINE.items()]


@pytest.mark.parametrize(
    ("kernel", "change", "seen"),
    [(kernel, *case) for kernel, _, *case in CASES],
    ids=[f"{kernel}: {name}" for kernel, name, *_ in CASES],
)
def test_one_change_in_decode(kernel: str, change: Change, seen: dict[str, str]) -> None:
    found = compare(prefill(), decode(**{kernel: change}))  # type: ignore[arg-type]
    assert unlike(found) == seen
    worst = next((v for v in ("different", "unknown") if v in seen.values()), "same")
    assert found.verdict == worst
    if seen:
        assert {each.name for each in found.deciding} == {n for n, v in seen.items() if v == worst}


FUSED: dict[str, Any] = {"strict_sass": texts.SASS.replace("FFMA", "FADD"), "fusion": True}
ATOMIC: dict[str, Any] = {"ptx": ("ret;", "red.global.add.f32 [%rd1], %r7;\nret;")}


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [(FUSED, "contraction", "allowed, 1 made"), (ATOMIC, "atomics", "1")],
)
def test_what_no_declared_order_has_is_different_even_if_both_have_it(
    change: Change, field: str, words: str
) -> None:
    found = compare(prefill(**change), decode(change))
    (seen,) = found.deciding
    assert (seen.name, seen.left, seen.right) == (field, words, words)
    assert seen.note == "the declared order has none"


def test_contraction_is_told_even_where_nothing_was_contracted() -> None:
    allowed = {"strict_sass": texts.SASS, "fusion": True}
    found = {each.name: each for each in compare(prefill(), decode(combine=allowed)).fields}
    seen = found["contraction"]
    assert (seen.verdict, seen.left, seen.right) == ("same", "forbidden, 0 made", "allowed, 0 made")


def test_what_neither_side_has_is_the_same_and_told_as_none() -> None:
    bare = {"ttgir": (texts.SUM, "")}
    found = {each.name: each for each in compare(prefill(**bare), decode(bare)).fields}
    seen = found["layout of reductions"]
    assert (seen.verdict, seen.left, seen.right) == ("same", "none", "none")


def test_a_kind_that_is_only_another_form_of_the_same_is_no_reason_for_unknown() -> None:
    """mma.sync on both sides: whatever differs then differs."""
    change = {"ptx": ("m16n8k16", "m16n8k8"), "ttgir": ("[1, 0]", "[0, 1]")}
    assert "unknown" not in unlike(compare(prefill(), decode(change))).values()


def test_values_that_only_one_side_has_are_named() -> None:
    more = "".join(f"{op}.approx.f32 %r7{n}, %r5;\n" for n, op in enumerate(("rcp", "sqrt")))
    fields = {
        each.name: each
        for each in compare(prefill(), decode({"ptx": ("ex2.approx", more + "ex2.approx")})).fields
    }
    assert fields["loop"].note == "only decode: 1 rcp.approx.f32, 1 sqrt.approx.f32"
    other = {"ptx": ("mul.rn.f32", "mul.rn.ftz.f32")}
    fewer = {each.name: each for each in compare(prefill(), decode(other)).fields}
    assert fewer["loop"].note == (
        "only prefill: 1 ex2.approx.ftz.f32, 1 mul.rn.f32; "
        "only decode: 1 ex2.approx.ftz.f32, 1 mul.rn.ftz.f32"
    )


@pytest.mark.parametrize(("kinds", "counted"), [(4, False), (5, True)])
def test_many_kinds_of_values_are_counted(kinds: int, counted: bool) -> None:
    names = ("rcp", "sqrt", "lg2", "tanh", "ex2")[:kinds]
    more = "".join(f"{op}.approx.f32 %r7{n}, %r5;\n" for n, op in enumerate(names))
    found = compare(prefill(), decode({"ptx": ("ex2.approx.ftz", more + "ex2.approx.ftz")}))
    (note,) = (each.note for each in found.fields if each.name == "loop")
    assert note.endswith(f" {kinds} values") == counted
    assert note.startswith("only decode: ")


def test_a_merge_through_memory_says_that_it_is_hidden() -> None:
    found = compare(
        prefill(), decode(combine={"ptx": ("fma.rn", "ld.shared.b32 %r18, [%r9];\nfma.rn")})
    )
    (merge,) = (each for each in found.fields if each.name == "merge")
    assert "shared memory" in merge.note
    assert merge.left != merge.right
    assert all(each.note == "" for each in found.fields if each is not merge)


AFTER = "neg.f32 %r70, %r11;\n"


@pytest.mark.parametrize(("more", "verdict"), [(AFTER, "different"), ("", "same")])
@pytest.mark.parametrize("side", ["prefill", "decode"])
def test_more_in_a_merge_differs_where_the_walks_agree(side: str, more: str, verdict: str) -> None:
    change = {"ptx": (LOOP_OF_MERGE, more + LOOP_OF_MERGE)}
    sides = (
        (prefill(**change), decode()) if side == "prefill" else (prefill(), decode(combine=change))
    )
    fields = {each.name: each.verdict for each in compare(*sides).fields}
    assert (fields["loop"], fields["merge"]) == ("same", verdict)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ((LOOP_OF_MERGE, AFTER + LOOP_OF_MERGE), "unknown"),  # prefill has all of decode's, or
        (("fma.rn.f32 %r11, %r18, %r12, %r13;\n", ""), "unknown"),  # decode all of prefill's
        (("fma.rn.f32", "fma.rn.ftz.f32"), "different"),  # neither has all of the other's
    ],
)
@pytest.mark.parametrize("part", [("sub.rn.f32", "add.rn.f32"), ("mul.rn.f32", "mul.rn.ftz.f32")])
def test_more_in_a_merge_is_unknown_where_the_walks_differ(
    part: tuple[str, str], change: tuple[str, str], verdict: str
) -> None:
    """A pipelined walk ends behind its loop, where the merge is."""
    found = compare(prefill(ptx=change), decode({"ptx": part}))
    (merge,) = (each for each in found.fields if each.name == "merge")
    assert merge.verdict == verdict
    if verdict == "unknown":
        assert merge.note.startswith("the walks differ")
