"""Exported and compiled programs of transformers models against their own forward."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from small_programs import computed, plan, prompts

from kvparity.core.relied.transformers import untraceable
from kvparity.plan.schedule import Layout, Member, Span
from kvparity.relations.bits_and_limits import invariance
from kvparity.subjects.base import LayeredCache, SubjectError, UnsupportedError
from kvparity.subjects.export import hf as programs
from kvparity.subjects.export import recipe
from kvparity.subjects.export.hf import ExportedSession, ModelPrograms, programs_of
from kvparity.subjects.hf.subject import build
from kvparity_contracts.subjects import Transformers

pytestmark = pytest.mark.compile  # torch.export or torch.compile traces each
CONFIG = {
    "model_type": "mistral",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "sliding_window": 4,
}


WHOLE = {**CONFIG, "model_type": "llama"}
WHOLE.pop("sliding_window")


REASON = untraceable()


@pytest.fixture(autouse=True)
def _traceable(request: pytest.FixtureRequest) -> None:
    if REASON and request.node.name != "test_where_nothing_can_be_traced_that_is_said":
        pytest.skip(f"not done: {REASON}")


def test_where_nothing_can_be_traced_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (REASON is None) == (int(transformers.__version__.split(".")[0]) >= 5)
    subject, case = model(), plan("exported", prompts(3))
    assert programs.refused(subject, case) == REASON
    monkeypatch.setattr(programs.relied, "untraceable", lambda: "this")
    assert programs.refused(subject, case) == "this"


@cache
def model(
    invariant: bool = False,
    cache: str = "static",
    attention: str = "eager",
    whole: bool = False,
) -> Any:
    return build(
        Transformers(
            kind="transformers",
            config=WHOLE if whole else CONFIG,
            attention=attention,
            cache=cache,
            invariant=invariant,
        ),
        execution="float32",
        kv_cache="float32",
        device=torch.device("cpu"),
        seed=3,
        base=Path(),
    )


def test_an_exported_program_in_fixed_order_gives_the_bits_of_one_forward_pass() -> None:
    which, some = model(invariant=True), prompts(1, 6)
    exported = computed(which, "exported", some)
    found = invariance(computed(which, "prefill", some), exported, column=0)
    assert (found.outcome, found.tokens) == ("holds", 8), found
    programs = {n: c for n, c in exported.observed.items() if not n.startswith("invariant.")}
    assert programs == {"program.prefill": 2, "program.decode": 6}
    assert exported.observed["invariant.linear"] > 0


def test_a_compiled_forward_is_the_model_up_to_rounding() -> None:
    which, some = model(whole=True), prompts(1, 3)
    compiled = computed(which, "compiled", some)
    decoded = computed(which, "decode", some)
    # Eight roundings of float32 at logprobs below 16; a lost key moves them by 1e-3 and more.
    assert float((compiled.values - decoded.values).abs().max()) < 8 * 2.0**-20
    assert compiled.observed["program.decode"] == 6
    assert programs_of(which).compiled.runs == {"runs": 6, "graphs": 1}


def test_every_key_in_the_window_counts_and_no_older_one() -> None:
    which = model(invariant=True)
    session = which.session([Member("a", 9, 6)], Layout(program="exported"))
    assert isinstance(session, ExportedSession)
    list(session.forward((Span(0, 0, 6, 6),), [[1, 2, 3, 4, 5, 6]]))
    cache, last = session.cache(), Span(0, 6, 7, 6, decode=True)
    assert isinstance(cache, LayeredCache)
    assert (cache.layers(), cache.window(0)) == (1, 4)

    def row() -> torch.Tensor:
        (found,) = session.forward((last,), [[7]])
        cache.truncate(0, 6)
        return found.view(torch.int32)

    calm = row()
    assert torch.equal(calm, row())
    for position in range(6):
        k, v = cache.read(0, 0, position, position + 1)
        cache.write(0, 0, position, -9 * k, 9 * v)
        assert torch.equal(calm, row()) == (position <= 6 - 4), position
        cache.write(0, 0, position, k, v)
    assert torch.equal(calm, row())


def test_a_program_whose_cache_nobody_feeds_is_found() -> None:
    which = model()
    made = programs_of(which).get(which, 16, decode=True)
    assert recipe.findings(which.model, made) == []
    assert set(recipe.state(made.program)) == {
        "key_cache_0", "value_cache_0", "cumulative_length_0",
    }  # fmt: skip
    weights = [*which.model.parameters(), *which.model.buffers()]
    names = [f.node for f in recipe.baked(made.program, weights)]
    assert names == [
        "b_static_cache_layers_0_cumulative_length",
        "b_static_cache_layers_0_keys",
        "b_static_cache_layers_0_values",
    ]


def test_another_attention_in_the_graph_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    which = model()
    made = programs_of(which).get(which, 16, decode=True)
    assert made.attention() == "eager"
    monkeypatch.setattr(programs, "export", lambda *args, **named: made)
    monkeypatch.setattr(which, "attention", "sdpa")
    with pytest.raises(SubjectError, match="attention sdpa was asked for, but the exported"):
        ModelPrograms().get(which, 16, decode=True)


def test_what_cannot_be_traced_is_refused_in_words() -> None:
    two = prompts(3, 5)
    exported = plan("exported", two)
    compiled = plan("compiled", two)
    assert "write cache: static" in model(cache="dynamic").unsupported(exported)
    assert "looks at its masks" in model(attention="kvparity").unsupported(exported)
    assert "fixed-order arithmetic" in model(invariant=True).unsupported(compiled)
    padded = replace(exported, layout=Layout(program="exported", batch="left"))
    assert "one sequence per step" in model().unsupported(padded)
    with pytest.raises(UnsupportedError, match="one sequence per step"):
        model().session(padded.members, padded.layout)


def test_a_model_that_cannot_be_exported_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    which = model()
    monkeypatch.setattr(which.model.config, "use_cache", False)
    with pytest.raises(SubjectError, match=r"torch\.export of MistralForCausalLM failed: Value"):
        recipe.export(which.model, 16, rows=1)
