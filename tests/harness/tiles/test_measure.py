"""Tiles beside the base: what is equal, what differs, what cannot, and what shows nothing."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from triton.runtime.errors import OutOfResources

from kvparity.cli.main import main
from kvparity.core.bits import bits
from kvparity.tiles import measure as measuring
from kvparity.tiles import probe as probing
from kvparity.tiles.cases import FULL, SHORT, TINY, AttentionCase, LinearCase
from kvparity.tiles.data import batch, numbers
from kvparity.tiles.document import measurement
from kvparity.tiles.measure import measure
from kvparity_kernels import attention, rules, tiles
from kvparity_kernels.tiles import BASE

CPU = torch.device("cpu")
D16, D32 = "decode_block_m=16", "decode_block_m=32"
SMALL = (
    AttentionCase("plain", 2, 1, 16, (9, 130), 2),
    LinearCase("odd", 17, 35, (1, 17), bias=True, wide=True),
)


def some(*names):
    return {name: rules.choices()[name] for name in names}


def plant(monkeypatch, defect):
    """Let ``defect(out)`` change decode's result whenever 16 rows are asked for."""
    own = attention.attend_decode

    def decode(q, *arguments, **named):
        out, lse = own(q, *arguments, **named)
        if rules.current(q.device, q.dtype).decode_block_m == 16:
            out = defect(out.clone())
        return out, lse

    monkeypatch.setattr(attention, "attend_decode", decode)


def one_bit(out):
    bits(out).view(-1)[3] ^= 1
    return out


def refuse(out):
    raise OutOfResources(300_000, 232_448, "shared memory")


def test_other_tiles_give_the_bits_of_the_base_in_the_interpreter():
    names = (D16, "prefill_block_m=128,warps=8,skip_hidden", "linear 16x32x128/4w4s")
    found = measure(some(*names), TINY, torch.bfloat16, CPU)
    assert not found.void
    assert [(each.choice, each.answer) for each in found.answers] == [(n, "equal") for n in names]
    assert all(each.compared > 100 and each.first is None for each in found.answers)


def test_one_bit_under_a_choice_is_seen_and_told(monkeypatch):
    plant(monkeypatch, one_bit)
    found = measure(some(D16, D32), SMALL, torch.float32, CPU)
    bad, good = found.answers
    assert not found.void
    assert (bad.answer, good.answer) == ("differs", "equal")
    assert bad.differing == 2  # decode of all, and of one
    assert bad.first.startswith("decode: plain, [0, 0, 3]: ")
    assert " became " in bad.first


def test_minus_zero_is_another_number(monkeypatch):
    def zero(out):
        assert out[0, 0, 0] == 0
        out[0, 0, 0] = -out[0, 0, 0]
        return out

    # A row that sees no key: its result is +0.
    monkeypatch.setattr(measuring, "finite", lambda outcome: True)
    hidden = AttentionCase("hidden", 2, 1, 16, (1, 3), 1)
    own = attention.attend_decode
    monkeypatch.setattr(
        attention,
        "attend_decode",
        lambda q, kv, **named: own(
            q, kv, **named | {"first_key": torch.full((kv.batch,), 9, dtype=torch.int32)}
        ),
    )
    plant(monkeypatch, zero)
    (found,) = measure(some(D16), (hidden,), torch.float32, CPU).answers
    assert (found.answer, found.differing) == ("differs", 2)


def test_what_a_device_refuses_is_an_answer(monkeypatch):
    plant(monkeypatch, refuse)
    found = measure(some(D16), SMALL, torch.float32, CPU)
    assert found.answers[0].answer == "cannot"
    assert "out of resource: shared memory" in found.answers[0].error


def test_another_error_is_none(monkeypatch):
    def fail(out):
        raise ValueError("no")

    plant(monkeypatch, fail)
    with pytest.raises(ValueError, match="no"):
        measure(some(D16), SMALL, torch.float32, CPU)


def test_launches_that_take_no_notice_teach_nothing(monkeypatch):
    monkeypatch.setattr(tiles, "using", lambda which: tiles.given.get() or _nothing())
    found = measure(some(D16, "linear 16x32x128/4w4s"), SMALL, torch.float32, CPU)
    assert [each.answer for each in found.answers] == ["not applied"] * 2
    assert not found.void


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_a_choice_of_both_sides_must_reach_both(monkeypatch):
    own = attention.attend_prefill

    def deaf(*arguments, **named):
        with tiles.using(BASE):
            return own(*arguments, **named)

    monkeypatch.setattr(attention, "attend_prefill", deaf)
    found = measure(some("skip_hidden", D16), SMALL, torch.float32, CPU)
    assert [each.answer for each in found.answers] == ["not applied", "equal"]


def control(found, name):
    (one,) = (each for each in found.controls if each.name == name)
    return one


def test_a_base_that_does_not_repeat_itself_is_void(monkeypatch):
    own, calls = attention.attend_decode, []

    def noisy(*arguments, **named):
        calls.append(1)
        out, lse = own(*arguments, **named)
        return (one_bit(out.clone()) if len(calls) == 3 else out), lse

    monkeypatch.setattr(attention, "attend_decode", noisy)
    found = measure({}, SMALL, torch.float32, CPU)
    assert found.void
    assert not control(found, "the base twice").good


