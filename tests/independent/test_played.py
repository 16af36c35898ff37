"""Tool and scripts on raw tensors that are equal, or wrong in one place."""

from __future__ import annotations

from pathlib import Path

import net
import one_fault
import pytest
from net import BITS, HELD
from one_fault import CACHE_FAULTS, FAULTS, Fault, Plant


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.name)
def test_bits_and_drift(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = fault.planted(net.SEED)
    ran = net.play(tmp_path, monkeypatch, tables, BITS)
    seen = {"tokens": set(), "rows": set()}
    for path in BITS["paths"]:
        assert net.bits(ran, tables, path) == []
        assert net.drift(ran, tables, path) == []
        case = ran.case(relation="invariance", path=path, temperature=1.0)
        seen["tokens"] |= {path} if case["differing_tokens"] else set()
        seen["rows"] |= {path} if case["differing_rows"] else set()
    assert seen == {"tokens": set(fault.tokens), "rows": set(fault.rows)}


@pytest.mark.parametrize("plant", CACHE_FAULTS, ids=lambda each: each.__name__)
def test_what_a_cache_holds(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = one_fault.cached(plant, net.SEED)
    ran = net.play(tmp_path, monkeypatch, tables, HELD)
    assert net.contents(ran, tables, "decode") == []
    verdict = ran.case(relation="cache", path="decode")["verdict"]
    assert verdict == ("holds" if plant is one_fault.nothing else "differs")


@pytest.mark.parametrize("measure", ["max_abs_dlogp", "approx_kl0", "clipfrac0"])
def test_just_under_and_just_over_a_limit(
    measure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is put beside what the script measures, a billionth of it away."""
    tables = Fault(one_fault.far_from_float64).planted(net.SEED)
    verdicts: list[str] = []
    tight = net.play(tmp_path, monkeypatch, tables, net.exact(net.TIGHT))
    assert net.accuracy(tight, tables, net.TIGHT) == []
    limit = net.measured(tight, tables, 1.0).said[measure]
    assert limit > 0
    for number, beside in enumerate((1 + 1e-9, 1 - 1e-9)):
        folder = tmp_path / str(number)
        folder.mkdir()
        limits = {measure: limit * beside}
        ran = net.play(folder, monkeypatch, tables, net.exact(limits))
        assert net.accuracy(ran, tables, limits) == []
        verdicts.append(ran.case(relation="accuracy", temperature=1.0)["verdict"])
    assert verdicts == ["holds", "differs"]
