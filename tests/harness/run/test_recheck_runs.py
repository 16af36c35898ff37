"""Fresh processes in whole runs: a memo that both sides share, what is looked at, what is said."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import toy
from run_documents import case, unchecked
from warm import Warm

from kvparity.core.errors import SubjectError, UnsupportedError
from kvparity.core.exit_codes import ExitCode
from kvparity.plan.cases import make
from kvparity.relations.invariance import InvarianceCase
from kvparity.report.lines import FreshRows, UnitLine
from kvparity.run.recheck import selection, zygote
from kvparity.run.recheck.outcome import Outcome, judged, outcome
from kvparity.run.recheck.selection import select

MEMO = '''
import torch

FAULT = 1e-6
kept = {}


def row(q, k, v, scale, more):
    """A row that was ever computed is looked up: the other side's serves as well."""
    name = (tuple(q.reshape(-1).tolist()), len(k))
    if name not in kept:
        k, v = (x.repeat_interleave(q.shape[0] // k.shape[1], 1) for x in (k, v))
        p = torch.softmax((q[None] * k).sum(-1) * scale, 0)
        kept[name] = (p[..., None] * v).sum(0) * (1 + more)
    return kept[name]


def prefill(q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale):
    out = torch.zeros_like(q)
    eq, ek = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for b in range(len(eq) - 1):
        for t in range(eq[b], eq[b + 1]):
            own = slice(ek[b], ek[b + 1] - (eq[b + 1] - 1 - t))
            out[t] = row(q[t], k[own], v[own], scale, 0.0)
    return out


def decode(q, k, v, *, kv_lens, scale):
    out = torch.zeros_like(q)
    for i, n in enumerate(kv_lens.tolist()):
        if n:
            out[i] = row(q[i], k[i, :n], v[i, :n], scale, FAULT)
    return out
'''

CONTRACT = """\
version: 1
name: memo
subject: {kind: attention, prefill: 'memo.py:prefill', decode: 'memo.py:decode',
          heads: {query: 2, kv: 1, dim: 4}}
numerics: {execution: float32}
workloads: [{name: w, prompt_tokens: [3, 6], generate: 3}]
checks: [{name: bits, relation: invariance, paths: [decode]}]
controls: [stale-slot]
"""


def verify(warm: Warm, folder: Path, text: str) -> tuple[int, dict[str, Any], str]:
    (folder / "memo.py").write_text(text)
    (folder / "c.yaml").write_text(CONTRACT)
    asked = ["verify", "c.yaml", "--json", "--run-dir", "r", "--jobs", "1"]
    done = warm.run(*asked, folder=folder)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_memo_that_makes_both_sides_agree_is_found(tmp_path: Path, warm: Warm) -> None:
    code, report, said = verify(warm, tmp_path, MEMO)
    assert code == ExitCode.DIFFERS, said
    (case,) = report["checks"][0]["cases"]
    assert case["differing_tokens"] == 0
    assert "a fresh process that has not seen the other side gives different bits" in case["reason"]
    assert report["recheck"]["differing"]
    assert "paths were recomputed in fresh processes: 1 path differs" in said
    assert "state" in said


def test_without_a_difference_the_same_pair_agrees_with_fresh_processes(
    tmp_path: Path, warm: Warm
) -> None:
    _, report, said = verify(warm, tmp_path, MEMO.replace("FAULT = 1e-6", "FAULT = 0.0"))
    found = report["recheck"]
    assert (found["paths"], found["of"], found["differing"]) == (2, 2, [])
    assert found["rows"] >= 2
    assert "2 of 2 paths were recomputed in fresh processes: all alike" in said


# the choice


def test_all_paths_of_a_small_run_are_looked_at_each_side_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selection, "FLOOR", 10_000)
    contract = toy.contract()
    work = make(contract)
    cases = [case for unit in work.units for case in unit.cases]
    found = select(contract, work.units, {case.id: "holds" for case in cases})
    sides = [[str(p) for p in r.paths] for r in found.requests if r.unit.workload == "short"]
    assert ["prefill"] in sides
    assert all("prefill" not in side or side == ["prefill"] for side in sides)
    assert found.paths == found.of


def test_only_what_holds_is_looked_at() -> None:
    contract = toy.contract()
    work = make(contract)
    cases = {case.id: case for unit in work.units for case in unit.cases}
    verdicts = dict.fromkeys(cases, "differs")
    assert select(contract, work.units, verdicts).requests == ()
    one = next(name for name, c in cases.items() if str(c.path) == "decode" and c.reference)
    found = select(contract, work.units, verdicts | {one: "holds"})
    assert sorted(str(p) for r in found.requests for p in r.paths) == ["decode", "prefill"]


# what it means


def test_a_case_that_rests_on_an_unlike_row_differs_and_no_other() -> None:
    work = make(toy.contract())
    unit = work.units[0]
    lines = [InvarianceCase.model_validate(case(id=c.id)) for u in work.units for c in u.cases]
    found = judged(work.units, lines, Outcome({(unit.id, "batched"): "position 3 of sequence 0"}))
    hit = {line.id for line in found if line.verdict == "differs"}
    assert hit == {c.id for c in unit.cases if "batched" in (str(c.path), str(c.reference))}
    reference = judged(work.units, lines, Outcome({(unit.id, "prefill"): "x"}))
    assert {line.id for line in reference if line.verdict == "differs"} == {
        c.id for c in unit.cases if "prefill" in (str(c.path), str(c.reference))
    }


def test_rows_of_another_unit_are_not_compared() -> None:
    work = make(toy.contract())
    none = select(toy.contract(), work.units, {})
    rows: dict[str, Any] = {"decode": ((0, 3, "0x" + "1" * 16, ()),)}
    recorded = unchecked(UnitLine, {"unit": "a", "rows": rows})
    same = outcome(none, recorded, [FreshRows(unit="a", rows=rows)])
    assert same.unlike == {}
    other = outcome(none, recorded, [FreshRows(unit="b", rows=rows)])
    assert other.unlike == {("b", "decode"): "position 3 of sequence 0"}


# the processes


def _started() -> int:
    """A worker that asks for three processes, one of which remembers nothing of another."""
    zygote.start()
    assert zygote.here()
    ids = [zygote.ask(_remember) for _ in range(2)]
    assert [seen for _, seen in ids] == [1, 1], ids
    assert ids[0][0] != ids[1][0]
    for function, error, words in (
        (_raises, SubjectError, "KeyError: 'gone'"),
        (_refuses, UnsupportedError, "not here"),
        (_exits, SubjectError, "ended the process .exit code 7."),
        (_dies, SubjectError, "ended the process .SIGKILL."),
        (_leaves, SubjectError, "SystemExit: 0"),
    ):
        with pytest.raises(error, match=words):
            zygote.ask(function)
    assert zygote.ask(_remember)[1] == 1  # it goes on
    return 0


_seen: list[int] = []


def _remember() -> list[int]:
    _seen.append(1)
    return [os.getpid(), len(_seen)]


def _raises() -> None:
    raise KeyError("gone")


def _refuses() -> None:
    raise UnsupportedError("not here")


def _exits() -> None:
    os._exit(7)


def _dies() -> None:
    os.kill(os.getpid(), 9)


def _leaves() -> None:
    raise SystemExit(0)


def test_each_request_has_a_process_of_its_own() -> None:
    pid = zygote._copied()
    if not pid:  # a worker
        code = 1
        try:
            code = _started()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
