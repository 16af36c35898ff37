"""``replay`` names what made a case differ: columns by their names, and state between calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.run import worker
from kvparity.run.replay import _row
from kvparity.subjects.base import SubjectError, column_name
from kvparity.subjects.pair.model import HeadCounts, Pair
from kvparity.subjects.pair.subject import AttentionSubject

SPLITS = '''
import torch

KEYS, SPLITS = 4, 5
kept = {}


def attend(q, k, v, scale):
    group = q.shape[0] // k.shape[1]
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    s = (q[None] * k).sum(-1) * scale
    top = s.max(0).values
    p = torch.exp(s - top)
    return (p[..., None] * v).sum(0) / p.sum(0)[:, None], top + torch.log(p.sum(0))


def split(q, k, v, scale, row):
    """Empty splits are not written, and all are merged: what an earlier call left counts."""
    for s in range(SPLITS):
        part = slice(s * KEYS, (s + 1) * KEYS)
        if len(k[part]):
            kept[row, s] = attend(q, k[part], v[part], scale)
    parts = [kept[row, s] for s in range(SPLITS) if (row, s) in kept]
    lse = torch.logsumexp(torch.stack([part[1] for part in parts]), 0)
    return sum(part[0] * torch.exp(part[1] - lse)[:, None] for part in parts), lse


def forget():
    """Of prefill alone: both sides are functions of one module."""
    for row, s in list(kept):
        if row == "prefill":
            del kept[row, s]


def rows(pairs):
    return tuple(torch.stack(each) for each in zip(*pairs))


def prefill(q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale):
    found = []
    eq, ek = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for b in range(len(eq) - 1):
        for t in range(eq[b], eq[b + 1]):
            stop = ek[b + 1] - (eq[b + 1] - 1 - t)
            FORGET
            found.append(split(q[t], k[ek[b]:stop], v[ek[b]:stop], scale, "prefill"))
    return rows(found)


def decode(q, k, v, *, kv_lens, scale):
    return rows([split(q[i], k[i, :n], v[i, :n], scale, i) for i, n in enumerate(kv_lens.tolist())])
'''

CONTRACT = """\
version: 1
name: stale
subject: {{kind: attention, prefill: '{file}:prefill', decode: '{file}:decode',
          heads: {{query: 2, kv: 1, dim: 4}}}}
numerics: {{execution: float32}}
workloads: {workloads}
checks: [{{name: bits, relation: invariance, paths: [decode]}}]
controls: [stale-slot]
"""
LONG = "{name: long, prompt_tokens: [17], generate: 2}"
SHORT = "{name: short, prompt_tokens: [3], generate: 2}"


def run(folder: Path, workloads: str, capsys: Any, pair: str = SPLITS) -> str:
    """Verify, and replay the last case in a process that has run nothing before."""
    (folder / "stale.py").write_text(pair.replace("FORGET", "forget()"))
    contract = folder / "c.yaml"
    contract.write_text(CONTRACT.format(file="stale.py", workloads=workloads))
    main(["verify", str(contract), "--run-dir", str(folder / "run"), "--jobs", "1"])
    worker._subjects.clear()
    capsys.readouterr()
    return str(folder / "run")


def test_a_workspace_that_is_kept_between_calls_is_named(tmp_path: Path, capsys: Any) -> None:
    folder = run(tmp_path, f"[{LONG}, {SHORT}]", capsys)
    assert main(["replay", folder, "c001"]) == ExitCode.DIFFERS
    said = capsys.readouterr().out
    assert "Alone the case holds; rerun after the cases that came before it" in said
    assert "state between calls decides" in said


def test_a_case_that_differs_anyway_is_not_called_random_for_what_is_kept(
    tmp_path: Path, capsys: Any
) -> None:
    other = SPLITS.replace("return rows([split(q[i]", "return rows([split(2 * q[i]")
    assert other != SPLITS
    folder = run(tmp_path, f"[{LONG}, {SHORT}]", capsys, other)
    assert main(["replay", folder, "c001"]) == ExitCode.DIFFERS
    said = capsys.readouterr().out
    assert "Alone the case differs in another way; rerun after the cases before it" in said
    assert "it is as in the run: state between calls decides" in said
    assert "not deterministic" not in said


def test_what_is_another_at_every_call_is_said_to_keep_something_or_to_be_random(
    tmp_path: Path, capsys: Any
) -> None:
    count = "from itertools import count\nCALLS = count()\n"
    wanders = SPLITS.replace("split(q[i],", "split(next(CALLS) * q[i],")
    assert wanders != SPLITS
    folder = run(tmp_path, f"[{LONG}, {SHORT}]", capsys, count + wanders)
    assert main(["replay", folder, "c001"]) == ExitCode.DIFFERS
    said = capsys.readouterr().out
    assert "a third one after the cases that came before it: state between calls" in said
    assert "the machine changed" not in said


def test_what_changes_with_each_call_and_repeats_from_the_start_is_state(
    tmp_path: Path, capsys: Any
) -> None:
    """Another process gives the run's very bits, so chance decides nothing; a second call does."""
    count = "from itertools import count\nCALLS = count()\n"
    wanders = count + SPLITS.replace("split(q[i],", "split(next(CALLS) * q[i],")
    folder = run(tmp_path, f"[{SHORT}]", capsys, wanders)
    assert main(["replay", folder, "c000"]) == ExitCode.DIFFERS
    said = capsys.readouterr().out
    assert "decode gave different bits when rerun in it: state between calls decides" in said
    steady = SPLITS.replace("split(q[i],", "split(2 * q[i],")
    (tmp_path / "steady").mkdir()
    folder = run(tmp_path / "steady", f"[{SHORT}]", capsys, steady)
    assert main(["replay", folder, "c000"]) == ExitCode.DIFFERS
    said = capsys.readouterr().out
    assert "the same result as the run recorded" in said
    assert "state between calls" not in said


