from __future__ import annotations

from typing import Any

import pytest
from run_documents import DIVERGENCE, case, rendered, report

DIFFERS = case(
    id="c003",
    verdict="differs",
    reason="bits differ",
    differing_tokens=5,
    differing_rows=7,
    max_ulp=42,
    max_abs_dlogp=0.0123,
    approx_kl0=4.5e-5,
    clipfrac0=0.25,
    first_divergence=DIVERGENCE,
)


def test_the_verdict_comes_first() -> None:
    for verdict in ("holds", "differs", "void"):
        lines = rendered(report(verdict, case(verdict=verdict))).splitlines()
        assert lines[0] == f"smoke: {verdict.upper()}  (12.3 s)"


def test_a_report_that_holds_counts_what_it_rests_on() -> None:
    text = rendered(report("holds", case(), case(path="batched", temperature=1.0)))
    assert "[holds]   decode reduces like prefill  [invariance]  2 cases" in text
    assert text.count("48 ok") == 2
    assert "controls: 1 of 1 planted defects caught" in text
    assert "stale-slot  caught  bits differ: 3 of 3 tokens" in text
    assert "on cpu (Some CPU), torch 2.9.0, triton 3.6.0" in text
    assert "transformers" not in text
    assert text.splitlines()[-1] == "evidence: .kvparity/runs/x"
    assert "replay" not in text


def test_an_interpreted_run_says_in_its_first_lines_what_it_shows() -> None:
    lines = rendered(report("holds", case())).splitlines()
    assert "the algorithm is invariant, not the hardware" in lines[2]
    assert "vectorised CPU twins" in lines[3]
    compiled = report("holds", case(), subject={"kind": "decoder", "cpu_ops": None})
    compiled["environment"] = compiled["environment"] | {"triton_mode": "compiled"}
    assert "not the hardware" not in rendered(compiled)
    assert "twins" not in rendered(compiled)
    # A subject that launched no kernel of ours.
    assert "not the hardware" not in rendered(report("holds", case(), kernels={}))


def test_a_report_that_differs_shows_the_first_token_and_both_patterns() -> None:
    text = rendered(report("differs", case(), DIFFERS, DIFFERS | {"id": "c009"}))
    lines = text.splitlines()
    order = [
        "smoke: DIFFERS",
        "[DIFFERS] decode reduces like prefill",
        "first: c003 (decode over long, bfloat16, temperature 0.7): bits differ",
        "sequence long/0, position 257, token 104:",
        "0xc0200000",
        "0xc0200001",
        "1 ulp apart",
        "5 of 48 tokens and 7 of 48 rows differ, by up to 42 ulps",
        "(rollout decode, trainer prefill): max |dlogp| 0.0123, approx_kl0 4.5e-05, clipfrac0 0.25",
        "kvparity replay .kvparity/runs/x c003",
    ]
    places = [next(i for i, line in enumerate(lines) if part in line) for part in order]
    assert places == sorted(places)
    reference, candidate = lines[places[4]], lines[places[5]]
    assert reference.split() == [
        "prefill",
        "-2.5",
        "bits",
        "0xc0200000",
        "row",
        DIVERGENCE["reference_digest"],
    ]
    assert candidate.split()[:2] == ["decode", "-2.50000024"]
    assert DIVERGENCE["candidate_digest"] in candidate
    # All cases of one path and workload share a cell: 7 rows each of two cases.
    assert "14/144 off" in text


def test_a_nan_is_shown_by_its_name_and_pattern() -> None:
    found = DIVERGENCE | {"candidate": "nan", "candidate_bits": "0x7fc00000", "ulps": None}
    bad = DIFFERS | {
        "reason": "NaN or Inf in an active token",
        "first_divergence": found,
        "approx_kl0": "inf",
        "max_ulp": None,
    }
    text = rendered(report("differs", bad))
    assert "nan" in text
    assert "0x7fc00000" in text
    assert "apart" not in text
    assert "approx_kl0 inf" in text


