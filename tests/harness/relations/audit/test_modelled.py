"""``kvparity order --as``: trees with fused nodes, of kernels that the other tests compile."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from audit_cases import ORDER, SHAPE

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.relations.audit.lanes import sum_words
from kvparity.relations.audit.request import AuditError, Request
from kvparity.relations.audit.views import AuditSide
from kvparity.relations.order.modelled import modelled
from kvparity.relations.order.modelled_text import render_modelled
from kvparity.relations.order.tree import SumTree
from kvparity_contracts.subjects import OWN_KERNELS
from kvparity_kernels import tensor_cores

KEYS = 150  # a split of 128, of four tiles, and one tile of 22


@pytest.fixture(autouse=True)
def kept(
    compiled_at: Path, sides: dict[Request, AuditSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVPARITY_AUDIT_CACHE", str(compiled_at))
    monkeypatch.setattr(
        "kvparity.relations.audit.compile.subprocess.Popen",
        lambda *arguments, **more: pytest.fail("a compiler was started"),
    )


def fused(n: int, *chains: list[tuple[int, int]]) -> SumTree:
    """Chains of ranges of terms, each all at once with the sum so far; their sums are added."""
    nodes: list[tuple[int, ...]] = []
    total: int | None = None
    for chain in chains:
        part: int | None = None
        for start, stop in chain:
            nodes.append((*(() if part is None else (part,)), *range(start, stop)))
            part = n + len(nodes) - 1
        if total is not None and part is not None:
            nodes.append((total, part))
            part = n + len(nodes) - 1
        total = part
    return SumTree.build(n, nodes)


def steps(start: int, stop: int, by: int) -> list[tuple[int, int]]:
    return [(at, min(at + by, stop)) for at in range(start, stop, by)]


@pytest.mark.parametrize(
    ("arch", "terms", "kept_bits", "lanes"),
    [("sm_80", 8, 24, 4), ("sm_90", 16, 25, 4), ("sm_100", 16, 25, 2)],
)
def test_the_trees_of_an_architecture(arch: str, terms: int, kept_bits: int, lanes: int) -> None:
    (found,) = modelled(arch, SHAPE, ORDER, [KEYS])
    assert found.compiled.verdict == "same"
    decode, prefill = found.sides
    assert (decode.label, prefill.label) == ("decode", "prefill")
    assert (decode.sums, decode.denominator) == (prefill.sums, prefill.denominator)
    products, keys = decode.sums
    assert products.tree == fused(16, steps(0, 16, terms))
    assert keys.tree == fused(KEYS, steps(0, 128, terms), steps(128, KEYS, terms))
    for each in decode.sums:
        assert (each.unit.terms, each.unit.kept) == (terms, kept_bits)
        assert f"L {terms} products" in each.words
        assert f"F {kept_bits} bits" in each.words
        assert "toward zero" in each.words
    assert decode.denominator.startswith(f"each of {lanes} lanes adds its {32 // lanes} of ")
    ways = ("as a balanced tree", "one after the other; then lanes")  # of Triton 3.9, and before
    assert sum(way in decode.denominator for way in ways) == 1
    said = render_modelled([found])
    assert "SAME on" in said
    assert "decode and prefill" in said
    assert "settled on a device: not measured" in said


def test_a_window_begins_inside_a_group() -> None:
    (found,) = modelled("sm_90", SHAPE, ORDER, [40], window=30)
    keys = found.sides[0].sums[1]
    assert found.first == 10
    assert keys.tree == fused(30, [(0, 6), (6, 22), (22, 30)])
    assert "keys 10 .. 39" in render_modelled([found])


def test_the_table_decides_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    table = [
        replace(each, unit=replace(each.unit, terms=4))
        if (each.architecture, each.instruction) == ("sm_90", "wgmma")
        else each
        for each in tensor_cores.TABLE
    ]
    monkeypatch.setattr(tensor_cores, "TABLE", tuple(table))
    (found,) = modelled("sm_90", SHAPE, ORDER, [20])
    assert found.sides[0].sums[0].tree == fused(16, steps(0, 16, 4))
    monkeypatch.setattr(tensor_cores, "TABLE", ())
    with pytest.raises(AuditError, match="is not in the table of tensor cores"):
        modelled("sm_90", SHAPE, ORDER, [20])


def test_sides_that_add_otherwise_are_told_apart() -> None:
    (found,) = modelled("sm_90", SHAPE, ORDER, [20])
    decode, prefill = found.sides
    other = replace(found, sides=(replace(decode, denominator="another"), prefill))
    said = render_modelled([other])
    assert "decode and prefill" not in said
    assert said.count("key order") == 2


def test_what_is_not_read_of_a_row_is_said(sides: dict[Request, AuditSide]) -> None:
    walk = sides[Request("prefill", "sm_90", SHAPE, ORDER)].walk
    strange = tuple(replace(each, layout="blocked(x)") for each in walk.structure.reduces)
    assert sum_words(strange, walk.loop) == "not read: the layout is blocked(x)"
    assert "in a form that is not read" in sum_words(walk.structure.reduces, walk.after)
    shared = tuple(
        replace(e, layout=e.layout.replace("[4, 1]", "[2, 2]").replace("16, 32, 16", "16, 16, 16"))
        for e in walk.structure.reduces
    )
    assert "2 warps share a row" in sum_words(shared, walk.loop)


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., int]:
    path = tmp_path / "small.yaml"
    path.write_text(
        "version: 1\nname: small\nsubject:\n  kind: attention\n"
        f"  prefill: {OWN_KERNELS[0]}\n  decode: {OWN_KERNELS[1]}\n"
        f"  heads: {{query: {SHAPE.query_heads}, kv: {SHAPE.kv_heads}, dim: {SHAPE.head_dim}}}\n"
        f"  order: {{split: {ORDER.split}, tile: {ORDER.tile}}}\n"
        "numerics: {execution: bfloat16}\n"
        "workloads:\n  - {name: edge, prompt_tokens: [63], generate: 2}\n"
        "checks:\n  - {name: claim, relation: invariance, paths: [decode]}\n"
        "controls: [split-by-batch]\n"
    )
    return lambda *more: main(["order", str(path), *more])


def test_the_command(
    order: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "trees.svg"
    assert order("--as", "sm_90", "--keys", "20,40", "--json", "--svg", str(picture)) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["verdict"] == "same"
    assert [each["keys"] for each in document["reports"]] == [20, 40]
    part = document["reports"][1]["sides"][0]["parts"][1]
    assert (part["L"], part["F"], part["rounding"], part["fan_out"]) == (16, 25, "toward zero", 17)
    assert part["text"].startswith("40;0,1,2,")
    assert "SAME on sm_90 at 40 keys" in err
    ElementTree.fromstring(picture.read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--as", "sm_91"], "'sm_91' is unknown; expected one of sm_80, sm_89, sm_90, sm_100"),
        (["--as", "sm_90", "--draws", "3"], "--draws: --as runs nothing; leave it out"),
        (["--as", "sm_90", "--seed", "0"], "--seed: --as runs nothing; leave it out"),
        (["--as", "sm_90", "--rows", "3", "--device", "cpu"], "--rows, --device: --as runs"),
        (["--as", "sm_90", "--keys", "0"], "--keys 0: expected at least 1 key"),
    ],
)
def test_bad_arguments(
    order: Callable[..., int], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert order(*arguments) == ExitCode.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (",".join(OWN_KERNELS), "float32 is multiplied by plain fma"),
        ("math:sqrt,math:sqrt", "only this project's own kernels"),
    ],
)
def test_kernels_without_tensor_cores(
    pair: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["order", pair, "--as", "sm_90"]) == ExitCode.USAGE
    assert said in capsys.readouterr().err
