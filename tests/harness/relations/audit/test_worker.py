"""The process that compiles, called here: which launches it finds, with which arguments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from audit_cases import SHAPE, SOURCE, mutate

from kvparity.relations.audit import worker
from kvparity.relations.audit.request import Request
from kvparity_kernels import attention, launch
from kvparity_kernels.attention import kernels as own_kernels
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import Tiles

SMALL = ReductionOrder(split=64, tile=32, num_warps=2)


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the worker, where kernels are no longer interpreted."""
    monkeypatch.setattr(launch, "MODE", "compiled")


def launched(side: Any = "decode", order: ReductionOrder = SMALL, **shape: Any) -> dict[str, Any]:
    """All arguments by name of what one side launches."""
    request = Request(side, "sm_90", replace(SHAPE, **shape), order)
    return {name: value for _, each in worker.launches(request) for name, value in each.items()}


@pytest.mark.parametrize(
    ("side", "names"),
    [
        ("prefill", ["attention.prefill"]),
        ("decode", ["attention.decode_split", "attention.decode_combine"]),
    ],
)
def test_each_side_launches_its_kernels(side: Any, names: list[str]) -> None:
    before = (own_kernels.prefill, attention.kernels, torch.cuda.device)
    found = worker.launches(Request(side, "sm_90", SHAPE, SMALL))
    assert [kernel.name for kernel, _ in found] == names
    for kernel, arguments in found:
        assert kernel is getattr(own_kernels, kernel.name.split(".")[1])
        assert set(kernel.parameters) <= set(arguments)
        assert arguments["enable_fp_fusion"] is False
    assert (own_kernels.prefill, attention.kernels, torch.cuda.device) == before


def test_what_fails_leaves_no_stand_in_behind() -> None:
    before = (own_kernels.prefill, attention.kernels, torch.cuda.device)
    with pytest.raises(ValueError, match="head dimension 8 is outside"):
        launched(head_dim=8)
    assert (own_kernels.prefill, attention.kernels, torch.cuda.device) == before


@pytest.mark.parametrize("side", ["prefill", "decode"])
@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ({}, {"BOUNDED": False, "CAPPED": False, "RING": False, "PAGE": 0, "FORMAT": "float"}),
        ({}, {"G": 2, "D": 16, "SPLIT": 64, "TILE": 32, "GROUP": 0, "SKIP": False}),
        ({"window": True}, {"BOUNDED": True, "CAPPED": False, "RING": False}),
        ({"softcap": True}, {"BOUNDED": False, "CAPPED": True}),
        ({"window": True, "ring": True}, {"BOUNDED": True, "RING": True}),
        ({"page": 1}, {"PAGE": 1}),
        ({"page": 16}, {"PAGE": 16, "RING": False}),
        ({"kv_cache": "fp8_e4m3(head)"}, {"FORMAT": "fp8_e4m3", "GROUP": 0}),
        ({"kv_cache": "int8(16)", "head_dim": 32}, {"FORMAT": "int8", "GROUP": 16, "D": 32}),
    ],
)  # fmt: skip
def test_constants_are_those_of_the_shape(
    side: str, shape: dict[str, Any], seen: dict[str, Any]
) -> None:
    found = launched(side, **shape)
    assert {name: found[name] for name in seen} == seen


@pytest.mark.parametrize(
    ("shape", "types"),
    [
        ({}, {"Q": "bfloat16", "K": "bfloat16", "K_SCALE": None, "SINKS": None, "FIRST": None}),
        ({}, {"STARTS": "int64", "TABLE": "int32", "KV_LENS": "int32"}),
        ({"page": 1}, {"STARTS": "int32", "TABLE": "int32"}),
        ({"page": 16}, {"STARTS": "int32", "TABLE": "int32"}),
        ({"sinks": True}, {"SINKS": "float32"}),
        ({"execution": "float16", "kv_cache": "float32"}, {"Q": "float16", "V": "float32"}),
        ({"kv_cache": "fp8_e5m2(head)"}, {"K": "uint8", "V": "uint8", "V_SCALE": "float32"}),
        ({"kv_cache": "int4(16)"}, {"K": "uint8", "K_SCALE": "float32"}),
        ({"kv_cache": "int8(16)"}, {"K": "int8", "K_SCALE": "float32"}),
    ],
)
def test_pointers_are_of_the_formats(shape: dict[str, Any], types: dict[str, Any]) -> None:
    found = launched(**shape)
    seen = {n: None if found[n] is None else str(found[n].dtype)[len("torch.") :] for n in types}
    assert seen == types


@pytest.mark.parametrize(
    ("format", "size"), [("fp8_e4m3(head)", [2]), ("int8(16)", [2, 2]), ("int4(32)", [2, 1])]
)
def test_scales_are_by_head_or_by_slot_head_and_group(format: str, size: list[int]) -> None:
    found = launched(kv_cache=format, head_dim=32)
    for name in ("K_SCALE", "V_SCALE"):
        assert list(found[name].shape)[-len(size) :] == size
        assert found[name].dim() == (1 if len(size) == 1 else 3)
    assert found["K_SCALE"] is not found["V_SCALE"]


def test_warps_and_rows_are_those_of_the_tiles_in_force() -> None:
    plain = Request("decode", "sm_90", SHAPE, SMALL)
    forced = replace(plain, tiles=Tiles(decode_block_m=16, decode_warps=1, skip_hidden=True))
    for request, seen in ((plain, (64, 2, False)), (forced, (16, 1, True))):
        (_, split), _ = worker.launches(request)
        assert (split["BM"], split["num_warps"], split["SKIP"]) == seen


def test_kernels_of_another_source_are_launched(tmp_path: Path) -> None:
    copy = mutate(tmp_path, "copy")
    for _ in range(2):
        ((kernel, _),) = worker.launches(Request("prefill", "sm_90", SHAPE, SMALL, source=copy))
        assert kernel.function.fn.__code__.co_filename == str(copy)
        assert kernel.name.endswith(".prefill")
    ((kernel, _),) = worker.launches(Request("prefill", "sm_90", SHAPE, SMALL))
    assert kernel.function.fn.__code__.co_filename == str(SOURCE)


def test_a_source_that_is_no_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernels.txt").write_text("")
    with pytest.raises(ValueError, match=r"kernels\.txt is not a Python file"):
        worker._load(tmp_path / "kernels.txt")