def test_an_attention_row_has_no_token_and_no_temperature() -> None:
    bad = DIFFERS | {
        "temperature": None,
        "max_abs": 0.5,
        "max_abs_dlogp": None,
        "first_divergence": DIVERGENCE | {"token": None},
    }
    text = rendered(report("differs", bad))
    assert "position 257:" in text
    assert "temperature" not in text
    assert "in RL terms" not in text
    assert "largest distance 0.5" in text


def test_a_limit_that_broke_is_not_a_count_of_tokens() -> None:
    bad = case(
        id="c004",
        relation="accuracy",
        reference=None,
        verdict="differs",
        reason="over the limit: max_abs_dlogp 0.2 of 0.1 allowed",
        max_abs_dlogp=0.2,
        max_ulp=None,
    )
    text = rendered(report("differs", bad))
    assert "over limit" in text
    assert "over the limit: max_abs_dlogp 0.2 of 0.1 allowed" in text
    assert "tokens and" not in text


def test_a_void_report_says_what_was_not_verified() -> None:
    idle = case(verdict="void", reason="both sides ran the same steps")
    missed = {"name": "narrow-cache", "caught": False, "seen": "holds: every bit is equal"}
    left = {"control": "padding-leaks", "reason": "no pads here", "asked": True}
    whole = report("void", idle, controls=[missed], unplanted=[left])
    whole["checks"][0]["omitted"] = [
        {"workload": "tiny", "path": "chunked(64)", "reason": "the same steps"}
    ]
    text = rendered(whole)
    assert "[VOID]    decode reduces like prefill" in text
    assert "both sides ran the same steps" in text
    assert "controls: 0 of 1 planted defects caught" in text
    assert "narrow-cache   MISSED  holds: every bit is equal" in text
    assert "padding-leaks" in text
    assert "not planted: no pads here" in text
    assert "not run: chunked(64) over tiny: the same steps" in text
    assert "ok" not in text.split("evidence")[0].split("controls")[0].replace("smoke", "")


def test_controls_left_out_for_one_reason_are_counted_and_each_reason_is_told() -> None:
    reasons = {"a": "no pads", "b": "no pads", "c": "no window", "d": "no window", "e": "no ring"}
    left = [{"control": name, "reason": why, "asked": False} for name, why in reasons.items()]
    lines = rendered(report("void", unplanted=left)).splitlines()
    assert [line.split() for line in lines if "not planted" in line] == [
        ["(2", "controls)", "not", "planted:", "no", "pads"],
        ["(2", "controls)", "not", "planted:", "no", "window"],
        ["e", "not", "planted:", "no", "ring"],
    ]


def test_many_reasons_are_counted_but_of_controls_that_the_contract_names() -> None:
    left = [{"control": f"c{n}", "reason": f"reason {n}", "asked": n == 6} for n in range(7)]
    lines = rendered(report("void", unplanted=left)).splitlines()
    assert [" ".join(line.split()) for line in lines if "reason" in line and "  c" not in line] == [
        "(6 controls) not planted: 6 reasons, in run.json and on the page",
    ]
    assert any(line.split() == ["c6", "not", "planted:", "reason", "6"] for line in lines)


def test_a_check_without_cases_is_still_in_the_report() -> None:
    whole = report("void")
    whole["checks"][0]["reason"] = "no case was compared"
    assert "[VOID]    decode reduces like prefill  [invariance]  no case was compared" in rendered(
        whole
    )


@pytest.mark.parametrize("verdict", ["holds", "differs", "void"])
def test_a_report_has_no_trailing_blanks_and_ends_with_its_folder(verdict: str) -> None:
    lines = rendered(report(verdict, case(), DIFFERS)).splitlines()
    assert lines[-1].startswith("evidence: ")
    assert all(line == line.rstrip() for line in lines)


def test_a_cache_that_differs_is_shown_by_layer_and_part() -> None:
    first = DIVERGENCE | {"token": None, "layer": 3, "part": "v", "column": 7}
    bad = case(
        relation="cache", verdict="differs", reason="the path holds another v than was written",
        tokens=10, differing_tokens=2, temperature=None, max_ulp=None, max_abs_dlogp=None,
        first_divergence=first, cache={"sides": ["written", "read"]},
    )  # fmt: skip
    text = rendered(report("differs", bad))
    assert f"sequence {first['sequence']}, position {first['position']}, layer 3: v" in text
    assert ", element 7:" in text
    assert "        written " in text
    assert "        read " in text
    assert "2 of 10 positions are wrong" in text
    assert "2/10 off" in text
    other = rendered(report("differs", bad | {"cache": {}}))
    assert "        prefill " in other


