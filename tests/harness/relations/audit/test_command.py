"""``kvparity audit`` as a user runs it: what it says and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audit_cases import ORDER, SHAPE

from kvparity.cli.main import main
from kvparity.relations.audit import contract as auditing
from kvparity.relations.audit.request import AuditError, Request
from kvparity.relations.audit.views import AuditSide
from kvparity.relations.audit.words import CANNOT

SUBJECT = "kvparity_kernels.attention"


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(f"""\
version: 1
name: small
about: The pair that the other tests have compiled.
subject:
  kind: attention
  prefill: {SUBJECT}:prefill
  decode: {SUBJECT}:decode
  heads: {{query: {SHAPE.query_heads}, kv: {SHAPE.kv_heads}, dim: {SHAPE.head_dim}}}
  order: {{split: {ORDER.split}, tile: {ORDER.tile}}}
numerics: {{execution: bfloat16}}
workloads:
  - {{name: edge, prompt_tokens: [63], generate: 2}}
checks:
  - {{name: claim, relation: invariance, paths: [decode]}}
controls: [split-by-batch]
""")
    return path


@pytest.fixture
def audit(compiled_at: Path, sides: dict[Request, AuditSide], contract: Path):  # type: ignore[no-untyped-def] # a closure
    def run(*arguments: str, path: Path = contract) -> int:
        return main(["audit", str(path), "--cache", str(compiled_at), *arguments])

    return run


def test_the_same(audit, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert audit("--arch", "sm_90") == 0
    out = capsys.readouterr().out
    assert "small: SAME" in out
    assert "[same] sm_90  prefill | decode  4/2 heads of 16, bfloat16, cache bfloat16" in out
    assert "That is no proof of equal bits" in out
    assert all(each in out for each in CANNOT)


def test_equal_by_model_says_so_and_is_no_green_light(
    audit, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    assert audit("--arch", "sm_90", "--against", "block_m=16") == 5
    out = capsys.readouterr().out
    assert "small: EQUAL BY MODEL" in out
    assert "decode with block_m 16 for 64" in out
    assert "wgmma on sm_90: L 16, F 25" in out
    assert "settled on a device: not measured" in out


def test_different_exits_1(audit, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    assert audit("--arch", "sm_90", "--against", "num_warps=8", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "different"
    assert document["cannot_prove"] == list(CANNOT)
    (pair,) = document["pairs"]
    assert pair["candidate_order"]["num_warps"] == 8
    assert "layout of reductions" in pair["deciding"]
    assert {"name", "left", "right", "verdict", "note"} == set(pair["fields"][0])


def test_all_architectures_without_a_device(
    audit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert audit("--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["arch"] for each in document["pairs"]] == ["sm_80", "sm_90", "sm_100"]
    assert document["verdict"] == "same"


def test_the_architecture_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    assert auditing.present() == ("sm_90",)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (12, 0))
    with pytest.raises(auditing.UnsupportedError, match="sm_120, which the audit does not know"):
        auditing.present()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch", "sm_70"], "'sm_70' is unknown; expected one of sm_80"),
        (["--against", "block_m"], "expected NAME=N"),
        (["--against", "linear_k=16"], "expected NAME=N with NAME one of split"),
        (["--against", "tile=48"], "it must be a power of two"),
    ],
)
def test_bad_input_exits_2(
    audit, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    assert audit(*arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_kernels_of_others_are_refused(
    audit, contract: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    contract.write_text(contract.read_text().replace(f"{SUBJECT}:decode", "mine:decode"))
    assert audit("--arch", "sm_90") == 2
    assert "the audit compiles only the project's own kernels" in capsys.readouterr().err


def test_what_does_not_compile_exits_3(
    audit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    def refuse(*arguments: object, **more: object) -> None:
        raise AuditError("decode does not compile for sm_90: why")

    monkeypatch.setattr(auditing, "audit", refuse)
    assert audit("--arch", "sm_90") == 3
    assert "error: decode does not compile for sm_90: why" in capsys.readouterr().err


def test_pages_of_the_contract_are_compared_too(contract: Path) -> None:
    from kvparity_contracts.loader import load

    text = contract.read_text()
    start, stop = text.index("subject:"), text.index("numerics:")
    decoder = "subject: {kind: decoder, preset: tiny, order: {split: 128}}\n"
    text = text[:start] + decoder + text[stop:]
    text = text.replace("paths: [decode]", "paths: [decode, paged(16)]")
    contract.write_text(text.replace("execution: bfloat16", "execution: [bfloat16, float32]"))
    order, shapes = auditing.subject_shapes(load(contract).contract, contract.parent)
    assert (order.split, order.tile) == (128, 64)
    assert [(base.page, other.page) for base, other in shapes] == [(0, 0), (0, 16)] * 2
    assert {base.execution for base, _ in shapes} == {"bfloat16", "float32"}
    assert {(b.query_heads, b.kv_heads, b.head_dim) for b, _ in shapes} == {(8, 2, 16)}
