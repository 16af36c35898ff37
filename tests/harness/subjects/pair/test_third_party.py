"""Triton kernels of others under a contract on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import third_party_reconstruction as kernels

from kvparity import Report, check_pair


def checked(folder: Path, name: str, dtype: str) -> Report:
    """One kernel in both roles, over pages."""
    function = vars(kernels)[name]
    return check_pair(
        function, function, heads=(4, 2, 8), signature="vllm", subject={"page": 4}, dtype=dtype,
        lengths=(2, 6), generate=2, paths=["decode", "batched", "chunked(3)"],
        controls=["stale-slot", "kv-heads-interleaved"], run_dir=folder / "run",
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_right_kernel_holds_whatever_it_computes_in(tmp_path: Path, dtype: str) -> None:
    """It scales its queries in their own dtype, which the interpreter alone gets wrong."""
    found = checked(tmp_path, "at_the_end", dtype)
    assert [each.verdict for each in found.checks] == ["holds", "holds"], str(found)


def test_a_mask_that_is_aligned_at_the_start_differs_behind_a_prefix(tmp_path: Path) -> None:
    found = checked(tmp_path, "at_the_start", "float32")
    off = {case.path for case in found.cases if case.verdict == "differs"}
    assert off == {"decode", "batched", "chunked(3)"}
