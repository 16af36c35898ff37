"""What is said of a pair that cannot be called, or returns something else: what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import naive_pair
import pytest
import torch
from engine_calls import differs, over, run, setting
from run_documents import case, rendered, report
from torch import Tensor

from kvparity.controls.order import cut_decode
from kvparity.subjects.attention_calls import PairDecodeCall, by_keywords
from kvparity.subjects.base import SubjectError, UnsupportedError


def of_no_type(q: Any) -> Any:
    return len(1.0) * q  # type: ignore[arg-type]


def of_no_attribute(q: Any) -> Any:
    return q.heads


def of_no_name(q: Any) -> Any:
    return undefined  # type: ignore[name-defined]  # noqa: F821


def of_no_module(q: Any) -> Any:
    import kvparity.of_no_such_name  # type: ignore[import-not-found]

    return kvparity


@pytest.mark.parametrize("mistake", [of_no_type, of_no_attribute, of_no_name, of_no_module])
def test_a_pair_that_breaks_on_any_call_is_not_told_of_views(mistake: Callable[..., Any]) -> None:
    """It would break on contiguous inputs, too: to say ``inputs: contiguous`` would not help."""

    def prefill(q: Tensor, k: Tensor, v: Tensor, *, scale: float, **more: Any) -> Any:
        return mistake(q)

    with pytest.raises(SubjectError, match=r"raised \w+Error: ") as found:
        run(over(setting(["decode"]), prefill=prefill))
    assert "contiguous" not in str(found.value)


def told(**pair: Callable[..., Any]) -> str:
    with pytest.raises(SubjectError) as found:
        run(over(setting(["decode"]), **pair))
    return str(found.value)


def test_a_signature_that_cannot_be_called_is_told_what_it_is_called_with() -> None:
    def prefill(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens: Tensor, scale: float) -> Any: ...

    def decode(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
        return decode(q, k)  # type: ignore[call-arg]  # a TypeError of its own

    assert (
        "(it is called with q, k, v, cu_seqlens_q=, cu_seqlens_k=, scale=; subject.signature"
        in told(prefill=prefill)
    )
    assert "is called with" not in told(decode=decode)


def test_what_is_returned_in_another_form_is_told_the_right_one() -> None:
    def turned(*args: Any, **more: Any) -> Any:
        out, lse = naive_pair.decode(*args, **more)
        return out, lse.T

    def listed(*args: Any, **more: Any) -> Any:
        return list(naive_pair.decode(*args, **more))

    assert told(decode=turned).endswith("; transposed: return lse.transpose(0, 1)")
    assert told(decode=listed).endswith("expected a tensor, or the tuple (out, lse)")


def test_rows_of_a_prompt_are_compared_where_they_are_generated() -> None:
    """What docs/contracts.md advises, as the rows of a prompt are not compared."""

    def leaky(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
        out, lse = naive_pair.prefill(q, k, v, **more)
        lse[:8] += 1.0  # the first rows of a long prefill alone
        return out, lse

    assert differs(run(over(setting(["decode"], lengths=[12]), prefill=leaky))) == set()
    assert differs(run(over(setting(["decode"], lengths=[1]), prefill=leaky))) == {"decode"}


NOTE = (
    "  the pair returns no LSE: another order of additions that the rounding of out hides is not "
    "seen; return (out, lse), or add a check with relation: order"
)


def test_a_pair_without_an_lse_is_told_what_stays_hidden() -> None:
    lengths = torch.tensor([4], dtype=torch.int32)
    q, k = torch.ones(1, 2, 8), torch.ones(1, 4, 2, 8)
    planted = cut_decode(by_keywords(naive_pair.decode_alone), lambda _rows, keys: keys // 2)
    with pytest.raises(UnsupportedError) as found:
        planted(PairDecodeCall(q=q, k=k, v=k, kv_lens=lengths, scale=1.0))
    left = {"control": "split-by-batch", "reason": str(found.value)}

    whole = report("holds", case(), unplanted=[left])
    assert NOTE in rendered(whole).splitlines()
    other = left | {"reason": "the contract has no cache check"}
    assert "LSE" not in rendered(report("holds", case(), unplanted=[other]))
    whole["checks"].append(whole["checks"][0] | {"relation": "order", "cases": []})
    assert NOTE not in rendered(whole)
