"""What the data of a kernel pair show, part by part, and what is not seen without the part."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import naive_pair
import pytest
import torch
import yaml
from flawed_pair import Kernel, brief, half
from torch import Tensor

from kvparity.core.lse import LSE_ROUNDING, lse_rounded
from kvparity.plan.cases import Case, make
from kvparity.record.execute import Record
from kvparity.relations.bits_and_limits import Comparison
from kvparity.run.unit import Setting, run_unit
from kvparity.subjects.pair.data import MIXED, MOST, SMALL_KEY, Drawing, DrawnShape
from kvparity.subjects.pair.model import Pair
from kvparity.subjects.pair.subject import build
from kvparity_contracts.contract import Contract

HERE = Path(__file__).parents[2]
README = HERE.parents[1] / "README.md"
LONG = {"name": "long", "prompt_tokens": [4096, 4099], "generate": 12}
BITS, NEAR = "decode reduces like prefill", "close to float64"


def smallest(execution: str, checks: list[str], *more: dict[str, Any]) -> Contract:
    """The README's smallest contract, in a format, with some of its checks and more workloads."""
    (text,) = re.findall(
        r"```yaml\n(version: 1\nname: my-kernels\n.*?)```", README.read_text(), re.S
    )
    document = yaml.safe_load(text.replace("my_kernels.py", "naive_pair.py"))
    document["numerics"] = {"execution": execution}
    document["checks"] = [each for each in document["checks"] if each["name"] in checks]
    document["workloads"] = [*more] or document["workloads"]
    return Contract.model_validate(document)


def verdicts(
    pair: Pair | None,
    *more: dict[str, Any],
    execution: str = "bfloat16",
    checks: list[str] | None = None,
    without: str | None = None,
) -> dict[str, Comparison]:
    contract = smallest(execution, checks or [NEAR], *more)
    subject = build(
        contract.subject,  # type: ignore[arg-type] # an attention subject
        execution=execution,
        kv_cache=execution,
        device=torch.device("cpu"),
        seed=contract.seed,
        base=HERE,
    )
    subject = subject if pair is None else subject.with_pair(pair)
    if without is not None:
        subject = replace(subject, mixture=replace(MIXED, **{without: False}))
    found: dict[str, Comparison] = {}

    def emit(case: Case, result: Comparison, a: Record | None, b: Record) -> None:
        found[f"{case.path} over {case.workload}"] = result

    for unit in make(contract).units:
        run_unit(Setting(contract, subject), unit, tokens=None, done=frozenset(), emit=emit)
    return found


def outcomes(found: dict[str, Comparison]) -> set[str]:
    return {each.outcome for each in found.values()}


def test_a_right_pair_holds_by_the_smallest_contract() -> None:
    found = verdicts(None, checks=[BITS, NEAR])
    assert {"decode over short", "batched over edges", "prefill over edges"} <= found.keys()
    assert {name: r.reason for name, r in found.items() if r.outcome != "holds"} == {}


@pytest.mark.parametrize(
    ("execution", "most"), [("bfloat16", 2.0**-7), ("float16", 2.0**-10), ("float32", 1e-5)]
)
def test_a_right_pair_is_as_near_as_its_format_allows(execution: str, most: float) -> None:
    """Half a unit in the last place of a value below 4, and what float32 sums add to it.

    The LSEs of thousands are off by 2e-4: in float32 that rounding would be over the limit.
    """
    for workloads in ((), (LONG,)):
        for each in verdicts(Kernel().pair(), *workloads, execution=execution).values():
            assert each.outcome == "holds"
            assert each.max_abs is not None
            assert each.max_abs < 1.01 * most


FLAWS = {
    # flashinfer-ai/flashinfer#4267
    "the running maximum begins at a finite number": (Kernel(begins=-5e4), "extreme", ()),
    # QwenLM/Qwen3#910
    "scores are float16 before the scale": (Kernel(raw=half), "extreme", ()),
    # pytorch/executorch#18407
    "exp without a maximum": (Kernel(maximum=False), "extreme", ()),
    "float32 is multiplied in bfloat16": (Kernel(factor=brief), "wide", ()),
    "small weights are skipped": (Kernel(below=3e-4), "sink", ()),
    # ikawrakow/ik_llama.cpp#1196
    "P V is summed in float16": (Kernel(kept=half), "sink", (LONG,)),
    "P V is summed in float16, of values without bias": (Kernel(kept=half), "biased", (LONG,)),
}


@pytest.mark.parametrize(("kernel", "part", "more"), FLAWS.values(), ids=FLAWS)
def test_a_flaw_is_seen_by_its_part_of_the_data(
    kernel: Kernel, part: str, more: tuple[dict[str, Any], ...]
) -> None:
    execution = "float32" if kernel.factor is brief else "bfloat16"
    assert "differs" in outcomes(verdicts(kernel.pair(), *more, execution=execution))
    without = verdicts(kernel.pair(), *more, execution=execution, without=part)
    assert {n: r.reason for n, r in without.items() if r.outcome != "holds"} == {}


