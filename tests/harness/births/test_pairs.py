"""A pair of kernels: where its rows part, and whether one side is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest
import torch
from few import few
from pair_contracts import PAIRS, verify, write

from kvparity.births.pair_causes import distance, wrong_side
from kvparity.cli.main import main
from kvparity.labs.defect_matrix.work import build
from kvparity.subjects.pair.exact import in_format
from kvparity.subjects.pair.subject import AttentionSubject

KERNEL = f"""
import importlib.util

spec = importlib.util.spec_from_file_location("given_pairs", {str(PAIRS)!r})
pairs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pairs)


def decode(q, k_cache, v_cache, *, kv_lens, scale):
    k, v = k_cache.clone(), v_cache.clone()
    lens = kv_lens.clone()
    for b, n in enumerate(kv_lens.tolist()):
        CHANGE
    return pairs.decode(q, k, v, kv_lens=lens, scale=scale)
"""
TURNED = "k[b, :n], v[b, :n] = k[b, :n].flip(0), v[b, :n].flip(0)"
CHANGES = {
    "another order of all keys": (TURNED, "reduction order", None),
    "another order from 12 keys on": (f"if n >= 12: {TURNED}", "reduction order", 12),
    "a key too few from 7 keys on": ("lens[b] -= int(n >= 7)", "mask or window", 7),
}


def located(folder: Path, change: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    (folder / "mine.py").write_text(KERNEL.replace("CHANGE", change))
    contract = write(folder, decode="mine.py:decode")
    text = contract.read_text()
    contract.write_text(text.replace("[2, 5]", "[2, 5, 6, 8, 10]"))
    assert verify(contract, folder / "run") in (0, 1)
    capsys.readouterr()
    code = main(["locate", str(folder / "run"), "c000", "--json"])
    return code, capsys.readouterr().out


@pytest.mark.parametrize("name", few(CHANGES, 1))
def test_rows_part_where_the_kernel_changes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, kind, edge = CHANGES[name]
    code, out = located(tmp_path, change, capsys)
    found = json.loads(out)
    assert code == 0
    assert found["cause"]["kind"] == kind
    assert found["wrong_side"] == (1 if kind != "reduction order" else None)
    if edge is not None:
        assert found["equal_up_to_keys"] == edge - 1
        assert found["differs_from_keys"] == edge
    assert found["first"]["position"] == found["differs_from_keys"] - 1
    main(["locate", str(tmp_path / "run"), "c000"])
    text = capsys.readouterr().out
    assert f"cause: {kind}: " in text
    assert ("decode is wrong" in text) is (kind != "reduction order")


ALONE = """

def prefill_alone(*args, **more):
    return pairs.prefill(*args, **more)[0]


def decode_alone(*args, **more):
    return decode(*args, **more)[0]
"""


def test_a_pair_without_an_lse_is_located(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(KERNEL.replace("CHANGE", TURNED) + ALONE)
    both = {"prefill": "mine.py:prefill_alone", "decode": "mine.py:decode_alone"}
    assert verify(write(tmp_path, **both), tmp_path / "run") == 1
    capsys.readouterr()
    assert main(["locate", str(tmp_path / "run"), "c000"]) == 0
    assert "cause: reduction order: " in capsys.readouterr().out


def test_equal_rows_have_no_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = located(tmp_path, "pass", capsys)
    found = json.loads(out)
    assert code == 5
    assert (found["differing_rows"], found["cause"]["kind"]) == (0, "no difference")
    assert main(["locate", str(tmp_path / "run"), "c004", "--svg", "x.svg"]) == 2


def test_o_and_lse_are_measured_by_the_roundings_of_their_own_format() -> None:
    """A key too few of many hides in the largest elements of a bfloat16 O, and not in the LSE."""
    subject = build("pair", "cpu").setting.subject
    pair = in_format(cast(AttentionSubject, subject), "bfloat16", "bfloat16")
    width = pair.heads.out
    exact = torch.randn(4, width + 2, generator=torch.Generator().manual_seed(0)).double()
    right = exact.clone()
    right[:, :width] = exact[:, :width].bfloat16().double()
    assert distance(pair, right, exact) <= 1
    for column, by in ((width, 1e-3), (0, 1.0)):
        wrong = right.clone()
        wrong[:, column] += by
        assert distance(pair, wrong, exact) > 1


def test_where_both_sides_are_far_from_float64_both_are_wrong() -> None:
    """Else a fault of both kernels would be called another order of their sums."""
    pair = cast(AttentionSubject, build("pair", "cpu").setting.subject)
    exact = torch.ones(2, pair.heads.out + 2).double()
    assert wrong_side(pair, 1.5 * exact, 1.4 * exact, exact) == 1
    assert wrong_side(pair, 1.001 * exact, 1.002 * exact, exact) is None
    assert wrong_side(pair, 1.5 * exact, exact, exact) == 0