def test_dead_keys_are_counted() -> None:
    words = "layer 0, KV head 1, position 63 of long/0 (row 99): it is visible, and the row does"
    bad = case(
        relation="liveness", verdict="differs", reason=words, tokens=24, differing_tokens=1,
        reference=None, temperature=None, max_ulp=None, max_abs_dlogp=None,
    )  # fmt: skip
    text = rendered(report("differs", bad))
    assert words in text
    assert "1 of 24 changed keys are wrong" in text


@pytest.mark.parametrize(
    ("repeats", "words"),
    [
        ({"prefill": True, "decode": True}, "both sides repeated their own bits"),
        (
            {"prefill": True, "decode": False},
            "decode gave different bits: they differ from",
        ),
        ({"prefill": False, "decode": False}, "prefill and decode gave different bits"),
    ],
)
def test_a_side_that_does_not_repeat_itself_is_told(repeats: dict[str, bool], words: str) -> None:
    bad = case(verdict="differs", first_divergence=DIVERGENCE, invariance={"repeats": repeats})
    assert words in rendered(report("differs", bad))
    assert "once more" not in rendered(report("differs", bad | {"invariance": {}}))


def test_a_value_that_is_equal_in_a_row_that_is_not() -> None:
    found = DIVERGENCE | {"candidate_bits": DIVERGENCE["reference_bits"], "ulps": 0}
    text = rendered(report("differs", case(verdict="differs", first_divergence=found)))
    assert "the same bits here, different ones elsewhere in the row" in text
    assert "apart" not in text


def test_a_row_that_is_no_number_on_both_sides_is_not_said_to_differ() -> None:
    alike = DIVERGENCE | {"candidate_bits": DIVERGENCE["reference_bits"], "ulps": None}
    one = {"candidate_digest": DIVERGENCE["reference_digest"]}
    bad = {"verdict": "differs", "reason": "NaN or Inf in an active token", "max_ulp": 0}

    def text(max_ulp: int = 0, **more: Any) -> str:
        found = bad | {"max_ulp": max_ulp, "differing_rows": 7, "first_divergence": alike | more}
        return rendered(report("differs", case(**found)))

    shown = text(reference="-inf", candidate="-inf")
    assert "NaN or Inf on both sides, whatever the path" in shown
    assert "rows differ or are NaN or Inf, all others are equal" in shown
    assert "NaN or Inf, the others by up to 3 ulps" in text(**one, max_ulp=3)
    elsewhere = text(**one)
    assert "the same bits in the whole row, which holds NaN or Inf elsewhere" in elsewhere
    for each in (shown, elsewhere):
        assert "different ones elsewhere in the row" not in each
    assert "or are NaN" not in rendered(
        report("differs", case(**bad | {"reason": "bits differ"}, differing_rows=7))
    )


@pytest.mark.parametrize("relation", ["invariance", "accuracy"])
def test_what_is_right_where_there_is_no_key_is_told_with_the_fault(relation: str) -> None:
    bad = {"verdict": "differs", "relation": relation, "reason": "decode gave nan in a row"}
    first, worst = (
        {"sequence": "w/0", "position": n, "token": 3, "value": -1.0, "exact": -2.0, "error": 1.0}
        for n in (2, 3)
    )
    found = {"limits": {}, "first": first, "worst": worst}
    plain = rendered(report("differs", case(**bad, **{relation: found})))
    told = rendered(report("differs", case(**bad, **{relation: found | {"faults": ["nan"]}})))
    words = "it sees no key, so out is 0 and lse -inf there; a pair that is never given one says "
    assert (words in told, words in plain) == (True, False)
    if relation == "accuracy":  # its tokens are within the limit
        assert ("first token that is off" in told, "first token over" in plain) == (True, True)
