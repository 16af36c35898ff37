"""What the decoder tells: as it was written and attended, defects included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from decoder_cases import Rows, decoder, differing, plan, play, prompts

from kvparity.subjects import events
from kvparity.subjects.attention_calls import DecodeCall, Outputs
from kvparity.subjects.decoder.subject import DecoderSubject
from kvparity.subjects.events import Attended, Wrote
from kvparity_kernels.attention import naive
from kvparity_kernels.keys import KeysValues

ALL: dict[str, Any] = {
    "layers": 4,
    "sliding_window": 6,
    "layer_types": ("sliding", "full", "sliding", "full"),
    "kv_shared_layers": 2,
    "shared_head_dim": 8,
    "attention_softcap": 4.0,
    "attention_sinks": True,
}
GIVEN = prompts(6, 8, generate=3)


@dataclass
class Ear:
    """Keeps everything that it is told."""

    writes: list[Wrote] = field(default_factory=list)
    rows: list[Attended] = field(default_factory=list)

    def wrote(self, event: Wrote) -> None:
        self.writes.append(event)

    def wants(self, sequence: int, positions: Sequence[int]) -> Sequence[int]:
        return [each for each in positions if each % 2 == 0]

    def attended(self, event: Attended) -> None:
        self.rows.append(event)


def heard(which: DecoderSubject, path: str) -> tuple[Ear, Rows]:
    plan_of = plan(path, GIVEN)
    session = which.session(plan_of.members, plan_of.layout)
    ear = Ear()
    with events.listening(ear):
        rows = play(session, plan_of)
    return ear, rows


@pytest.mark.parametrize("path", ["paged(3)", "padded-left", "uncached"])
def test_rows_are_told_as_they_are_attended(path: str) -> None:
    which = decoder("fp8_e4m3(head)", ring=path != "uncached", **ALL)
    ear, rows = heard(which, path)
    quiet = plan(path, GIVEN)
    assert differing(rows, play(which.session(quiet.members, quiet.layout), quiet)) == []
    last = {0: 8, 1: 10} if path == "uncached" else {0: 7, 1: 9}
    told = {(row.sequence, row.position) for row in ear.rows}
    assert told == {(s, p) for s, n in last.items() for p in range(0, n + 1, 2) if p <= n}
    assert len(ear.rows) == 4 * len(told)
    for row in ear.rows:
        window = (6, 0, 6, 0)[row.layer]
        assert row.told == row.position
        assert row.length == row.position + 1
        assert row.first == (max(0, row.length - window) if window else 0)
        assert row.k.shape == row.v.shape == (row.length - row.first, 2, 16)
        assert row.decode == (path != "uncached" and row.position >= (6, 8)[row.sequence])
        assert row.softcap == 4.0
        assert row.sinks is not None
        assert row.scale == pytest.approx((16 if row.layer < 2 else 8) ** -0.5)
        out, lse = naive.attend(
            row.q[None], row.k, row.v, scale=row.scale, softcap=row.softcap, sinks=row.sinks
        )
        assert row.lse is not None
        assert (row.out - out[0]).abs().max() < 1e-5  # some ten roundings of numbers near 1
        assert (row.lse - lse[0]).abs().max() < 1e-5


@pytest.mark.parametrize("path", ["streamed(3)", "uncached"])
def test_writes_are_told_before_they_are_rounded(path: str) -> None:
    which = decoder("int4(8)", **ALL)
    plan_of = plan(path, GIVEN)
    session = which.session(plan_of.members, plan_of.layout)
    ear = Ear()
    with events.listening(ear):
        play(session, plan_of)
    assert {event.layer for event in ear.writes} == {0, 1}
    written = {
        (event.layer, event.sequence, event.start + i)
        for event in ear.writes
        for i in range(len(event.k))
    }
    assert len(written) == sum(len(event.k) for event in ear.writes)
    assert len(written) == 2 * ((9 + 11) if path == "uncached" else (8 + 10))
    cache = session.cache()
    for event in ear.writes if cache else ():
        assert cache is not None
        stop = event.start + len(event.k)
        read = cache.read(event.layer, event.sequence, event.start, stop)
        declared = cache.round_trip(event.layer, event.k, event.v)
        for mine, theirs, fresh in zip(read, declared, (event.k, event.v), strict=True):
            assert mine.view(torch.int32).equal(theirs.view(torch.int32))
            assert not mine.view(torch.int32).equal(fresh.contiguous().view(torch.int32))


# What a planted function hands on is told, not what it was handed.


def planted(kind: str) -> DecoderSubject:
    which = decoder(layers=2, sliding_window=6)
    calls: list[KeysValues] = []

    def decode(call: DecodeCall) -> Outputs:
        kv = call.kv
        calls.append(kv)
        if kind == "window":
            call = replace(call, window=5)
        if kind == "donor":
            kv = calls[-2] if len(calls) % 2 == 0 else kv
        if kind == "length":
            kv = replace(kv, kv_lens=kv.kv_lens - 1)
        if kind == "start":
            assert kv.starts is not None
            kv = replace(kv, starts=kv.starts + 1)
        return which.attention.decode(replace(call, kv=kv))

    return which.with_attention(replace(which.attention, decode=decode))


@pytest.mark.parametrize("kind", ["nothing", "window", "donor", "length", "start"])
def test_a_planted_defect_is_told_as_it_is(kind: str) -> None:
    clean, _ = heard(decoder(layers=2, sliding_window=6), "decode")
    found, _ = heard(planted(kind), "decode")
    decoded = [row for row in found.rows if row.decode]
    pairs = list(zip(decoded, [row for row in clean.rows if row.decode], strict=True))
    assert pairs
    for mine, right in pairs:
        same = mine.k.shape == right.k.shape and mine.k.view(torch.int32).equal(
            right.k.view(torch.int32)
        )
        assert same == (kind == "nothing" or (kind == "donor" and mine.layer == 0))
        assert (mine.length == right.length) == (kind != "length")
        assert (mine.first == right.first) == (kind not in ("window", "length"))
