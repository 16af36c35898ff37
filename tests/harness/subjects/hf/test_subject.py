"""generate() and rescoring through the seam, against plain code that does the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import plain_transformers as plain
import pytest
import torch
from tiny_transformers import BACKENDS, same_bits, tiny, tokens
from torch import Tensor

from kvparity.core.relied.transformers import forget_sizes
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.base import Generates
from kvparity.subjects.hf.run_counts import Observation
from kvparity.subjects.hf.subject import TransformersSubject


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny operations in several threads mostly wait, if other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generate_and_rescore(
    subject: TransformersSubject, lengths: list[int], new: int, logprob: Any, shift: int = 0
) -> tuple[int, int, float]:
    """What ``plain_transformers.generate_and_rescore`` counts, through the seam."""
    differing, differing_rows, largest = 0, 0, 0.0
    for prompt in lengths:
        ids = tokens(prompt + new)
        member = Member("m", prompt + new, prompt)
        rollout: list[Tensor] = []

        def choose(position: int, row: Tensor, ids: list[int] = ids, out: Any = rollout) -> int:
            out.append(row.clone())
            return ids[position]

        subject.generate(member, ids[:prompt], choose)
        span = Span(0, 0, len(ids), prompt - 1, position_shift=shift, rows_to=len(ids) - 1)
        rescore = torch.cat(list(subject.session([member], Layout()).forward((span,), [ids])))
        targets = torch.tensor(ids[prompt:])
        both = torch.stack(rollout), rescore
        a, b = (logprob(x, targets) for x in both)
        differing += int((a.view(torch.int32) != b.view(torch.int32)).sum())
        bits = [x.view(torch.int32) for x in both]
        differing_rows += int((bits[0] != bits[1]).any(1).sum())
        largest = max(largest, float((a.double() - b.double()).abs().max()))
    return differing, differing_rows, largest


@pytest.mark.parametrize("cache_kind", ["dynamic", "static"])
@pytest.mark.parametrize("attention", BACKENDS)
def test_finds_the_drift_that_plain_code_finds(attention: str, cache_kind: str) -> None:
    subject = tiny(attention, cache_kind)
    # The interpreter takes some milliseconds per tile, so fewer tokens there.
    lengths, new = ([3, 15], 4) if attention == "kvparity" else ([3, 17, 64], 12)
    prompts = [tokens(n + new)[:n] for n in lengths]
    continuations = [tokens(n + new)[n:] for n in lengths]
    static = {"cache_implementation": "static", "disable_compile": True}
    more = static if cache_kind == "static" else {}

    def own(logits: Tensor, ids: Tensor) -> Tensor:
        return subject.values(logits, ids, [1.0])[:, 0]

    for logprob in (own,) if attention == "kvparity" else (plain.torch_logprob, own):
        forget_sizes(subject.model)  # as the subject does before every generate()
        with subject.observing(Observation(order=subject.order)):
            expected = plain.generate_and_rescore(
                subject.model, prompts, continuations, logprob, **more
            )
        found = generate_and_rescore(subject, lengths, new, logprob)
        assert found == expected
    # The control: another rescoring, one position off, is not what plain code finds.
    assert generate_and_rescore(subject, lengths, new, own, shift=1) != expected


def test_generate_ignores_the_end_token_and_gives_raw_rows() -> None:
    subject = tiny("sdpa")
    assert isinstance(subject, Generates)
    ids, seen = tokens(5), []

    def choose(position: int, row: Tensor) -> int:
        seen.append((position, row.dtype, tuple(row.shape), bool(row.isfinite().all())))
        return 7  # the end token of CONFIG

    observed = subject.generate(Member("m", 9, 5), ids, choose)
    assert seen == [(p, torch.float32, (512,), True) for p in range(5, 9)]
    assert (observed["forward.prefill"], observed["forward.decode"]) == (1, 3)
    assert observed["backend.sdpa"] == 8
    assert observed["cache.DynamicCache"] == 4


def test_static_generate_does_not_depend_on_earlier_calls() -> None:
    subject, seen = tiny("sdpa", "static"), []

    def choose(position: int, row: Tensor) -> int:
        return 1

    def look(view: Any, filled: int) -> None:
        seen.append(view.places[0].cache.layers[0].keys.shape[2])

    subject.after_step = look
    try:
        for length in (40, 8):
            subject.generate(Member("m", length, 5), tokens(5), choose)
    finally:
        subject.after_step = None
    assert max(seen[-2:]) <= 8


def test_a_defect_can_be_planted_between_the_steps_of_generate() -> None:
    subject, runs = tiny("eager"), []

    def spoil(view: Any, filled: int) -> None:
        k, v = view.read(0, 0, 1, 2)
        view.write(0, 0, 1, k * 2, v)

    for defect in (None, None, spoil):
        out: list[Tensor] = []
        subject.after_step = defect
        try:
            subject.generate(
                Member("m", 12, 8), tokens(8), lambda p, row, out=out: out.append(row.clone()) or p
            )
        finally:
            subject.after_step = None
        runs.append(torch.stack(out))
    assert same_bits(runs[0], runs[1])
    assert same_bits(runs[0][:1], runs[2][:1])  # before the defect
    assert not same_bits(runs[0], runs[2])