def test_a_comparison_that_sees_nothing_is_void(monkeypatch):
    monkeypatch.setattr(probing, "differing", lambda a, b: torch.zeros(a.shape, dtype=torch.bool))
    found = measure(some(D16), SMALL, torch.float32, CPU)
    assert found.void
    names = {each.name for each in found.controls if not each.good}
    assert names == {
        "another split",
        "another order of depth",
        *(f"one bit in {name}" for name in ("prefill", "chunks", "decode", "linear")),
    }


def test_numbers_that_are_none_are_void(monkeypatch):
    plant(monkeypatch, one_bit)
    own = attention.attend_prefill
    monkeypatch.setattr(
        attention,
        "attend_prefill",
        lambda *a, **k: tuple(part * torch.inf for part in own(*a, **k)),
    )
    found = measure({}, SMALL, torch.float32, CPU)
    assert found.void
    assert not control(found, "finite").good


def test_data_is_adversarial():
    drawn = numbers("x", (64, 64), -12, 6)
    zeros = drawn[drawn == 0]
    assert 0 < int(zeros.signbit().sum()) < len(zeros)
    sizes = drawn[drawn != 0].abs()
    assert sizes.max() / sizes.min() > 2**18
    case = AttentionCase("w", 2, 1, 16, (9, 70), 4, window=5, first=True)
    made = batch(case, [9, 70], [4, 4], torch.bfloat16, CPU)
    # Of 70 keys the last 4 rows see 62 to 69, and what they do not see is NaN.
    start = int(made.kv.starts[1])
    hidden = made.kv.k[start : start + 73].isnan().all(-1).all(-1).nonzero().flatten()
    assert hidden.tolist() == [*range(62), 70, 71, 72]
    assert made.q.isnan().all(-1).all(-1).sum() == 9


def test_every_full_case_can_be_laid_out():
    for case in (*FULL, *SHORT):
        if isinstance(case, AttentionCase):
            small = [min(length, 70) for length in case.keys[:3]]
            made = batch(case, small, [1] * 3, torch.float16, CPU)
            assert made.most_keys == max(small)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("kvparity.tiles.document.TINY", SMALL)


def test_rows_of_the_interpreter_are_no_rules(quick, tmp_path):
    found = measurement(CPU, ("float32",), (D16,), evidence="docs/results/x.json")
    assert found.verdict == "measured"
    (row,) = found.rows
    assert (row.arch, row.choice, row.equal) == ("interpreter", D16, True)
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"version": 1, "rules": [asdict(row)]}))
    with pytest.raises(rules.RulesError, match="is no device"):
        rules.read(path)
    path.write_text(json.dumps({"version": 1, "rules": [asdict(row) | {"arch": "sm_90"}]}))
    assert [rule.choice for rule in rules.read(path)] == [D16]


def test_a_void_measurement_has_no_rows(quick, monkeypatch):
    monkeypatch.setattr(probing, "differing", lambda a, b: torch.zeros(a.shape, dtype=torch.bool))
    found = measurement(CPU, ("float32",), (D16,))
    assert (found.verdict, found.rows) == ("void", ())


def test_what_cannot_run_has_no_row(quick, monkeypatch):
    plant(monkeypatch, refuse)
    found = measurement(CPU, ("float32",), (D16, D32))
    assert [row.choice for row in found.rows] == [D32]


def test_the_verb_measures(quick, monkeypatch, capsys):
    measured = ["tiles", "--measure", "--device", "cpu", "--dtype", "float32", "--choice", D16]
    assert main([*measured, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["verdict"], len(found["rows"])) == ("measured", 1)
    assert "MEASURED" in err
    assert D16 in err
    monkeypatch.setattr(probing, "differing", lambda a, b: torch.zeros(a.shape, dtype=torch.bool))
    assert main(measured) == 5
    out, err = capsys.readouterr()
    assert json.loads(out) == []
    assert "control another split in float32: 0 of" in err


@pytest.mark.slow
def test_several_processes_give_the_document_of_one():
    cases = (*SMALL, AttentionCase("more", 1, 1, 16, (130,), 2))
    one, two = (measurement(CPU, ("float32",), (D32, D16), cases=cases, jobs=n) for n in (1, 2))
    assert one == two
    assert one.verdict == "measured"
    assert [(each.choice, each.answer) for each in one.answers] == [
        (D32, "equal"),
        (D16, "equal"),
    ]
    assert len([each for each in one.controls if each.name == "finite"]) == len(cases)


def test_the_worst_answer_of_all_cases_counts(monkeypatch):
    cases = (SMALL[0], AttentionCase("more", 1, 1, 16, (130,), 2))
    own = attention.attend_decode

    def decode(q, *arguments, **named):
        out, lse = own(q, *arguments, **named)
        wrong = rules.current(q.device, q.dtype).decode_block_m == 16 and q.shape[1] == 1
        return (one_bit(out.clone()) if wrong else out), lse

    monkeypatch.setattr(attention, "attend_decode", decode)
    (found,) = measurement(CPU, ("float32",), (D16,), cases=cases).answers
    assert (found.answer, found.differing) == ("differs", 2)
    assert found.first.startswith("decode: more")
    alone = measurement(CPU, ("float32",), (D16,), cases=SMALL[1:])
    assert alone.answers[0].answer == "not applied"
    assert alone.rows == ()
