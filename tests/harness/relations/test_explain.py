"""What is said beside the numbers: whose column it is, and why a row is NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode

PAIR = '''
import torch

TILE = 4


def row(q, k, v, n, scale, mask):
    """One row over all slots that it is given; those from n on are masked in one of two ways.
    Key by key, since torch's sums over many keys depend on how many there are."""
    k, v = (x.float().repeat_interleave(q.shape[0] // k.shape[1], 1) for x in (k, v))
    scores = [(q.float() * k[at]).sum(-1) * scale for at in range(n)]
    top = torch.stack(scores).max(0).values
    total, out = torch.zeros(q.shape[0]), torch.zeros(q.shape)
    for at in range(len(k)):
        p = torch.exp(scores[at] - top) if at < n else torch.zeros(q.shape[0])
        total = total + p
        if at < n or mask != "select":
            out = out + p[:, None] * v[at]
    return (out / total[:, None]).to(q.dtype)


def prefill(q, k, v, *, cu_seqlens_q, cu_seqlens_k, scale):
    out = torch.zeros_like(q)
    eq, ek = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for b in range(len(eq) - 1):
        for t in range(eq[b], eq[b + 1]):
            stop = ek[b + 1] - (eq[b + 1] - 1 - t)
            own = slice(ek[b], stop)
            out[t] = row(q[t], k[own], v[own], stop - ek[b], scale, "select")
    return out


def decode(q, k, v, *, kv_lens, scale):
    out = torch.zeros_like(q)
    for i, n in enumerate(kv_lens.tolist()):
        if n:
            out[i] = FAULT(row(q[i], k[i], v[i], n, scale, "MASK"))
    return out
'''

CONTRACT = """\
version: 1
name: nan
subject: {kind: attention, prefill: 'pair.py:prefill', decode: 'pair.py:decode',
          heads: {query: 2, kv: 1, dim: 4}}
numerics: {execution: float32}
workloads: [{name: w, prompt_tokens: [3, 6], generate: 3}]
checks: [{name: bits, relation: invariance, paths: [decode, batched]}]
controls: [stale-slot]
"""


def verify(folder: Path, capsys: Any, *, mask: str, fault: str = "") -> list[dict[str, Any]]:
    (folder / "pair.py").write_text(PAIR.replace("MASK", mask).replace("FAULT", fault))
    (folder / "c.yaml").write_text(CONTRACT)
    main(["verify", str(folder / "c.yaml"), "--run-dir", str(folder / "run"), "--jobs", "1",
          "--json"])  # fmt: skip
    out, err = capsys.readouterr()
    (folder / "text").write_text(err)
    cases: list[dict[str, Any]] = json.loads(out)["checks"][0]["cases"]
    return cases


def test_nan_of_unused_slots_is_explained(tmp_path: Path, capsys: Any) -> None:
    for case in verify(tmp_path, capsys, mask="multiply"):
        assert case["verdict"] == "differs"
        assert "NaN or Inf in an active token" in case["reason"]
        assert "slots past kv_lens hold NaN, and decode multiplies masked values" in case["reason"]
    capsys.readouterr()
    # A replay finds the same words.
    assert main(["replay", str(tmp_path / "run"), "c001"]) == ExitCode.DIFFERS
    assert "the same result as the run recorded" in capsys.readouterr().out


def test_a_selecting_mask_is_right(tmp_path: Path, capsys: Any) -> None:
    assert {c["verdict"] for c in verify(tmp_path, capsys, mask="select")} == {"holds"}


@pytest.mark.parametrize("fault", ["(lambda x: x * float('nan'))"])
def test_another_nan_is_not_blamed_on_slots(tmp_path: Path, capsys: Any, fault: str) -> None:
    for case in verify(tmp_path, capsys, mask="select", fault=fault):
        assert case["reason"] == "NaN or Inf in an active token"


def test_a_column_of_a_pair_is_named_in_text_and_json(tmp_path: Path, capsys: Any) -> None:
    fault = "(lambda x: x + torch.tensor([[0.0] * 4, [0.0, 0.0, 1.0, 0.0]]))"
    case = verify(tmp_path, capsys, mask="select", fault=fault)[0]
    assert case["first_divergence"]["column"] == 6
    assert case["first_divergence"]["name"] == "head 1, dim 2"
    assert "position 3, head 1, dim 2:" in (tmp_path / "text").read_text()
