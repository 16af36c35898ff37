"""``kvparity tiles --predict``: what compiled code says of other tiles, and what it does not do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from audit_cases import Planted

from kvparity.cli import tiles as verb
from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.relations.audit import predict as predicting
from kvparity.relations.audit.predict import candidates, predict
from kvparity.relations.audit.request import Request
from kvparity.relations.audit.views import AuditSide
from kvparity.tiles import predicted as table
from kvparity.tiles.force import RulesKey
from kvparity.tiles.predicted import Predicted, first, predicted
from kvparity_kernels import rules
from kvparity_kernels.tiles import BASE

SIXTEEN, WIDE = "decode_block_m=16,warps=1", "decode_block_m=32"


@pytest.fixture
def compiled(
    sides: dict[Request, AuditSide], planted: dict[str, Planted], monkeypatch: pytest.MonkeyPatch
) -> list[Request]:
    """Kernels of other tests stand in; of 32 rows those that differ. What was asked for is kept."""
    asked: list[Request] = []
    prefill, sixteen = planted["block_m"].faulty
    other = planted["num_warps"].faulty[1]

    def read_all(
        requests: Iterable[Request],
        progress: Callable[[int, int], None] = lambda done, total: None,
        **more: object,
    ) -> dict[Request, AuditSide]:
        progress(2, 3)
        asked.extend(dict.fromkeys(requests))
        return {each: sides[stands_in(each)] for each in asked}

    def stands_in(request: Request) -> Request:
        rows = request.tiles and request.tiles.decode_block_m
        own = {None: planted["block_m"].sound[1], 16: sixteen, 32: other}[rows]
        return own if request.side == "decode" else prefill

    monkeypatch.setattr(predicting, "read_all", read_all)
    return asked


def test_a_choice_is_compared_with_the_other_side_on_the_base(compiled: list[Request]) -> None:
    found = predict(["sm_90"], ["bfloat16"], [SIXTEEN, WIDE, "prefill_block_m=128,warps=8"])
    assert [each.word for each in found] == ["equal by model", "different", "same"]
    assert [each.row and each.row.word for each in found] == ["equal by model", None, "same"]
    assert found[0].row == Predicted(
        "sm_90", found[0].triton, "bfloat16", SIXTEEN, "equal by model"
    )
    assert "wgmma on sm_90" in " ".join(found[0].as_json()["notes"])
    assert (found[2].deciding, found[1].as_json()["row"]) == ((), None)
    seen = {(r.side, r.shape.head_dim, r.tiles and r.tiles.decode_block_m) for r in compiled}
    assert {("prefill", 64, None), ("decode", 128, 16), ("decode", 64, 32)} <= seen
    turned = {r.tiles for r in compiled if r.side == "prefill"}
    assert turned == {BASE, candidates()["prefill_block_m=128,warps=8"]}


def test_the_worst_head_dimension_counts(
    compiled: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = predicting.compare
    wrong = replace(own(*predicting_sides(compiled)).fields[0], verdict="unknown")

    def compare(left: AuditSide, right: AuditSide) -> object:
        calls.append(1)
        found = own(left, right)
        return found if len(calls) == 1 else replace(found, fields=(*found.fields, wrong))

    calls: list[int] = []
    monkeypatch.setattr(predicting, "compare", compare)
    (found,) = predict(["sm_90"], ["bfloat16"], [SIXTEEN])
    assert (found.word, found.row, len(calls)) == ("unknown", None, 2)
    assert [field.verdict for field in found.deciding] == ["unknown"]


def predicting_sides(compiled: list[Request]) -> tuple[AuditSide, AuditSide]:
    pair = predicting._pair("sm_90", "bfloat16", 64, candidates()[SIXTEEN])
    found = predicting.read_all(pair)
    compiled.clear()
    return found[pair[0]], found[pair[1]]


def test_only_what_an_audit_can_judge_is_predicted() -> None:
    names = set(candidates())
    assert SIXTEEN in names
    assert not [name for name in names if "skip_hidden" in name or "linear" in name]


def test_a_prediction_is_not_in_force() -> None:
    """The table has rows, and the rules go on without them."""
    rows = [each for each in predicted() if each.arch == "sm_90"]
    assert SIXTEEN in {each.choice for each in rows}
    for each in rows:
        assert rules.in_force(each.arch, each.triton, each.dtype) == BASE


def test_what_is_predicted_is_measured_first(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Predicted("sm_90", "3.9", "bfloat16", WIDE, "same")
    monkeypatch.setattr(table, "predicted", lambda: (row,))
    names = ["a", SIXTEEN, WIDE, "b"]
    assert first(names, "sm_90", ["bfloat16"]) == (WIDE, "a", SIXTEEN, "b")
    assert first(names, "sm_90", ["float16"]) == first(names, None, ["bfloat16"]) == tuple(names)
    measured: list[tuple[str, ...]] = []

    def measurement(device: object, dtypes: object, named: tuple[str, ...], **more: object) -> None:
        measured.append(named)
        raise ValueError("that is all")

    monkeypatch.setattr("kvparity.tiles.document.measurement", measurement)
    monkeypatch.setattr("kvparity.tiles.force.place", lambda device: RulesKey("sm_90", "3.9"))
    with pytest.raises(ValueError, match="that is all"):
        verb._measure(parsed("--measure"), "cpu")
    assert measured[0][0] == WIDE
    assert sorted(measured[0]) == sorted(rules.choices())


def parsed(*arguments: str) -> object:
    import argparse

    parser = argparse.ArgumentParser()
    verb.add_parser(parser.add_subparsers())
    return parser.parse_args(["tiles", *arguments])


@pytest.mark.parametrize(
    "change",
    [{"word": "different"}, {"choice": "decode_block_m=8"}, {"device": "H200"}],
    ids=str,
)
def test_a_row_that_is_none_is_refused(change: dict[str, str]) -> None:
    good = vars(Predicted("sm_90", "3.9", "bfloat16", WIDE, "same"))
    assert table._ROWS.validate_json(json.dumps([good]))
    with pytest.raises(ValueError, match="validation error"):
        table._ROWS.validate_json(json.dumps([good | change]))


def test_the_command(
    compiled: list[Request],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = ["--arch", "sm_90", "--dtype", "bfloat16", "--choice", SIXTEEN]
    monkeypatch.setattr(verb.progress.Progress.__init__, "__defaults__", (0.0, "cases"))
    assert main(["tiles", "--predict", *asked]) == ExitCode.HOLDS
    out, progress = capsys.readouterr()
    assert out.startswith("Predicted, not in force (no device was asked")
    assert progress == "kvparity: running 0 s: 2 of 3 kernels are finished; compiling\n"
    assert "equal by model" in out
    assert main(["tiles", "--predict", *asked, "--json"]) == ExitCode.HOLDS
    (row,) = json.loads(capsys.readouterr().out)["predicted"]
    assert row["row"]["choice"] == SIXTEEN
    assert main(["tiles", "--device", "cpu"]) == ExitCode.HOLDS
    out = capsys.readouterr().out
    assert "No row in rules.json" in out
    assert "Predicted, not in force" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch", "sm_90"], "--arch says what to predict for; add --predict"),
        (["--predict", "--device", "cpu"], "--predict runs on none"),
        (["--predict", "--choice", SIXTEEN, "--jobs", "2"], "--jobs says how to measure"),
        (["--predict", "--choice", "skip_hidden"], "'skip_hidden' is not predicted; one of"),
        (["--predict", "--arch", "sm_70"], "'sm_70' is unknown"),
    ],
)
def test_bad_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiles", *arguments]) == ExitCode.USAGE
    assert said in capsys.readouterr().err
