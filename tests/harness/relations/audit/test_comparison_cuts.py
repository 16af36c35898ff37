"""Sides that are cut in another way: unrolled merges, walks without a loop, two of prefill."""

from __future__ import annotations

from typing import Any

import kernel_texts as texts
import pytest
from kernel_texts import decode, prefill
from test_comparison import LOOP_OF_MERGE, MMA, WALK, different, unlike

from kvparity.relations.audit.compare import KernelComparison, compare
from kvparity.relations.audit.views import AuditSide

ONE = """max.f32 %r8, %r9, %r10;
ex2.approx.ftz.f32 %r18, %r8;
selp.f32 %r17, %r8, %r18, %p4;
fma.rn.f32 %r11, %r17, %r12, %r13;
selp.f32 %r9, %r8, %r9, %p3;
selp.f32 %r13, %r11, %r13, %p3;
"""
LOADED = "ld.shared.b32 %r10, [%r99];\nld.shared.b32 %r12, [%r99];\n"
OLD = texts.MERGE.replace(LOOP_OF_MERGE, "")


def merging(times: int, fault: int | None = None) -> AuditSide:
    """Decode that merges several splits in one turn, of which one may be merged in another way."""
    each = [
        LOADED + (ONE.replace("fma.rn", "fma.rn.ftz") if at == fault else ONE)
        for at in range(times)
    ]
    return decode(combine={"ptx": (OLD, "\n" + "".join(each))})


@pytest.mark.parametrize("times", [1, 2, 5])
def test_several_merges_in_one_turn_are_one_merge(times: int) -> None:
    found = compare(prefill(ptx=(OLD, "\n" + ONE)), merging(times))
    assert unlike(found) == {}


@pytest.mark.parametrize(("times", "fault"), [(1, 0), (2, 0), (2, 1), (5, 3)])
def test_one_of_them_in_another_form_is_seen(times: int, fault: int) -> None:
    found = compare(prefill(ptx=(OLD, "\n" + ONE)), merging(times, fault))
    assert unlike(found) == different("merge")


def test_what_decode_stores_is_no_part_of_the_merge_behind_a_pipelined_loop() -> None:
    ends = (texts.MERGE, "\n" + texts.STORE + texts.MERGE)
    assert unlike(compare(prefill(ptx=ends), decode())) == {}
    bare = decode({"ptx": (texts.STORE, "")})
    assert unlike(compare(prefill(ptx=ends), bare)) == different("merge")


def test_values_that_only_move_between_threads_are_merged_alike() -> None:
    moved = ("fma.rn", "shfl.sync.bfly.b32 %r18, %r18, 8, 31, -1;\nfma.rn")
    assert unlike(compare(prefill(), decode(combine={"ptx": moved}))) == {}
    moved = ("lg2", "shfl.sync.bfly.b32 %r15, %r8, 8, 31, -1;\nlg2")
    assert unlike(compare(prefill(ptx=moved), decode(combine={"ptx": moved}))) == {}
    # In the walk an exchange is a step of a sum.
    moved = ("mul.rn", "shfl.sync.bfly.b32 %r2, %r2, 8, 31, -1;\nmul.rn")
    assert unlike(compare(prefill(), decode({"ptx": moved}))) == different("loop")


def two(**changes: tuple[str, str]) -> KernelComparison:
    return compare(prefill(), prefill(**changes))


def test_prefill_with_prefill() -> None:
    """As a contiguous cache is compared with pages."""
    found = two()
    assert unlike(found) == {}
    assert "none" not in {each.left for each in found.fields}
    assert unlike(two(ptx=("fma.rn.f32", "fma.rn.ftz.f32"))) == different("merge")
    assert unlike(two(ptx=("lg2.approx.ftz", "lg2.approx"))) == different("finish")
    assert unlike(two(ptx=("mul.rn.f32", "mul.rn.ftz.f32"))) == different("loop")
    assert unlike(two(ptx=("sub.rn.f32", "add.rn.f32"))) == different("before the loop")


UNROLLED = [("$L__BB0_2:\n", ""), ("@%p1 bra $L__BB0_2;\n", "")]


def straight(text: str, *changes: tuple[str, str]) -> str:
    for old, new in (*UNROLLED, *changes):
        assert old in text, old
        text = text.replace(old, new)
    return text


