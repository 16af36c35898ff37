"""Checkpoints and adapters with unusual dtypes, values and shapes."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from kvparity.cli.main import main
from kvparity.core.errors import UnsupportedError
from kvparity.gaps.merged import merged, rounded_once
from kvparity.gaps.weights import compare, difference

INF, NAN = float("inf"), float("nan")
FP8, COMPLEX = torch.float8_e4m3fn, torch.complex64
ONE, NAN8 = 0x38, 0x7F
"""1 and NaN in fp8 e4m3."""
ADAPTED = "base_model.model.q"


def coded(*codes: int, dtype: torch.dtype = FP8) -> Tensor:
    return torch.tensor(codes, dtype=torch.uint8).view(dtype)


def folder(to: Path, tensors: dict[str, Tensor]) -> Path:
    to.mkdir()
    save_file(tensors, to / "model.safetensors")
    return to


FP4 = getattr(torch, "float4_e2m1fn_x2", torch.uint8)
"""Older torch has none."""
DIFFERENT: dict[str, tuple[Tensor, Tensor, object]] = {
    "equal NaN of fp8": (coded(NAN8, ONE), coded(NAN8, ONE), ("equal", 0.0, 0.0)),
    "a zero of fp8 with another sign": (coded(0, ONE), coded(0x80, ONE), ("bits", 0.5, 0.0)),
    "a complex zero": (
        torch.tensor([complex(0.0, 0.0)], dtype=COMPLEX),
        torch.tensor([complex(0.0, -0.0)], dtype=COMPLEX),
        ("bits", 1.0, 0.0),
    ),
    "an imaginary part": (torch.tensor([1j]), torch.tensor([2j]), ("bits", 1.0, 1.0)),
    "equal bytes of fp4": (coded(1, 2, dtype=FP4), coded(1, 2, dtype=FP4), ("equal", 0.0, 0.0)),
    "no integer": (
        torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), ("equal", 0.0, 0.0),
    ),
    "no number in two dtypes": (torch.zeros(0), torch.zeros(0).half(), ("dtype", 0.0, 0.0)),
    "infinite on both sides": (
        torch.tensor([INF, 1.0]), torch.tensor([INF, 1.5]), ("bits", 0.5, 0.5),
    ),
    "infinite on one side": (
        torch.tensor([1.0, 1.0]), torch.tensor([INF, 1.0]), ("bits", 0.5, INF),
    ),
    "NaN on both sides": (torch.tensor([NAN, 1.0]), torch.tensor([NAN, 1.5]), ("bits", 0.5, 0.5)),
    "NaN on one side": (torch.tensor([NAN, 1.0]), torch.tensor([1.0, 1.0]), ("bits", 0.5, INF)),
    "NaN in two dtypes": (
        torch.tensor([NAN, 1.0]), torch.tensor([NAN, 1.5]).half(), ("dtype", 0.5, 0.5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs(case: str) -> None:
    a, b, expected = DIFFERENT[case]
    found = difference("x", a, b)
    assert (found.status, found.differing, found.max_abs) == expected


@pytest.mark.skipif(FP4 is torch.uint8, reason="this torch has no float4")
def test_packed_numbers_are_compared_by_bytes_alone() -> None:
    a, b = coded(1, 2, dtype=FP4), coded(1, 3, dtype=FP4)
    found = difference("x", a, b)
    assert (found.status, found.differing, found.max_abs) == ("bits", 0.5, None)
    found = difference("x", a, torch.zeros(2))
    assert (found.status, found.differing, found.max_abs) == ("dtype", None, None)


def test_a_document_of_numbers_that_are_not_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        folder(tmp_path / name, {"x": torch.tensor([value])})
        for name, value in (("a", 1.0), ("b", NAN))
    ]
    assert main(["weights", *map(str, folders), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["differences"][0]["max_abs"] == "inf"


def test_no_tensor_is_no_checkpoint(tmp_path: Path) -> None:
    nothing = folder(tmp_path / "a", {})
    with pytest.raises(UnsupportedError, match="no tensor in them"):
        compare(nothing, nothing)


def adapter(to: Path, a: Tensor, b: Tensor, alpha: float = 2.0) -> Path:
    to.mkdir()
    parts = {f"{ADAPTED}.lora_A.weight": a, f"{ADAPTED}.lora_B.weight": b}
    save_file(parts, to / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": alpha}
    (to / "adapter_config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize(
    ("a", "b", "alpha", "message"),
    [
        ((3, 4), (4, 3), 2.0, "no matrices of rank 2"),
        ((2, 4), (4, 3), 2.0, "no matrices of rank 2"),
        ((3, 4), (4, 2), 2.0, "no matrices of rank 2"),
        ((2, 4, 1, 1), (4, 2, 1, 1), 2.0, "no matrices of rank 2"),
        ((2, 4), (4, 2), NAN, "no lora_alpha"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    a: tuple[int, ...], b: tuple[int, ...], alpha: float, message: str, tmp_path: Path
) -> None:
    base = folder(tmp_path / "base", {"q.weight": torch.zeros(4, 4)})
    own = adapter(tmp_path / "adapter", torch.ones(a), torch.ones(b), alpha)
    with pytest.raises(UnsupportedError, match=message):
        merged(base, own, base)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 8), (torch.float16, 11)])
def test_a_sum_is_rounded_once(dtype: torch.dtype, digits: int) -> None:
    """Beside a tie by less than float32 sees, on it, and far from one."""
    half, step = 2.0**-digits, 2.0 ** (1 - digits)
    near = [1 + half + off for off in (-(2.0**-40), 0.0, 2.0**-40)]
    near += [1 + step + half + off for off in (-(2.0**-40), 0.0, 2.0**-40)]
    exact = torch.tensor([*near, *(-x for x in near), 0.1, 0.0, INF, NAN], dtype=torch.float64)
    found = rounded_once(exact, dtype).double()
    for value, got in zip(near, found.tolist(), strict=False):
        below, above = (1 + n * step for n in divmod_steps(value, step))
        distances = Fraction(value) - Fraction(below), Fraction(above) - Fraction(value)
        even = below if round((below - 1) / step) % 2 == 0 else above
        nearest = (
            even if distances[0] == distances[1] else (below, above)[distances[0] > distances[1]]
        )
        assert got == nearest, value
    assert torch.equal(found[6:12], -found[:6])
    assert torch.equal(found[12:15], exact[12:15].to(dtype).double())
    assert bool(found[15].isnan())
    assert not torch.equal(found[:6], exact[:6].to(dtype).double())  # which rounds twice


def divmod_steps(value: float, step: float) -> tuple[int, int]:
    """The numbers of the steps from 1 that lie around a value."""
    below = int((value - 1) // step)
    return below, below + 1


def test_a_merge_that_rounds_once_is_as_rounded(tmp_path: Path) -> None:
    before = torch.full((4, 4), 1.0, dtype=torch.bfloat16)
    a, b = torch.zeros(2, 4), torch.zeros(4, 2)
    a[0], b[:, 0] = 1.0, 2.0**-8 + 2.0**-30
    base = folder(tmp_path / "base", {"q.weight": before})
    after = folder(tmp_path / "merged", {"q.weight": before + 2.0**-7})
    (found,) = merged(base, adapter(tmp_path / "adapter", a, b), after)
    assert found.as_rounded == 1.0
