"""The transformers subject over a model that computes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from plain_subject import Model, subject
from torch import Tensor
from transformers import DynamicCache, StaticCache

from kvparity.core.relied.transformers import ATTENTIONS, unreset
from kvparity.plan.schedule import Action, Layout, Member, Plan, Span
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.export import hf as programs
from kvparity.subjects.hf import caches
from kvparity.subjects.hf import subject as subjects
from kvparity.subjects.hf.run_counts import Observation
from kvparity.subjects.hf.subject import TransformersSubject
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.overrides import NotInvariantError


@pytest.mark.parametrize(
    ("pad", "wanted"), [(None, 0), (2, 2), (3, 0), (0, 0), (-1, 0), ([1], 0), (1, 1)]
)
def test_a_pad_is_a_token_of_the_vocabulary(pad: Any, wanted: int) -> None:
    made = subject(Model(pad_token_id=pad))
    assert (made.vocab, made.pad_token) == (3, wanted)


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"max_position_embeddings": 64}, 64), ({"max_position_embeddings": None}, 2**31 - 1),
        ({"max_position_embeddings": 0}, 2**31 - 1),
        ({"rope_parameters": {"rope_type": "dynamic"}}, 2**31 - 1),
        ({"max_position_embeddings": 64, "rope_parameters": {"rope_type": "default"}}, 64),
    ],
)  # fmt: skip
def test_the_longest_sequence_is_that_of_its_angles(config: dict[str, Any], longest: int) -> None:
    plain = SimpleNamespace(**config, to_dict=lambda: config)
    assert subjects._positions(plain) == longest


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "kvparity"])
def test_a_cache_is_of_the_kind_that_was_asked_for(kind: str, attention: str) -> None:
    made = subject(attention=attention, cache=kind)
    grows = made.new_cache(batch=2, capacity=None)
    assert type(grows) is DynamicCache
    cache = made.new_cache(batch=2, capacity=6)
    assert type(cache) is (DynamicCache if kind == "dynamic" else StaticCache)
    assert (made.unused != made.unused) == (attention == "kvparity")
    if attention != "kvparity":
        assert made.unused == caches.GARBAGE
    if kind == "dynamic":
        return
    for number, layer in enumerate(cache.layers):
        poisoned = attention == "kvparity" and hasattr(layer, "cumulative_length")
        assert isinstance(layer.keys, Tensor) == poisoned
        if poisoned:
            assert layer.keys.shape == layer.values.shape == (2, 1, 6 if number else 4, 2)
            assert bool((layer.keys.isnan() & layer.values.isnan()).all())


A, B = Member("a", 4, 2), Member("b", 4, 2)
WHOLE, BOTH = ((Span(0, 0, 4, 0),),), ((Span(0, 0, 4, 0), Span(1, 0, 4, 0)),)
RESET = (Action(1, "reset"),)
ADOPT = (Action(1, "adopt", 1, 0, 2),)


@pytest.mark.parametrize(
    ("plan", "kind", "said"),
    [
        (Plan((A,), WHOLE, Layout()), "dynamic", None),
        (Plan((A,), WHOLE, Layout(page=4)), "dynamic", "a cache in pages of 4"),
        (Plan((A, B), BOTH, Layout()), "dynamic", "a packed step of 2 sequences"),
        (Plan((A, B), (*WHOLE, *BOTH), Layout()), "dynamic", "a packed step of 2 sequences"),
        (Plan((A, B), BOTH, Layout(batch="left")), "dynamic", None),
        (Plan((A,), (), Layout(), generate=True), "dynamic", None),
        (Plan((A, B), BOTH, Layout(), generate=True), "dynamic", None),
        (Plan((A,), (), Layout(batch="left"), generate=True), "dynamic", "generate() over a"),
        (Plan((A, B), BOTH, Layout(batch="left"), actions=RESET), "static", "a reset or a shared"),
        (Plan((A,), WHOLE, Layout(), actions=RESET), "static", None),
        (Plan((A,), WHOLE, Layout(), actions=RESET + ADOPT), "dynamic", "of the dynamic cache"),
        (Plan((A,), WHOLE, Layout(), actions=ADOPT), "dynamic", None),
    ],
)  # fmt: skip
def test_a_plan_that_it_cannot_compute_is_named(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, kind: str, said: str | None
) -> None:
    monkeypatch.setattr(subjects, "unreset", lambda: "reset() of the dynamic cache")
    found = subject(cache=kind).unsupported(plan)
    assert found is None if said is None else said in str(found)


def test_programs_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, said in (("refused", "refused"), ("open_session", "open")):
        monkeypatch.setattr(programs, name, lambda *given, said=said: (said, *given))
    made, layout = subject(), Layout(program="export")
    plan = Plan((A,), (), layout, generate=True)
    assert made.unsupported(plan) == ("refused", made, plan)
    assert made.session([A], layout) == ("open", made, [A], layout)
    for batch, name in (("packed", "Packed"), ("left", "Padded"), ("right", "Padded")):
        assert type(made.session([A], Layout(batch=batch))).__name__ == name  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="a cache in pages of 4: use a contiguous layout"):
        made.session([A], Layout(page=4))


# What ran


@pytest.mark.parametrize(
    ("attention", "before", "asks", "ran"),
    [
        ("eager", {}, [], None), ("eager", {"backend.sdpa": 2}, [], None),
        ("eager", {}, ["eager of a test"], "ran eager of a test"),
        ("sdpa", {"backend.sdpa": 2}, [], "ran an attention of its own"),
        ("sdpa", {}, ["sdpa"], None),
        ("sdpa", {"backend.eager of a test": 1}, ["sdpa"], None),
        ("sdpa", {}, ["sdpa", "eager of a test"], "ran eager of a test and sdpa"),
    ],
)  # fmt: skip
def test_each_forward_runs_the_attention_that_was_asked_for(
    attention: str, before: dict[str, int], asks: list[str], ran: str | None
) -> None:
    made, seen = subject(attention=attention), Observation(counts=Counter(before))
    mapping = ATTENTIONS.get()
    mapping["eager of a test"] = lambda: None

    def forward() -> None:
        with made.observing(seen):
            for name in asks:
                if name == "sdpa":
                    seen.counts["backend.sdpa"] += 1
                else:
                    mapping[name]()

    try:
        if ran is None:
            forward()
        else:
            with pytest.raises(SubjectError, match=f"{attention} was asked for, but Model {ran}"):
                forward()
    finally:
        del mapping["eager of a test"]
    assert made._ran == Counter(f"backend.{name}" for name in asks)


@contextmanager
def swapping() -> Iterator[Any]:
    yield SimpleNamespace(overridden={"mm": 2})


def described(made: TransformersSubject, *ran: Any) -> dict[str, Any]:
    made._about = {"class": "Model"}
    return dict(made.describe(*ran))


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize("does", ["nothing", "scores", "runs"])
def test_arithmetic_is_used_where_a_forward_took_it(
    monkeypatch: pytest.MonkeyPatch, invariant: bool, does: str
) -> None:
    monkeypatch.setattr(subjects, "invariant", swapping)
    monkeypatch.setattr(subjects, "attention_of", lambda model: "what it took")
    made = subject(invariant=invariant, notes=("a note",))
    seen = Observation(order=made.order)
    if does == "scores":
        rows = torch.tensor([[0.0, 1.0, 5.0]])
        found = made.values(rows.bfloat16(), torch.tensor([2]), [1.0, 0.5])
        wanted = torch.log_softmax(torch.stack([rows[0], rows[0] / 0.5]), -1)[:, 2]
        assert found.equal(wanted[None])
    if does == "runs":
        with made.observing(seen):
            pass
        assert seen.counts == ({"invariant.mm": 2} if invariant else {})
    about = described(made)
    lies: dict[str, Any] = {"devices": {}}
    asked, used = {"attention": "eager"} | lies, {"attention": "what it took"} | lies
    if invariant:
        asked, used = asked | {"invariant": True}, used | {"invariant": does == "runs"}
    assert (about["requested"], about["used"]) == (asked, used)
    assert about["invariant"] == (["mm"] if invariant and does != "nothing" else [])
    assert (about["attention_called"], about["order"]) == ([], None)
    assert (about["cache"], about["notes"], about["class"]) == ("DynamicCache", ["a note"], "Model")
    other = described(made, Counter({"invariant.of another": 1, "backend.x": 1}))
    more = ["mm"] if invariant and does == "scores" else []
    assert other["invariant"] == [*more, "of another"]
    assert other["attention_called"] == ["x"]


def test_an_operation_that_is_not_invariant_names_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def refusing() -> Iterator[Any]:
        raise NotInvariantError("invariant(): no conv")
        yield

    monkeypatch.setattr(subjects, "invariant", refusing)
    with pytest.raises(UnsupportedError, match=r"Model under invariant\(\): no conv"):
        subject(invariant=True).values(torch.zeros(1, 3), torch.tensor([0]), [1.0])
    assert described(subject(attention="kvparity"))["order"]["split"] == ReductionOrder().split


def test_the_twin_is_made_once_and_what_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made, twins = subject(), []
    monkeypatch.setattr(subjects.oracle, "twin", lambda model: twins.append(model) or "twin")
    monkeypatch.setattr(subjects.oracle, "logits", lambda *given: given)
    for _ in range(2):
        assert made.oracle(A, [1, 2], range(1)) == ("twin", [1, 2], range(1), made.device)
    assert twins == [made.model]

    def none(model: Any) -> Any:
        raise MemoryError("none")

    monkeypatch.setattr(subjects.oracle, "twin", none)
    with pytest.raises(SubjectError, match=r"Model does not compute .*MemoryError: none"):
        subject().oracle(A, [1], range(1))


def test_a_dynamic_reset_is_asked_of_transformers() -> None:
    plan = Plan((A,), WHOLE, Layout(), actions=RESET)
    assert subject().unsupported(plan) == unreset()