def woven(
    left: tuple[tuple[str, str], ...] = (),
    split: tuple[tuple[str, str], ...] = ((texts.STORE, ""),),
    combine: tuple[str, str] = ("ret;", "ret;"),
) -> KernelComparison:
    """Splits of one tile, so the walk is part of the loop that merges."""
    return compare(
        prefill(ptx=straight(texts.PREFILL, *left)),
        decode({"ptx": straight(texts.SPLIT, *split)}, {"ptx": combine}),
    )


def test_a_walk_without_a_loop_is_known_by_its_values() -> None:
    found = woven()
    assert unlike(found) == {}
    fields = {each.name: each.left for each in found.fields}
    assert fields["before the loop"] == "none"
    assert "none" not in {fields[name] for name in ("K chains", "loop", "merge", "finish")}


BARE = (texts.STORE, "")
WOVEN: dict[str, tuple[dict[str, Any], set[str]]] = {
    "store": ({"split": ()}, {"loop"}),
    "walk": ({"split": (BARE, ("mul.rn.f32", "mul.rn.ftz.f32"))}, {"loop", "merge"}),
    "merge of prefill": ({"left": (("fma.rn.f32", "fma.rn.ftz.f32"),)}, {"merge"}),
    "merge of decode": ({"combine": ("fma.rn.f32", "fma.rn.ftz.f32")}, {"merge"}),
    "finish": ({"combine": ("lg2.approx.ftz", "lg2.approx")}, {"finish"}),
    "steps": ({"split": (BARE, (MMA, MMA + "\n" + MMA))}, {"K chains", "loop", "merge"}),
}


@pytest.mark.parametrize("name", WOVEN)
def test_differences_beside_a_woven_walk_may_be_the_weaving(name: str) -> None:
    changes, seen = WOVEN[name]
    found = woven(**changes)
    assert unlike(found) == dict.fromkeys(seen, "unknown")
    assert all("not a loop of its own" in each.note for each in found.deciding)


def test_woven_prefill_with_prefill() -> None:
    one = prefill(ptx=straight(texts.PREFILL))
    found = compare(one, one)
    assert unlike(found) == {}
    fields = {each.name: each.left for each in found.fields}
    assert {name for name in WALK if fields[name] == "none"} == {"before the loop", "merge"}
    other = prefill(ptx=straight(texts.PREFILL, ("mul.rn.f32", "mul.rn.ftz.f32")))
    assert unlike(compare(one, other)) == {"loop": "unknown"}


@pytest.mark.parametrize("side", ["prefill", "decode"])
def test_a_loop_on_one_side_alone_is_not_comparable(side: str) -> None:
    if side == "prefill":
        found = compare(prefill(), decode({"ptx": straight(texts.SPLIT)}))
    else:
        found = compare(prefill(ptx=straight(texts.PREFILL)), decode())
    assert unlike(found) == dict.fromkeys(WALK, "unknown")
    assert {each.note for each in found.deciding} == {
        f"only {side} has a loop over tiles of its own"
    }
    assert [each.name for each in found.deciding] == [
        each.name for each in found.fields if each.name in WALK
    ]


@pytest.mark.parametrize(
    ("kernel", "change", "words"),
    [
        ("combine", (LOOP_OF_MERGE, ""), "no loop that merges splits"),
        ("split", (MMA, ""), "shows no chain of matrix products"),
    ],
)
def test_why_a_side_is_not_visible(kernel: str, change: tuple[str, str], words: str) -> None:
    found = compare(prefill(), decode(**{kernel: {"ptx": change}}))
    hidden = [each for each in found.fields if each.name in WALK]
    assert {each.verdict for each in hidden} == {"unknown"}
    assert all(each.note.startswith("decode") and words in each.note for each in hidden)
    assert {each.left for each in hidden} == {each.right for each in hidden} == {"not visible"}


def test_signatures_do_not_depend_on_names() -> None:
    one, other = prefill().walk, prefill(hash="xyz", ptx=("%r20", "%r520")).walk
    assert one == other
    assert (one.hash, one.parts) != (other.hash, other.parts)
    assert one.as_json() == other.as_json()
    assert one != prefill(ptx=("sub.rn.f32", "add.rn.f32")).walk


def test_numbers_in_front_of_the_kernel_are_known_in_all_its_parts() -> None:
    held = ("mov.b32 %r90, 1;", "mov.b32 %r12, 0f3F800000;")
    named = ("%r18, %r12,", "%r18, 0f3F800000,")
    found = compare(prefill(ptx=held), decode(combine={"ptx": named}))
    assert unlike(found) == {}
    other = ("%r18, %r12,", "%r18, 0f40000000,")
    assert unlike(compare(prefill(ptx=held), decode(combine={"ptx": other}))) == different("merge")