def test_what_fresh_processes_found_is_named_though_the_case_holds(
    tmp_path: Path, capsys: Any
) -> None:
    """Its two sides agree in a process that computes both; what one alone gave is in the run."""
    folder = run(tmp_path, f"[{SHORT}]", capsys)
    file = Path(folder) / "run.json"
    report = json.loads(file.read_text())
    (case,) = report["checks"][0]["cases"]
    case |= {"verdict": "differs", "recheck": "differs", "reason": "path decode: other bits"}
    file.write_text(json.dumps(report))
    assert main(["replay", folder, "c000"]) == ExitCode.DIFFERS
    said = capsys.readouterr().out
    assert said.startswith("c000: DIFFERS: path decode: other bits\n")
    assert "state between calls decides" in said
    assert "the same result as the run recorded" not in said
    for damaged in ("{", "[]", '{"checks": [{"cases": [7]}]}', '{"checks": 3}'):
        file.write_text(damaged)
        assert main(["replay", folder, "c000"]) == ExitCode.HOLDS


def test_the_same_subject_without_an_earlier_call_is_not_accused(
    tmp_path: Path, capsys: Any
) -> None:
    folder = run(tmp_path, f"[{SHORT}]", capsys)
    assert main(["replay", folder, "c000"]) == ExitCode.HOLDS
    assert "state between calls" not in capsys.readouterr().out


def test_what_no_order_of_calls_explains_is_called_not_deterministic(
    tmp_path: Path, capsys: Any
) -> None:
    folder = run(tmp_path, f"[{SHORT}]", capsys)
    cases = Path(folder) / "cases.jsonl"
    cases.write_text(cases.read_text().replace('"verdict": "holds"', '"verdict": "differs"'))
    assert main(["replay", folder, "c000"]) == ExitCode.VOID
    said = capsys.readouterr().out
    assert "the subject is not deterministic" in said
    assert "state between calls" not in said


def subject() -> AttentionSubject:
    kernel = lambda *_, **__: None  # noqa: E731 - never called
    return AttentionSubject(
        Pair.of(kernel, kernel, "p", "d"), HeadCounts(2, 1, 3), 1.0, torch.float32, torch.float32,
        torch.device("cpu"), 0,
    )  # fmt: skip


def test_columns_of_a_pair_have_names() -> None:
    names = [column_name(subject(), n) for n in range(8)]
    assert names[:2] == ["head 0, dim 0", "head 0, dim 1"]
    assert names[5:] == ["head 1, dim 2", "lse of head 0", "lse of head 1"]


def test_the_farthest_columns_are_those_of_the_largest_distance() -> None:
    a = torch.tensor([1e-30, 4.0, 0.5, float("nan")])
    b = torch.tensor([3e-30, 4.5, 0.5, 1.0])
    found = _row(subject(), a, b)
    assert (found["columns"], found["differing"]) == (4, 3)
    assert [each["column"] for each in found["farthest"]] == [3, 1, 0]
    assert [each["distance"] for each in found["farthest"]][:2] == ["inf", 0.5]


OWN = """
def helper():
    return [][3]


def fails():
    return helper()
"""


def test_an_exception_of_a_subject_keeps_its_file_and_line(tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(compile(OWN, str(tmp_path / "mine.py"), "exec"), scope)
    with pytest.raises(IndexError) as caught:
        scope["fails"]()
    found = SubjectError.of("decode", caught.value)
    assert str(found) == (
        "decode raised IndexError: list index out of range (in helper, mine.py:3)"
    )
    assert "in fails" in found.trace


def test_the_place_is_the_subjects_own_and_not_the_librarys(tmp_path: Path) -> None:
    scope: dict[str, Any] = {"torch": torch}
    text = "def product(): return torch.nn.functional.linear(torch.ones(2), torch.ones(3, 3))"
    exec(compile(text, str(tmp_path / "mine.py"), "exec"), scope)
    with pytest.raises(RuntimeError) as caught:
        torch.nn.Identity()(scope["product"])()
    assert str(SubjectError.of("decode", caught.value)).endswith("(in product, mine.py:1)")


def test_an_exception_that_cannot_be_shown_is_still_told() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert "raised OddError: (its message cannot be shown)" in str(
        SubjectError.of("decode", OddError())
    )
