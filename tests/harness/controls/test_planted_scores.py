"""Defects of scores, of layers, of reuse and of how kernels are called: numbers as they say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from attention_spy import Bare, PairSpy, Spy, normal
from planted_calls import decoded, kv_of, prefilled
from planting import Told, ToldSession, chunk, ids_of, number, one, run
from torch import Tensor

from kvparity.controls import attended, export, reuse, rope, score
from kvparity.plan.schedule import Layout, Member, Step
from kvparity.subjects.base import UnsupportedError

MEMBERS = [Member("a", 9, 4), Member("b", 9, 2)]
PROMPTS: Step = (chunk(0, 0, 4), chunk(1, 0, 2))
TEMPERATURES = (0.5, 2.0)


def softmax(row: list[float], t: float) -> list[float]:
    wide = [math.exp(x / t) for x in row]
    return [x / sum(wide) for x in wide]


def nucleus(p: list[float], chosen: int) -> float:
    """The log of the mass of the fewest likeliest tokens with 0.9 of it; 0 for one outside."""
    kept: list[int] = []
    for token in sorted(range(len(p)), key=lambda i: -p[i]):
        if sum(p[i] for i in kept) < 0.9:
            kept.append(token)
    return math.log(sum(p[i] for i in kept)) if chosen in kept else 0.0


RIGHT: dict[str, Any] = {
    # What a token's logprob becomes: of the row, its probabilities at t, the token, t
    "temperature_ignored": lambda row, p, i, t: math.log(softmax(row, 1.0)[i]),
    "scaled_logprobs": lambda row, p, i, t: math.log(softmax(row, 1.0)[i]) / t,
    "log_of_softmax": lambda row, p, i, t: math.log(p[i]),
    "inlined_logprob": lambda row, p, i, t: math.log(p[i]),
    "top_p_renormalised": lambda row, p, i, t: math.log(p[i]) - nucleus(p, i),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_logprob_is_what_the_defect_makes_of_it(name: str) -> None:
    rows, targets = normal(12, 6) * 2, torch.arange(12) % 6
    found = getattr(score, name)(Told()).values(rows, targets, TEMPERATURES)
    assert found.shape == (12, 2)
    for row, i, own in zip(rows.tolist(), targets.tolist(), found.tolist(), strict=True):
        wanted = [RIGHT[name](row, softmax(row, t), i, t) for t in TEMPERATURES]
        assert own == pytest.approx(wanted, rel=1e-4, abs=1e-5)  # float32 against float64


def test_a_nucleus_ends_where_its_share_is_reached() -> None:
    """Of two tokens with exactly 0.9 and 0.1 the second is outside: its logprob stays."""
    rows = (math.log(9) + torch.arange(-64, 64) * 2.0**-22)[:, None] * torch.tensor([1.0, 0.0])
    p = torch.softmax(rows, -1)
    exactly = rows[p.sum(-1) - p[:, 1] == torch.tensor(0.9)]
    assert len(exactly)
    targets = torch.ones(len(exactly), dtype=torch.int64)
    plain = Told().values(exactly, targets, [1.0])
    assert torch.equal(score.top_p_renormalised(Told()).values(exactly, targets, [1.0]), plain)
    kept = score.top_p_renormalised(Told()).values(exactly, 1 - targets, [1.0])
    torch.testing.assert_close(kept, torch.zeros_like(kept), rtol=0, atol=1e-6)


def test_from_three_sequences_on_a_sampler_sees_bfloat16() -> None:
    subject = Told()
    planted = score.sampler_by_batch(subject)
    rows, targets = normal(2, 6), torch.tensor([1, 2])
    planted.values(rows, targets, [1.0])
    session = planted.session([*MEMBERS, MEMBERS[0]], Layout())
    for step in ((one(0, 3), one(1, 2)), (one(0, 4), one(1, 3), one(2, 1)), (one(0, 5),)):
        list(session.forward(step, ids_of(step)))
        planted.values(rows, targets, [1.0])
    narrow = rows.bfloat16().float()
    assert [torch.equal(a, rows) for a, _ in subject.asked] == [True, True, False, True]
    assert torch.equal(subject.asked[2][0], narrow)
    assert [t for _, t in subject.asked] == [[1.0]] * 4


@pytest.mark.parametrize("block", [1, 3, 100])
def test_rows_of_a_first_chunk_were_never_written(block: int) -> None:
    session = score.cached_rows_uninitialised(Told(block=block)).session(MEMBERS, Layout())
    first, second = run(session, [PROMPTS, (one(0, 4), chunk(1, 2, 5))])
    assert first.isnan().all()
    assert second[:, 0].tolist() == [4, 2, 3, 4]
    (mixed,) = run(session, [(chunk(0, 5, 7), chunk(1, 0, 2), one(2, 3))])
    assert mixed[:, 0].isnan().tolist() == [False, False, True, True, False]
    assert mixed[[0, 1, 4], 1].tolist() == [5, 6, 3]


def test_all_layers_of_a_step_read_the_first_ones_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy()
    subject = Bare(spy.ops())
    caches = [kv_of(5), kv_of(6), kv_of(7)]
    opened = []
    monkeypatch.setattr(
        Bare,
        "session",
        lambda self, members, layout: opened.append(self) or self.told.session([], layout),
    )
    session = attended.wrong_donor(subject).session(MEMBERS, Layout())
    for step in ((chunk(0, 0, 4),), (one(0, 4),)):
        list(session.forward(step, ids_of(step)))
        for kv in caches[:2]:
            prefilled(opened[0], kv, (2,))
        for kv in reversed(caches):
            decoded(opened[0], kv, max_kv=9)
    used = [call.kv is kv for call in spy.calls for kv in caches]
    assert used == ([True, False, False] * 2 + [False, False, True] * 3) * 2
    list(session.forward((one(0, 5),), [[1]]))
    decoded(opened[0], caches[1])
    assert spy.calls[-1].kv is caches[1]  # each step begins anew
    for other in (Bare(spy.ops(), layers=1), PairSpy().subject()):
        with pytest.raises(UnsupportedError, match=r"at least two layers|reference decoder alone"):
            attended.wrong_donor(other)
    attended.wrong_donor(Bare(spy.ops(), layers=2))


def test_every_key_weighs_the_same_without_a_scale() -> None:
    spy, kv = Spy(), kv_of(9)
    planted = attended.uniform_attention(Bare(spy.ops()))
    found = decoded(planted, kv, window=4)[0], prefilled(planted, kv, (1,), window=4)[0][1:]
    mean = kv.v[6:10].double().mean(0).float().repeat_interleave(2, 0)[None]
    for each in found:
        torch.testing.assert_close(each, mean)
    with pytest.raises(UnsupportedError, match="the reference decoder alone"):
        attended.uniform_attention(PairSpy().subject())


@dataclass(frozen=True)
class Layer:
    qkv: Tensor


@dataclass(frozen=True)
class Stack:
    layers: tuple[Layer, ...]


def test_prefixes_of_the_old_weights_stay_after_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Stack((Layer(torch.ones(2)), Layer(torch.ones(2))))
    subject = Bare(Spy().ops(), weights=weights)
    sessions: list[ToldSession] = []

    def session(self: Any, members: Any, layout: Any) -> ToldSession:
        scales = {float(x) for layer in self.model.weights.layers for x in layer.qkv}
        assert len(scales) == 1
        sessions.append(ToldSession(self.told, scale=scales.pop()))
        return sessions[-1]

    monkeypatch.setattr(Bare, "session", session)
    planted: Any = reuse.stale_after_update(subject).session(MEMBERS, Layout())
    new, old = sessions
    assert (new.scale, old.scale) == (1.0, 1.0 + 2.0**-6)
    assert all(torch.equal(layer.qkv, torch.ones(2)) for layer in weights.layers)
    run(planted, [PROMPTS, (one(0, 4),)])
    assert (len(old.told), len(new.told)) == (2, 0)  # the old weights compute before the update
    planted.reset()
    assert (old.actions, new.actions) == ([], [("reset",)])
    (rows,) = run(planted, [(chunk(0, 0, 2), chunk(1, 0, 2))])
    assert rows[:, 0].tolist() == [0, 1, 0, 1]
    for more in ([], [(chunk(0, 2, 5), one(1, 2))]):  # later chunks are computed anew
        run(planted, more)
        stale = {at for at, (k, _) in new.memory.held.items() if k != number(*at)}
        # All of the prompt but its last token, as far as the first chunk went.
        assert stale == {(layer, s, p) for layer in (0, 1) for s, p in [(0, 0), (0, 1), (1, 0)]}
    assert (len(old.told), len(new.told)) == (2, 2)
    assert all(new.memory.held[at] == old.memory.held[at] for at in stale)
    single: Any = reuse.stale_after_update(subject).session([Member("a", 3, 1)], Layout())
    run(single, [(chunk(0, 0, 1),)])
    single.reset()
    run(single, [(chunk(0, 0, 1),)])  # of a prompt of one token nothing is kept
    assert all(k == number(*at) for at, (k, _) in sessions[2].memory.held.items())
    monkeypatch.setattr(Bare, "session", lambda *_: ToldSession(Told(cached=False)))
    closed: Any = reuse.stale_after_update(subject).session(MEMBERS, Layout())
    closed.reset()
    with pytest.raises(UnsupportedError, match="a cache that can be reached, and there is none"):
        run(closed, [PROMPTS])
    with pytest.raises(UnsupportedError, match="the reference decoder alone"):
        reuse.stale_after_update(PairSpy().subject())


def test_tables_of_angles_are_rounded_or_counted_coarsely() -> None:
    table = normal(70, 3)
    subject = Bare(Spy().ops(), table=table)
    rounded: Any = rope.rope_table_bfloat16(subject)
    assert torch.equal(rounded.model.cos, table.bfloat16().float())
    assert torch.equal(rounded.model.sin, -table.bfloat16().float())
    assert torch.equal(subject.model.cos, table)
    coarse: Any = rope.positions_inexact(subject)

    def kept(p: int) -> int:
        """A position in four significant bits, halves to even, as a float would hold it."""
        step = 2 ** max(p.bit_length() - 4, 0)
        return min(round(p / step) * step, 69)

    assert torch.equal(coarse.model.cos, table[[kept(p) for p in range(70)]])
    assert torch.equal(coarse.model.sin, -coarse.model.cos)
    assert [kept(p) for p in (15, 16, 17, 18, 19, 33, 69)] == [15, 16, 16, 18, 20, 32, 69]
    with pytest.raises(UnsupportedError, match="the reference decoder alone"):
        rope.rope_table_bfloat16(PairSpy().subject())


def test_a_program_is_traced_of_our_decoder_alone() -> None:
    with pytest.raises(UnsupportedError, match="the reference decoder alone"):
        export.baked_cache(PairSpy().subject())
    subject = Bare(Spy().ops())
    planted: Any = export.baked_cache(subject)
    assert isinstance(planted.session(MEMBERS, Layout()), ToldSession)  # no program, no defect
