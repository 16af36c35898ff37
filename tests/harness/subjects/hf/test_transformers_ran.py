"""What a transformers model really ran, and what its unused slots hold: wrong in one place each."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_transformers import CONFIG, ORDER, one_by_one, tokens
from torch import Tensor
from transformers import DynamicCache

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.subjects.base import SubjectError
from kvparity.subjects.hf.caches import GARBAGE
from kvparity.subjects.hf.subject import TransformersSubject, build
from kvparity_contracts.subjects import Transformers

LENGTH = 6


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(attention: str, cache: str = "dynamic", **more: Any) -> TransformersSubject:
    """A model of its own, to be spoiled."""
    contract = Transformers(
        kind="transformers",
        config=CONFIG,
        attention=attention,
        cache=cache,
        order=ORDER if attention == "kvparity" else None,
        **more,
    )
    how = {"execution": "float32", "kv_cache": "float32", "device": torch.device("cpu")}
    return build(contract, **how, seed=3, base=Path())  # type: ignore[arg-type] # of several types


def run(subject: TransformersSubject, chunk: int = LENGTH, layout: Layout = Layout()) -> Any:  # noqa: B008 - frozen
    """A session that has computed one sequence in chunks."""
    session = subject.session([Member("m", LENGTH)], layout)
    for step in one_by_one(LENGTH, chunk):
        list(session.forward(step, [tokens(LENGTH)[step[0].start : step[0].stop]]))
    return session


# What ran


def one_layer_asks_another(model: Any) -> None:
    own = model.model.layers[1].self_attn
    own.config = copy.deepcopy(own.config)
    own.config._attn_implementation = "sdpa"


def no_layer_asks(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.forward = lambda hidden_states, **more: (hidden_states, None)


@pytest.mark.parametrize(
    ("attention", "spoil", "ran"),
    [
        ("eager", one_layer_asks_another, "eager and sdpa"),
        ("sdpa", no_layer_asks, "an attention of its own"),
    ],
    ids=["one layer of two", "none asks"],
)
def test_another_attention_is_an_error_wherever_it_runs(
    attention: str, spoil: Callable[[Any], None], ran: str
) -> None:
    subject = fresh(attention)
    run(subject)
    spoil(subject.model)
    with pytest.raises(
        SubjectError, match=f"attention {attention} was asked for, but .* ran {ran}"
    ):
        run(subject)


def test_a_model_that_asks_for_no_function_is_eager() -> None:
    subject = fresh("eager")
    no_layer_asks(subject.model)
    assert "backend.eager" not in run(subject).observed()


def test_another_cache_in_one_step_of_generate_is_an_error() -> None:
    class Other(DynamicCache):
        """What another library might put in its place."""

    subject = fresh("eager")

    def generate() -> Counter[str]:
        return subject.generate(Member("m", 8, 5), tokens(5), lambda position, row: 1)

    assert generate()["cache.DynamicCache"] == 3

    def swap(view: Any, filled: int) -> None:
        if filled == 6:
            view.places[0].cache.__class__ = Other

    subject.after_step = swap
    with pytest.raises(SubjectError, match=r"asked for a DynamicCache, but .*\['.*', 'Other'\]"):
        generate()


def test_the_first_token_alone_is_a_prompt() -> None:
    subject = fresh("eager")
    session = subject.session([Member("m", 2, 1)], Layout())
    list(session.forward((Span(0, 0, 1, 0),), [[5]]))
    assert session.observed()["forward.prefill"] == 1
    assert session.observed()["forward.decode"] == 0
    list(session.forward((Span(0, 1, 2, 1, decode=True),), [[6]]))
    assert session.observed()["forward.decode"] == 1


def used(subject: TransformersSubject, *ran: Any) -> Any:
    about = subject.describe(*ran)
    assert about["requested"]["invariant"] is True
    return about["used"]["invariant"]


def score(subject: TransformersSubject) -> None:
    """Logprobs are the harness's own work: they say nothing of the model."""
    subject.values(torch.zeros(1, subject.vocab), torch.tensor([3]), [1.0])
    assert subject.describe()["invariant"] == ["_log_softmax"]


@pytest.mark.parametrize("do", [lambda subject: None, score], ids=["never", "logprobs alone"])
def test_fixed_order_arithmetic_that_no_forward_took_is_not_used(do: Callable[[Any], None]) -> None:
    subject = fresh("eager", invariant=True)
    do(subject)
    assert used(subject) is False
    session = run(subject)
    assert used(subject) is True
    assert used(subject, session.observed()) is True
    assert used(subject, Counter({"forward.prefill": 3})) is False


# What unused slots hold


def stored(session: Any) -> Iterator[tuple[str, Tensor]]:
    """Keys and values of every layer, ``[kv_heads, slots, head_dim]``."""
    for number, layer in enumerate(session.places[0].cache.layers):
        yield f"k of layer {number}", layer.keys[0]
        yield f"v of layer {number}", layer.values[0]


def holds(fill: float, x: Tensor) -> bool:
    return bool((x.isnan() if fill != fill else x == fill).all())


@pytest.mark.parametrize(
    ("attention", "fill"), [("kvparity", float("nan")), ("sdpa", GARBAGE)], ids=["kvparity", "sdpa"]
)
@pytest.mark.parametrize("forget", ["truncate", "reset", "adopt"])
def test_what_is_forgotten_is_not_there(attention: str, fill: float, forget: str) -> None:
    subject, kept = fresh(attention, "static"), 0
    members = [Member("m", LENGTH, 4), Member("n", LENGTH, 4, shared=2)]
    session = subject.session(members, Layout())
    list(session.forward((Span(0, 0, 4, 3),), [tokens(4)]))
    if forget == "reset":
        session.reset()
    elif forget == "truncate":
        kept = 2
        session.cache().truncate(0, kept)
    else:
        kept = 2
        session.adopt(1, 0, kept)
        session.places[0] = session.places[1]
    for name, x in stored(session):
        assert holds(fill, x[:, kept:4]), name
        assert bool(x[:, :kept].isfinite().all()), name
        if fill != fill:  # nothing has written behind the prompt
            assert holds(fill, x[:, 4:]), name


@pytest.mark.parametrize("layout", [Layout(), Layout(batch="left")], ids=["packed", "padded"])
def test_what_was_never_written_is_nan(layout: Layout) -> None:
    session = fresh("kvparity", "static").session([Member("m", 3 * LENGTH, LENGTH)], layout)
    list(session.forward((Span(0, 0, LENGTH, LENGTH),), [tokens(LENGTH)]))
    for name, x in stored(session):
        assert holds(float("nan"), x[:, LENGTH:]), name
        assert x[:, LENGTH:].numel(), name
        assert bool(x[:, :LENGTH].isfinite().all()), name
