"""Exported and compiled steps of the reference decoder against its own code."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from small_programs import FEATURES, computed, decoder, plan, prompts, tokens

from kvparity.plan.schedule import Layout, Member, Span
from kvparity.record.execute import run
from kvparity.relations.bits_and_limits import invariance
from kvparity.subjects import events
from kvparity.subjects.attention_calls import AttentionOps
from kvparity.subjects.base import LayeredCache, SubjectError, UnsupportedError
from kvparity.subjects.decoder.model import Ops
from kvparity.subjects.export.decoder import ProgramSession, open_session

# Across the window of 5 and a tile of 16; and a prompt of one token.

pytestmark = pytest.mark.compile  # torch.export or torch.compile traces each
SOME = prompts(1, 14)


@pytest.mark.parametrize("name", FEATURES)
def test_exported_steps_give_the_bits_of_prefill(name: str) -> None:
    which = decoder(name)
    exported = computed(which, "exported", SOME)
    found = invariance(computed(which, "prefill", SOME), exported, column=0)
    assert (found.outcome, found.tokens) == ("holds", 8), found
    assert exported.observed["program.prefill"] == 2
    assert exported.observed["program.decode"] == exported.observed["attention.decode"] // (
        which.model.config.layers
    )
    assert exported.observed["program.decode"] == 6


def test_compiled_steps_give_the_bits_of_decode() -> None:
    which, one = decoder("plain"), prompts(5)
    compiled = computed(which, "compiled", one)
    found = invariance(computed(which, "decode", one), compiled, column=0)
    assert (found.outcome, found.tokens) == ("holds", 4), found
    assert compiled.observed["program.decode"] == 3


def test_a_compiler_that_is_switched_off_is_an_error() -> None:
    which, one = decoder("plain"), prompts(5)
    computed(which, "exported", one)
    (program, *_) = which.programs["decoder"].made.values()
    with torch.compiler.set_stance("force_eager"):
        from kvparity.subjects.export.compiling import Compiled

        compiled = Compiled(lambda x: x + 1)
        with pytest.raises(SubjectError, match="ran the module uncompiled"):
            compiled(torch.ones(2))
    assert program.graph_signature.user_inputs


def test_one_program_serves_caches_and_prompts_of_every_size() -> None:
    which = decoder("plain")
    for lengths in ((5,), (1, 22), (40, 3, 9)):  # 40 keys: over a split of 32
        computed(which, "exported", prompts(*lengths, generate=2))
    kinds = Counter(key.decode for key in which.programs["decoder"].made)
    # Prefill twice at most: a layout whose steps all hold one token has a program of its own.
    assert kinds[True] <= 2
    assert kinds[False] <= 2


def test_pages_are_an_input_like_others() -> None:
    which, one = decoder("plain"), prompts(14, generate=3)
    paged = plan("exported", one)
    paged = replace(paged, layout=replace(paged.layout, page=8))
    record = run(which, paged, tokens(one), temperatures=[1.0])
    assert invariance(computed(which, "prefill", one), record, column=0).outcome == "holds"


def test_programs_call_what_is_planted_when_they_run() -> None:
    which, one = decoder("plain"), prompts(14, generate=2)
    reference = computed(which, "prefill", one)
    seen: list[str] = []

    def halved(call):
        seen.append("attention")
        out, lse = which.attention.decode(call)
        return out / 2, lse

    def gated(gate, up, *, twin):
        seen.append("swiglu")
        return up.clone()

    attention = which.with_attention(AttentionOps(which.attention.prefill, halved))
    assert invariance(reference, computed(attention, "exported", one), column=0).outcome == (
        "differs"
    )
    ops = which.with_ops(Ops(swiglu=gated))
    assert invariance(reference, computed(ops, "exported", one), column=0).outcome == "differs"
    assert set(seen) == {"attention", "swiglu"}


def test_the_cache_can_be_cut_and_the_row_computed_again() -> None:
    which = decoder("coded-rings")
    session = which.session([Member("a", 12, 8)], Layout(program="exported", chunk=8))
    assert isinstance(session, ProgramSession)
    cache = session.cache()
    assert isinstance(cache, LayeredCache)
    list(session.forward((Span(0, 0, 8, 8),), [[1, 2, 3, 4, 5, 6, 7, 8]]))
    last = Span(0, 8, 9, 8, decode=True)
    (first,) = session.forward((last,), [[9]])
    cache.truncate(0, 8)
    (again,) = session.forward((last,), [[9]])
    assert torch.equal(first.view(torch.int32), again.view(torch.int32))
    cache.truncate(0, 8)
    k, v = cache.read(1, 0, 6, 7)
    cache.write(1, 0, 6, -8 * k, 8 * v)
    (other,) = session.forward((last,), [[9]])
    assert not torch.equal(first.view(torch.int32), other.view(torch.int32))


def test_what_the_caller_listens_to_is_no_part_of_a_program() -> None:
    class Deaf:
        def wrote(self, event):
            raise AssertionError("a program told of keys that it was traced with")

        def wants(self, sequence, positions):
            return positions

        attended = wrote

    which = replace_programs(decoder("plain"))
    with events.listening(Deaf()):
        record = computed(which, "exported", prompts(5))
    assert len(record.index) == 4


def replace_programs(which):
    other = which.with_ops(which.ops)
    other.programs = {}
    return other


def test_what_programs_cannot_do_is_refused_in_words() -> None:
    which, two = decoder("plain"), prompts(3, 5)
    members = plan("decode", two).members
    together = replace(plan("batched", two), layout=Layout(program="exported"))
    assert "one sequence per step" in which.unsupported(together)
    for layout, words in (
        (Layout(program="exported", batch="left"), "a packed batch"),
        (Layout(program="compiled", cached=False), "is given a cache"),
    ):
        assert which.unsupported(replace(plan("decode", two), layout=layout))
        with pytest.raises(UnsupportedError, match=words):
            open_session(which, members, layout)


def test_a_step_that_parts_in_a_number_of_the_host_is_not_traced() -> None:
    from kvparity.subjects.export.step import require_same_numbers

    which = decoder("plain")
    session = open_session(which, [Member("a", 9, 4)], Layout(program="exported"))
    (one, _), (other, _) = session._samples(decode=True)
    require_same_numbers(one, other)
    visible = one.decode.seen
    paged = replace(visible, addresses=(replace(visible.addresses[0], page=8),))
    wrong = replace(one, decode=replace(one.decode, seen=paged))
    with pytest.raises(SubjectError, match=r"addresses\.0\.page of a decoder's step is a number"):
        require_same_numbers(one, wrong)
