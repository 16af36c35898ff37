"""Functions with the signature of another project: a right one holds, a flawed one differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import signature_twins as twins
from torch import Tensor

from kvparity import Report, check_pair
from kvparity.cli.main import main
from kvparity.core.errors import SubjectError
from kvparity.subjects.pair.signatures.table import ADAPTERS
from kvparity_contracts.signatures import SIGNATURES, Signature

PATHS = ("decode", "batched", "chunked(5)")
FLASH = twins.flash_attn_varlen_func, twins.flash_attn_with_kvcache
VLLM = twins.unified_attention, twins.unified_attention
SGLANG = twins.extend_attention_fwd_unified, twins.decode_attention_fwd
PLANNED = twins.BatchPrefillWithPagedKVCacheWrapper, twins.BatchDecodeWithPagedKVCacheWrapper
SINGLE = twins.single_prefill_with_kv_cache, twins.single_decode_with_kv_cache
SDPA = twins.scaled_dot_product_attention, twins.scaled_dot_product_attention
Both = tuple[Callable[..., Any], Callable[..., Any]]
SINKS, ALIBI, RELATIVE = [-1, 3], {"kind": "alibi"}, {"kind": "relative", "distances": 6}
RIGHT: dict[str, tuple[Signature, Both, dict[str, Any]]] = {
    "flash-attn": ("flash-attn", FLASH, {"softcap": 3.0, "bias": ALIBI}),
    "flash-attn-pages": ("flash-attn", FLASH, {"page": 4, "window": 7}),
    "flash-attn-ahead": ("flash-attn", FLASH, {"causal": False, "window_size": [3, 1]}),
    "flashinfer": ("flashinfer", SINGLE, {"softcap": 3.0, "window": 7}),
    "flashinfer-pages": (
        "flashinfer", PLANNED, {"page": 4, "softcap": 3.0, "window": 7, "sinks": SINKS}
    ),
    "flashinfer-ahead": ("flashinfer", SINGLE, {"causal": False}),
    "vllm": (
        "vllm", VLLM, {"page": 4, "window": 7, "softcap": 3.0, "sinks": SINKS, "bias": ALIBI}
    ),
    "vllm-rows": ("vllm", VLLM, {"page": 4, "rows": "many"}),
    "vllm-ahead": ("vllm", VLLM, {"page": 4, "causal": False, "window": 2}),
    "sglang": ("sglang", SGLANG, {"softcap": 3.0, "window": 7, "sinks": SINKS}),
    "sglang-pages": ("sglang", SGLANG, {"page": 4, "window": 7}),
    "sglang-ahead": ("sglang", SGLANG, {"causal": False, "window": 2}),
    "sdpa": ("sdpa", SDPA, {"bias": RELATIVE, "window": 7}),
    "sdpa-alibi": ("sdpa", SDPA, {"bias": ALIBI}),
    "flash-attn-cross": ("flash-attn", FLASH, {"causal": False, "cross": [3, 9]}),
    "flashinfer-cross": (
        "flashinfer", PLANNED, {"page": 4, "causal": False, "cross": [3, 9], "out": "given"}
    ),
    "vllm-cross": ("vllm", VLLM, {"page": 4, "causal": False, "cross": [3, 9]}),
    "sdpa-cross": ("sdpa", SDPA, {"causal": False, "cross": [3, 9]}),
    "sdpa-ahead": ("sdpa", SDPA, {"causal": False, "window_size": [3, 1]}),
}  # fmt: skip
FLAWED: dict[str, tuple[str, Both]] = {
    # what is right about it, and its functions
    "flash-attn-window": ("flash-attn-pages", (FLASH[0], twins.flash_attn_one_more)),
    "flash-attn-table": ("flash-attn-pages", (FLASH[0], twins.flash_attn_in_order)),
    "flashinfer-first-key": ("flashinfer", (SINGLE[0], twins.single_decode_drops_first)),
    "flashinfer-table": ("flashinfer-pages", (PLANNED[0], twins.BatchDecodeInOrder)),
    "vllm-table": ("vllm", (VLLM[0], twins.unified_in_order)),
    "vllm-table-of-prefill": ("vllm", (twins.unified_in_order, VLLM[1])),
    "vllm-rows-see-later": ("vllm-rows", (VLLM[0], twins.unified_sees_later)),
    "sglang-slots": ("sglang-pages", (SGLANG[0], twins.decode_in_order)),
    "sdpa-unmasked": ("sdpa-alibi", (SDPA[0], twins.sdpa_unmasked)),
}


def checked(
    folder: Path, row: str, pair: Both | None = None, paths: Sequence[str] = PATHS, **more: Any
) -> Report:
    """Bits of decode and prefill, and both against float64."""
    signature, right, declared = RIGHT[row]
    ahead = "causal" in declared and "cross" not in declared
    paths = ("permuted",) if ahead else ("verify(2)",) if "rows" in declared else paths
    return check_pair(
        *(pair or right), heads=(4, 2, 8), signature=signature, subject=declared | more,
        lengths=(3, 11), generate=3, paths=paths, run_dir=folder / "run",
        controls=["reads-into-neighbour" if ahead else "stale-slot", "kv-heads-interleaved"],
    )  # fmt: skip


def verdicts(report: Report) -> list[str]:
    return [each.verdict for each in report.checks]


@pytest.mark.parametrize("row", RIGHT)
def test_right_functions_hold_and_are_near_float64(tmp_path: Path, row: str) -> None:
    """What is declared is passed under its own name there, or float64 would differ."""
    found = checked(tmp_path, row)
    assert verdicts(found) == ["holds", "holds"], str(found)


@pytest.mark.parametrize("row", FLAWED)
def test_a_flawed_function_differs(tmp_path: Path, row: str) -> None:
    right, pair = FLAWED[row]
    assert verdicts(checked(tmp_path, right, pair, ["decode"]))[0] == "differs"


def test_every_signature_of_a_contract_has_its_calls_and_a_right_pair() -> None:
    names = set(get_args(Signature))
    assert names == set(ADAPTERS) == set(SIGNATURES) == {each[0] for each in RIGHT.values()}


def test_an_lse_of_flash_attention_has_its_heads_first(tmp_path: Path) -> None:
    pair = twins.flash_attn_with_lse, twins.flash_attn_cache_with_lse
    found = checked(tmp_path, "flash-attn", pair, empty="never")
    assert verdicts(found) == ["holds", "differs"]  # these LSEs are numbers of heads
    assert "lse" in str(found)


def returns(what: Any) -> Both:
    return (lambda *_, **__: what), (lambda *_, **__: what)


def lacks_scale(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q


WRONG: dict[str, tuple[str, Both, str]] = {
    "a list": ("sdpa", returns([]), "it returned a list, expected a tensor"),
    "another shape": ("flashinfer", (lambda q, *_, **__: q[:1, :1], lacks_scale), "expected torch"),
    "another call": (
        "flash-attn", (lacks_scale, lacks_scale),
        "called with q, k, v, cu_seqlens_q=, cu_seqlens_k=, max_seqlen_q=, max_seqlen_k=, "
        "softmax_scale=, causal=, softcap=, alibi_slopes=",
    ),
    "another wrapper": ("flashinfer-pages", (lacks_scale, lacks_scale), "with 2 by position"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_of_the_signature_is_told(tmp_path: Path, what: str) -> None:
    row, pair, words = WRONG[what]
    with pytest.raises(SubjectError, match=words):
        checked(tmp_path, row, pair)


def test_order_takes_a_signature(capsys: pytest.CaptureFixture[str]) -> None:
    """Without it the functions are called by other keywords."""
    file = Path(__file__).parents[2] / "signature_twins.py"
    pair = f"{file}:scaled_dot_product_attention,{file}:scaled_dot_product_attention"
    small = ["--keys", "3", "--heads", "1,1", "--dim", "2", "--draws", "1", "--device", "cpu"]
    assert main(["order", pair, "--signature", "sdpa", *small]) in (0, 1)
    assert main(["order", pair, *small]) == 3
    assert "subject.signature" in capsys.readouterr().err
