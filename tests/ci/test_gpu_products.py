"""The step that asks a device whether it adds as the table says, interpreted under the model."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gpu_steps import products
from gpu_steps.record import StepOutcome
from gpu_steps.step import judge
from gpu_steps.steps import STEPS

from kvparity_kernels import tensor_cores

STEP = next(each for each in STEPS if each.name == "products")
FEW = ["--device", "cpu", "--arch", "sm_90", "--rounds", "1"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One kind of operands less than all shows every parameter of bfloat16."""
    monkeypatch.setattr(products, "FORMATS", ("bfloat16",))
    monkeypatch.setattr(products, "KINDS", ("random", "near e_zero", "cancelling", "nan"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[StepOutcome, object]:
    code = products.main(arguments)
    text, said = capsys.readouterr()
    begun = StepOutcome(step=STEP.name, asks=STEP.asks, state="error", rc=code)
    return judge(STEP, begun, text, said, Path())


def test_it_has_its_answer_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    outcome, document = run(capsys, *FEW)
    assert (outcome.state, outcome.verdict) == ("ok", "equal"), outcome.reason
    assert isinstance(document, dict)
    assert [row["rows"] for row in document["rows"]] == [64, 16]
    for row in document["rows"]:
        assert (row["instruction"], row["elements"]) == ("interpreter", 4 * 64 * 64)
        assert (set(row["differing"].values()), row["unseen"], row["first"]) == ({0}, [], None)


def test_other_sums_differ(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a device that rounds every addition to nearest."""
    monkeypatch.setattr(products.device_model, "using", lambda arch: nullcontext())
    outcome, document = run(capsys, *FEW)
    assert (outcome.state, outcome.verdict) == ("failed", "differs")
    assert isinstance(document, dict)
    assert document["rows"][0]["first"].startswith("random, seed 0, row ")


def test_a_parameter_that_would_not_show_is_void(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "KINDS", ("nan",))
    outcome, _ = run(capsys, *FEW)
    assert (outcome.state, outcome.verdict) == ("failed", "void")


ROW = products.ProductsCompared(64, "wgmma", "bfloat16", 4096, {"random": 0}, None, ())


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"instruction": "mma.sync", "rows": 16}, "equal"),
        ({"rows": 16}, "void"),  # both tiles by one instruction
        ({"instruction": "none", "elements": 0}, "void"),
        ({"instruction": "mma.sync", "unseen": ("F +1",)}, "void"),
        ({"instruction": "mma.sync", "elements": 0}, "void"),
        ({"instruction": "mma.sync", "differing": {"random": 1}}, "differs"),
    ],
)
def test_both_instructions_must_have_been_asked(second: dict[str, object], said: str) -> None:
    assert products.verdict([ROW, replace(ROW, **second)], "sm_90") == said


def test_the_instruction_is_read_from_the_code() -> None:
    assert products.instruction_of("wgmma.mma_async.sync.aligned.m64n64k16") == "wgmma"
    assert products.instruction_of("mma.sync.aligned.m16n8k16.row.col.f32") == "mma.sync"
    assert products.instruction_of("tcgen05.mma.cta_group::1.kind::f16 [%r1]") == "tcgen05"
    assert products.instruction_of("fma.rn.f32") == "none"
    both = "wgmma.mma_async.sync;\nmma.sync.aligned"
    assert products.unit_of("sm_90", products.instruction_of(both), "bfloat16") is None
    assert products.unit_of("sm_90", "wgmma", "fp8e5") != tensor_cores.unit("sm_90", "bfloat16")


def test_a_device_without_a_row_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (12, 0))
    outcome, _ = run(capsys)
    assert (outcome.state, outcome.reason) == (
        "unavailable", "sm_120 is not in the table of tensor cores",
    )  # fmt: skip
    with pytest.raises(SystemExit, match="2"):
        products.main(["--device", "cpu"])