def by_flatness(q: Tensor, k: Tensor, v: Tensor, *, kv_lens: Tensor, scale: float) -> Any:
    """Rows none of whose weights is over an eighth are added from the other end."""
    out, lse = naive_pair.decode(q, k, v, kv_lens=kv_lens, scale=scale)
    other, _ = naive_pair.decode_backwards(q, k, v, kv_lens=kv_lens, scale=scale)
    group = q.shape[1] // k.shape[2]
    for b, n in enumerate(kv_lens.tolist()):
        if not n:
            continue
        keys = k[b, :n].float().repeat_interleave(group, 1)
        weights = torch.softmax(torch.einsum("hd,nhd->hn", q[b].float(), keys) * scale, -1)
        flat = weights.amax(1) < 1 / 8
        out[b, flat] = other[b, flat]
    return out, lse


def test_the_order_of_many_additions_is_seen_by_plain_rows() -> None:
    pair = Pair.of(naive_pair.prefill, by_flatness, "prefill", "by_flatness")
    more = {"name": "w", "prompt_tokens": [40], "generate": 4}
    found = verdicts(pair, more, execution="float32", checks=[BITS])
    assert found["decode over w"].outcome == "differs"
    assert outcomes(verdicts(pair, more, execution="float32", checks=[BITS], without="plain")) == {
        "holds"
    }


def shape(**changes: Any) -> DrawnShape:
    sizes = {"seed": 1, "queries": 8, "heads": 2, "dim": 64} | changes
    return DrawnShape(**sizes, device=torch.device("cpu"))


@pytest.mark.parametrize("dim", [1, 3, 4, 8, 64])
@pytest.mark.parametrize("part", "qkv")
def test_data_are_a_function_of_their_position(part: str, dim: int) -> None:
    drawing = Drawing(shape(dim=dim))
    whole = drawing.draw(part, "a", torch.arange(70))
    assert list(whole.shape) == [70, 8 if part == "q" else 2, dim]
    for some in (torch.tensor([0]), torch.tensor([69, 0, 33])):
        assert torch.equal(drawing.draw(part, "a", some), whole[some])
    assert not torch.equal(drawing.draw(part, "b", torch.arange(70)), whole)
    plain = Drawing(shape(dim=dim), None).draw(part, "a", torch.arange(70))
    assert torch.equal(plain, whole) == (dim < 4)  # too few channels for special ones


def test_the_data_have_the_shape_that_their_page_says() -> None:
    positions, drawing = torch.arange(512), Drawing(shape(queries=4, heads=4))
    q, k, v = (drawing.draw(part, "a", positions) for part in "qkv")
    norms = k.norm(dim=-1)
    far = norms[1] > 1000
    assert int(far.sum()) == 2
    assert bool(((norms[:, far] > 1500) & (norms[:, far] < 2000)).all())
    usual = norms[1:, ~far]
    assert bool(((usual.median(0).values > 11) & (usual.median(0).values < 30)).all())
    assert bool((norms[0, ~far] < 2 * SMALL_KEY * 64**0.5).all())
    typical = k[1:, ~far].abs().mean(0)
    ratio = typical.amax(1) / typical.median(1).values
    assert bool(((ratio > 5) & (ratio < 26)).all())
    assert float(v.abs().max()) <= MOST
    assert bool((v[0, ~far].norm(dim=-1) < 0.25 * v[1:].norm(dim=-1).median()).all())
    scores = torch.einsum("qhd,khd->hqk", q, k) / 8
    scores.masked_fill_(torch.ones(512, 512).triu(1).bool(), -torch.inf)
    weights = torch.softmax(scores, -1)[:, 64:]
    sink, hang = weights[~far, :, 0].mean(), (weights[~far].amax(-1) > 0.9).double().mean()
    assert 0.15 < float(sink) < 0.55
    assert 0.05 < float(hang) < 0.4
    near = scores[~far][scores[~far].isfinite()]
    assert 80 < float(near.max() - near.min()) < 200
    assert float(scores[far].amax(-1).amin()) < -5e4 / 8


def test_a_sequence_differs_from_others_in_which_heads_are_extreme() -> None:
    drawing, turns = Drawing(shape(heads=1, queries=1)), set()
    for name in "abcdefgh":
        turns.add(bool(drawing.draw("k", name, torch.arange(9)).abs().max() > 1000))
    assert turns == {True, False}


def test_what_float32_rounds_of_an_lse_is_not_counted() -> None:
    """And of nothing else: the first two columns are no LSE."""
    exact = torch.tensor([[-7000.0, 3.0, -7000.0, 7000.0, 5.0]], dtype=torch.float64)
    room = LSE_ROUNDING * exact.abs()
    for off, left in ((0.9, 0.0), (-0.9, 0.0), (1.5, 0.5), (-1.5, 0.5)):
        found = exact + off * room
        counted = (found - lse_rounded(found, exact, 2)).abs() / room
        assert torch.allclose(counted[0, :2], torch.tensor(abs(off)).double())
        assert torch.allclose(counted[0, 2:], torch.tensor(left).double())
    for lost in (torch.nan, torch.inf):
        rounded = lse_rounded(torch.full_like(exact, lost), exact, 2)
        assert bool(rounded.isfinite().all())
