"""What engines do to kernels: views of fused tensors, padding, large batches, far caches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import naive_pair
import pytest
import torch
from engine_calls import README, differs, over, run, setting
from pydantic import ValidationError
from run_documents import case_of
from torch import Tensor

from kvparity.controls.base import PlantedSession
from kvparity.pairs import sdpa
from kvparity.plan.cases import make
from kvparity.plan.paths import build as plan_of
from kvparity.plan.schedule import Span
from kvparity.plan.workload import fill
from kvparity.record.execute import run as record
from kvparity.relations.bits_and_limits import InvarianceDetails
from kvparity.run.unit import Setting
from kvparity.subjects.base import SubjectError
from kvparity.subjects.pair import batch
from kvparity.subjects.pair.model import Pair
from kvparity.subjects.pair.subject import AttentionSubject
from kvparity_contracts.paths import PathName


def packed(x: Tensor) -> Tensor:
    """The tensor as a kernel reads it that computes strides from the shape."""
    return x.as_strided(x.shape, torch.empty(x.shape).stride(), x.storage_offset())


def of_q(kernel: Callable[..., Any]) -> Callable[..., Any]:
    return lambda q, k, v, **more: kernel(packed(q), k, v, **more)


def of_keys(kernel: Callable[..., Any]) -> Callable[..., Any]:
    return lambda q, k, v, **more: kernel(q, packed(k), packed(v), **more)


def first_rows(*args: Any, **more: Any) -> Any:
    """Rows of a batch from 16 on are never computed."""
    out, lse = naive_pair.decode(*args, **more)
    out[16:], lse[16:] = 0, 0
    return out, lse


def early_exit(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, **more: Any) -> Any:
    """An empty sequence writes its LSE where a dense one would have it: to another row."""
    out, lse = naive_pair.prefill(q, k, v, cu_seqlens_q=cu_seqlens_q, **more)
    for b, (start, stop) in enumerate(pairwise(cu_seqlens_q.tolist())):
        # In the order of sequences: what comes later overwrites what was written there.
        if start == stop and b < start:
            lse[b] = -torch.inf
    return out, lse


def no_number(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, **more: Any) -> Any:
    """The mean over no key."""
    out, lse = naive_pair.decode(q, k, v, kv_lens=kv_lens, **more)
    out[kv_lens == 0] = torch.nan
    return out, lse


def scaled_by_all(*args: Any, **more: Any) -> Any:
    """Every row takes part in a number of the whole batch, which changes none that is finite."""
    out, lse = naive_pair.decode(*args, **more)
    return out + 0 * out.sum(), lse


def in_32_bits(kernel: Callable[..., Any], slots: int) -> Callable[..., Any]:
    def offset(x: Tensor) -> Tensor:
        place = torch.arange(x.shape[slots]) * x.stride(slots)
        wrapped = (place + 2**31) % 2**32 - 2**31
        return x.index_select(slots, (wrapped // x.stride(slots)) % x.shape[slots])

    return lambda q, k, v, **more: kernel(q, offset(k), offset(v), **more)


DEFECTS: dict[str, tuple[dict[str, Callable[..., Any]], set[str]]] = {
    "strides of q ignored by both": (
        {"prefill": of_q(naive_pair.prefill), "decode": of_q(naive_pair.decode)},
        set(README),
    ),
    "strides of q ignored in decode": (
        {"decode": of_q(naive_pair.decode)}, {"batched", "batched(17)", "far"},
    ),
    "strides of k and v ignored in prefill": (
        {"prefill": of_keys(naive_pair.prefill)}, {"decode", "batched", "permuted"},
    ),
    "16 rows of a batch": ({"decode": first_rows}, {"batched(17)"}),
    "empty sequence": ({"prefill": early_exit}, {"batched"}),
    "row without a key": ({"decode": no_number}, {"batched"}),
    "padding of another batch": ({"decode": scaled_by_all}, {"batched"}),
    "int32 in decode": ({"decode": in_32_bits(naive_pair.decode, 1)}, {"far"}),
    "int32 in prefill": ({"prefill": in_32_bits(naive_pair.prefill, 0)}, {"far"}),
}  # fmt: skip


@pytest.mark.parametrize("store", ["float32", "bfloat16"])
def test_a_right_pair_holds(store: str) -> None:
    found = run(setting(README, execution=store))
    assert {path: result.outcome for path, result in found.items()} == dict.fromkeys(
        README, "holds"
    )


@pytest.mark.parametrize("name", DEFECTS)
def test_a_pair_that_is_wrong_in_such_a_call_differs(name: str) -> None:
    kernels, where = DEFECTS[name]
    assert where <= differs(run(over(setting(README), **kernels)))


@pytest.mark.parametrize("paths", [["batched"], ["mixed"]])
def test_a_row_without_a_key_is_told_in_words(paths: list[str]) -> None:
    (found,) = run(over(setting(paths), decode=no_number)).values()
    assert (found.outcome, found.differing_tokens) == ("differs", 0)
    assert "gave nan in a row with kv_lens 0; expected 0" in found.reason


def test_an_accuracy_case_differs_for_it_too_and_evidence_believes_it() -> None:
    limits = {"max_abs": 1e-5}
    near = {"name": "near", "relation": "accuracy", "paths": ["batched"], "limits": limits}
    found = setting(["batched"], ["wrong-input"], checks=[near])
    assert run(found)["batched"].outcome == "holds"
    wrong = run(over(found, decode=no_number))["batched"]
    assert (wrong.outcome, wrong.differing_tokens) == ("differs", 0)
    (bits,) = run(over(setting(["batched"]), decode=no_number)).values()
    bits = replace(bits, details=InvarianceDetails(faults=bits.details.faults))
    for relation, each, words in (
        ("accuracy", wrong, "it differs, and is within every limit"),
        ("invariance", bits, "it differs, and counts nothing that does"),
    ):
        case_of(relation, each)
        unsaid = each.details.model_copy(update={"faults": ()})
        with pytest.raises(ValidationError, match=words):
            case_of(relation, replace(each, details=unsaid))


def test_a_planted_session_tells_of_faults_too() -> None:
    class Faulty:
        def faults(self) -> list[str]:
            return ["a row is NaN"]

    assert PlantedSession(cast(Any, Faulty())).faults() == ["a row is NaN"]
    assert PlantedSession(cast(Any, object())).faults() == ()


def test_where_sinks_count_the_lse_of_a_row_without_a_key_is_a_number() -> None:
    rows, sinks = torch.tensor([[0.0, -0.0, 1.5]]), torch.tensor([1.5])
    assert batch.fault_of("decode", rows, 2, sinks=sinks) is None
    assert "LSE of 1.5" in str(batch.fault_of("decode", rows, 2))
    assert "LSE of 1.5" in str(batch.fault_of("decode", rows, 2, sinks=sinks + 1e-3))
    rows[0, 2] = torch.nan
    assert "LSE of nan" in str(batch.fault_of("decode", rows, 2, sinks=sinks))


@pytest.mark.parametrize(
    ("lse", "outcome"), [(-torch.inf, "holds"), (torch.inf, "holds"), (0.0, "differs")]
)
def test_the_lse_of_a_row_without_a_key_is_infinite(lse: float, outcome: str) -> None:
    def decode(*args: Any, kv_lens: Tensor, **more: Any) -> Any:
        out, own = naive_pair.decode(*args, kv_lens=kv_lens, **more)
        return out, own.masked_fill((kv_lens == 0)[:, None], lse)

    assert run(over(setting(["batched"]), decode=decode))["batched"].outcome == outcome


class Seen:
    """The calls of a pair that is otherwise right."""

    def __init__(self) -> None:
        self.strided = 0
        self.calls = 0
        self.empty = 0

    def over(self, found: Setting) -> Setting:
        return over(
            found, prefill=self.watched(naive_pair.prefill), decode=self.watched(naive_pair.decode)
        )

    def watched(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Any:
            self.calls += 1
            self.strided += q.stride() != torch.empty(q.shape).stride()
            lengths = more["kv_lens"] if "kv_lens" in more else more["cu_seqlens_k"].diff()
            self.empty += bool((lengths == 0).any())
            return kernel(q, k, v, **more)

        return call


def test_a_contract_can_ask_for_contiguous_inputs_and_no_empty_sequences() -> None:
    paths = ["decode", "batched", "mixed", "permuted"]
    plain = setting(paths, inputs="contiguous", empty="never")
    seen, usual = Seen(), Seen()
    run(seen.over(plain))
    assert (seen.strided, seen.empty) == (0, 0)
    assert (plain.subject.describe()["inputs"], plain.subject.describe()["empty"]) == (
        "contiguous", "never",
    )  # fmt: skip
    assert [note.partition(",")[0] for note in plain.subject.describe()["notes"]] == [
        "inputs: contiguous", "empty: never",
    ]  # fmt: skip
    assert setting(paths).subject.describe()["notes"] == []
    run(usual.over(setting(paths)))
    assert usual.calls == seen.calls
    assert usual.calls / 3 < usual.strided < usual.calls  # some plain, some not
    assert 0 < usual.empty < usual.calls
    names = {each.control for each in make(plain.contract).controls}
    assert not names & {"strides-ignored", "empty-writes-neighbour", "nan-without-keys"}


def test_a_pair_that_breaks_on_such_a_call_is_told_how_to_say_so() -> None:
    def decode(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, **more: Any) -> Any:
        return q.view(-1), int(1 / kv_lens.min())

    with pytest.raises(SubjectError, match=r"says empty: never; and views .* says inputs: contig"):
        run(over(setting(["batched"]), decode=decode))
    with pytest.raises(SubjectError, match="says inputs: contiguous") as found:
        run(over(setting(["batched(3)"]), decode=decode))
    assert "empty" not in str(found.value)


SIZES = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257]


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_has_exactly_the_rows_that_were_asked_for(size: int) -> None:
    prompts = fill(setting(["decode"], lengths=[3, 30, 9]).contract.workloads[0], seed=0, vocab=0)
    plan = plan_of(PathName("batched", size), prompts, seed=0)
    rows = [sum(span.decode for span in step) for step in plan.schedule]
    assert set(rows) == {0, size}
    assert sum(len(span.rows) for step in plan.schedule for span in step) == 3 * 4
    decoding = [step for step in plan.schedule if step[0].decode]
    assert all(len(step[-1].rows) == 1 for step in decoding)  # the last row is compared
    strangers = plan.members[3:]
    assert len({member.id for member in strangers}) == len(strangers) == -(-3 // size) * size - 3
    assert all(member.length <= 3 + 4 for member in strangers)


@pytest.mark.parametrize("layout", ["slot-head", "head-slot"])
@pytest.mark.parametrize("store", ["fp8_e4m3(head)", "int8(8)"])
def test_codes_are_given_in_the_same_ways(store: str, layout: str) -> None:
    found = run(setting(README, module="wide_pair.py", kv_cache=store, layout=layout))
    assert not differs(found)


def test_empty_sequences_reach_the_first_compared_row_and_no_further_than_there_are_rows() -> None:
    def numbers(*spans: tuple[int, int]) -> list[int]:
        """Numbers of the empty sequences of a call, for spans of (rows, first compared one)."""
        step = [Span(i, 0, rows, first) for i, (rows, first) in enumerate(spans)]
        found = batch.with_empties(step)
        queries, keys = batch.sizes(found, lambda span: span.stop)
        assert queries == keys
        assert [n for n in queries if n] == [rows for rows, _ in spans]
        return [b for b, n in enumerate(queries) if not n]

    assert numbers((5, 4), (3, 2)) == [0, 2, 3, 4, 6]
    assert numbers((3, 3), (30, 9)) == [0, *range(2, 13), 14]  # the first three rows are nobody's
    assert numbers((90, 80)) == [0, *range(2, 2 + batch.MOST), 2 + batch.MOST]
    for few in range(1, 6):
        assert max(numbers((few, few - 1)), default=0) < few


@pytest.mark.parametrize("backend", ["", "math_", "flash_"])
def test_sdpa_gives_zero_where_there_is_no_key(backend: str) -> None:
    """Its backends were never asked what they give there, so the adapter says it."""
    plain = setting(["batched"]).subject
    assert isinstance(plain, AttentionSubject)
    prefill, decode = (getattr(sdpa, backend + name) for name in ("prefill", "decode"))
    subject = plain.with_pair(Pair.of(prefill, decode, "prefill", "decode"))
    prompts = fill(setting(["batched"]).contract.workloads[0], seed=0, vocab=0)
    plan = plan_of(PathName("batched"), prompts, seed=0)
    tokens = [[0] * member.length for member in plan.members]
    found = record(subject, plan, tokens, temperatures=(1.0,))
    assert not found.faults
    assert bool(found.finite.all())
    lens, q = torch.tensor([0, 0], dtype=torch.int32), torch.randn(2, 4, 8)
    caches = torch.full((2, 5, 2, 8), torch.nan), torch.full((2, 5, 2, 8), torch.nan)
    assert not bool(decode(q, *caches, kv_lens=lens, scale=1.0).any())
