"""The price table: ways that compute the same, ratios of one run alone, a document that is read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from kvparity.bench import cases as sizes
from kvparity.bench.calls import OURS, calls
from kvparity.bench.cases import SHAPES, WHATS, Shape
from kvparity.bench.measure import Measured, measure, price, ratio, read
from kvparity.bench.picture import draw
from kvparity.bench.text import of_copy, table
from kvparity.bench.timing import Time, summary, turns
from kvparity.cli.main import main
from kvparity.exit_codes import ExitCode

TINY = Shape(4, 2, 16, 32, 64, 100, dtype="float32")
CASES = {
    "decode": sizes.decode(TINY, 2, 20),
    "prefill": sizes.prefill(TINY, 20, 20, "prefill"),
    "chunked": sizes.prefill(TINY, 5, 20, "chunked"),
    "linear": sizes.linear(TINY, 3, 32, 48),
    "logprob": sizes.logprob(TINY, 3),
}


def at(ms: float, run: str = "a") -> Time:
    return Time(ms, ms * 0.9, ms * 1.2, run)


@pytest.mark.parametrize("what", WHATS)
def test_every_way_computes_the_same(what):
    ways = calls(CASES[what], TINY, "cpu")
    other = next(name for name in ways if name != OURS)
    ours, theirs = ways[OURS](), ways[other]()
    assert ours.shape == theirs.shape
    # Float32 sums of at most 100 products of numbers of size one.
    assert float((ours - theirs).abs().max()) < 2e-5


def test_the_cases_of_a_shape_are_those_of_the_model():
    found = list(sizes.cases(SHAPES["qwen3-8b"]))
    assert {case.what for case in found} == set(WHATS)
    first = found[0]
    assert (first.size("batch"), first.size("keys")) == (1, 1024)
    assert first.bytes == 2 * 1024 * 8 * 128 * 2  # k and v, 8 heads of 128 in two bytes
    assert first.flops == 4 * 1024 * 32 * 128
    assert {case.what for case in sizes.cases(SHAPES["qwen3-8b"], ["linear"])} == {"linear"}


def test_ours_is_compared_with_the_fastest_other_way():
    times = {OURS: at(2.0), "sdpa": at(3.0), "sdpa flash": at(1.0)}
    assert price(Measured(CASES["decode"], times, {})) == ("sdpa flash", 2.0)
    assert price(Measured(CASES["decode"], {OURS: at(2.0)}, {})) is None
    assert price(Measured(CASES["decode"], {"sdpa": at(2.0)}, {})) is None


def test_times_of_two_runs_have_no_ratio():
    with pytest.raises(ValueError, match="different runs"):
        ratio(at(1.0, "a"), at(1.0, "b"))
    mixed = Measured(CASES["decode"], {OURS: at(2.0, "a"), "sdpa": at(3.0, "b")}, {})
    line = table([mixed], {"run": "b", "gb_per_s": 100.0}).splitlines()[1]
    assert "another run" in line
    assert "x " not in line
    assert of_copy(mixed, {"run": "b", "gb_per_s": 100.0}) == "another run"


def test_a_way_that_cannot_run_is_told_and_ours_is_an_error():
    def broken(*_):
        raise RuntimeError("No available kernel\nmore")

    def clock(ways):
        return at(ways[0]())

    sets = {OURS: lambda: 2.0, "sdpa": broken}
    found = measure(CASES["decode"], lambda: sets, clock, free=1 << 40)
    assert found.cannot == {"sdpa": "No available kernel"}
    assert set(found.times) == {OURS}
    with pytest.raises(RuntimeError, match="No available"):
        measure(CASES["decode"], lambda: {OURS: broken}, clock, free=1 << 40)
    small = measure(CASES["decode"], lambda: sets, clock, free=100)
    assert small.left_out.endswith("100 are free")


def test_a_document_is_read_back_and_shown(tmp_path, capsys):
    found = [Measured(CASES["decode"], {OURS: at(2.0), "sdpa": at(4.0)}, {"sdpa cudnn": "no"})]
    document = {
        "run": "a",
        "shape": {"name": "tiny", "dtype": "float32"},
        "copy": {"run": "a", "gb_per_s": 1.0},
        "cases": [each.json() for each in found],
    }
    file, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    file.write_text(json.dumps(document))
    assert read(json.loads(file.read_text())) == found
    assert main(["bench", "--show", str(file), "--svg", str(picture)]) == ExitCode.HOLDS
    out = capsys.readouterr().out
    assert "x 0.50" in out
    assert "15.0%" not in out  # of quarter points 0.9 and 1.2 of the median
    assert "30.0%" in out
    assert "0.50 (sdpa)" in picture.read_text()


def test_bad_documents_and_machines_without_cuda_are_one_sentence(tmp_path, capsys, monkeypatch):
    file = tmp_path / "bench.json"
    file.write_text('{"cases": [{}]}')
    assert main(["bench", "--show", str(file)]) == ExitCode.USAGE
    assert main(["bench", "--show", str(tmp_path / "none.json")]) == ExitCode.USAGE
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench"]) == ExitCode.ERROR
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "no document of kvparity bench" in lines[0]
    assert "no CUDA device" in lines[2]


def test_summaries_are_quarter_points_and_inputs_rotate():
    assert summary([1.0, 2.0, 3.0, 4.0, 5.0], "a") == Time(3.0, 1.5, 4.5, "a")
    assert [turns(1 << 20), turns(256 << 20), turns(1 << 40)] == [64, 2, 2]


def test_a_picture_refuses_two_runs():
    mixed = Measured(CASES["decode"], {OURS: at(2.0, "a"), "sdpa": at(3.0, "b")}, {})
    with pytest.raises(ValueError, match="different runs"):
        draw("x", [mixed])
    assert draw("x", [replace(mixed, times={OURS: at(1.0)})]).startswith("<svg")
