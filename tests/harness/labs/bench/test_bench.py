"""The price table: ways that compute the same, ratios of one run alone, a document that is read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode
from kvparity.labs.bench import attention
from kvparity.labs.bench import cases as sizes
from kvparity.labs.bench.calls import OURS, TileChoice, is_ours
from kvparity.labs.bench.cases import SHAPES, WHATS, ModelShape
from kvparity.labs.bench.measure import CaseTimes, measure, price, ratio, read, split_price
from kvparity.labs.bench.picture import draw
from kvparity.labs.bench.text import of_copy, table
from kvparity.labs.bench.timing import Ready, Time
from kvparity.labs.bench.ways import calls
from kvparity_kernels.launch import record
from kvparity_kernels.rules import current
from kvparity_kernels.tiles import BASE, LinearTile, Tiles

TINY = ModelShape(4, 2, 16, 32, 64, 100, dtype="float32", layers=2, qk_norm=True)
CASES = {
    "decode": sizes.decode(TINY, 2, 70),
    "prefill": sizes.prefill(TINY, 20, 20, "prefill"),
    "chunked": sizes.prefill(TINY, 5, 20, "chunked"),
    "linear": sizes.linear(TINY, 3, 32, 48),
    "logprob": sizes.logprob(TINY, 3),
    "step": sizes.step(TINY, 2, 1, 20),
}
BESIDE = {
    "decode 16": Tiles(decode_block_m=16),
    "prefill 16": Tiles(prefill_block_m=16),
    "linear": Tiles(linear=((3, LinearTile(16, 32, 32, 4, 2)),)),
    "linear of fewer rows": Tiles(linear=((2, LinearTile(16, 32, 32, 4, 2)),)),
}


def at(ms: float, run: str = "a") -> Time:
    return Time(ms, ms * 0.9, ms * 1.2, run)


class Clock:
    """Tells a number for each way in place of a time, and what it was asked to prepare."""

    def __init__(self, ms: dict[str, float] | None = None) -> None:
        self.ms = ms or {}
        self.prepared: list[tuple[int, int]] = []

    def prepare(self, calls, count):
        self.prepared.append((len(calls), count))
        return Ready(calls[0], calls[0]())

    def times(self, replays, calls):
        return {name: at(self.ms.get(name, 1.0)) for name in replays}


@pytest.mark.parametrize("what", WHATS)
def test_every_way_computes_the_same(what):
    ways = calls(CASES[what], TINY, "cpu", TileChoice(beside=BESIDE))
    skipped = {"sdpa efficient", "sdpa cudnn", "sdpa efficient grouped"}  # no kernels on a CPU
    ours = ways[OURS]()
    others = set(ways) - skipped - {OURS}
    assert len(others) >= (1 if what == "logprob" else 2)
    for name in others:
        theirs = ways[name]()
        assert ours.shape == theirs.shape, name
        # Float32 sums of at most 100 products of numbers of size one; a step makes two layers of
        # them, and logits of size one.
        assert float((ours - theirs).abs().max()) < 2e-5, name


def test_one_key_less_would_be_seen():
    q, k, v = (torch.randn(2, 2, n, 16) for n in (1, 70, 70))
    whole = scaled_dot_product_attention(q, k, v)
    less = scaled_dot_product_attention(q, k[:, :, 1:], v[:, :, 1:])
    assert float((whole - less).abs().max()) > 1e-3


def test_ours_comes_in_splits_and_tiles_that_matter():
    ways = {
        what: list(calls(CASES[what], TINY, "cpu", TileChoice(beside=BESIDE))) for what in CASES
    }
    own = [OURS, "ours [decode 16]", "ours split 64"]
    assert [n for n in ways["decode"] if is_ours(n)] == own
    wide = calls(sizes.decode(TINY, 1, 512), TINY, "meta")
    assert [n for n in wide if "split" in n] == [f"ours split {n}" for n in (64, 128, 512)]
    assert [n for n in ways["prefill"] if is_ours(n)] == [OURS, "ours [prefill 16]"]
    assert [n for n in ways["linear"] if is_ours(n)] == [OURS, "ours [linear]"]
    assert not [n for what in CASES for n in calls(CASES[what], TINY, "cpu") if "[" in n]
    # What is in force already is no candidate.
    chosen = TileChoice(BESIDE["decode 16"], BESIDE)
    assert "ours [decode 16]" not in calls(CASES["decode"], TINY, "cpu", chosen)


def launched(way, kernel, constant):
    """What a constant of a kernel was in the launches of a way."""
    with record() as log:
        way()
    return [f["constexprs"][constant] for n, f in log.kernels.items() if n.startswith(kernel)]


def test_a_way_is_computed_with_its_split():
    ways = calls(CASES["decode"], TINY, "cpu")
    assert launched(ways[OURS], "attention.decode_split", "SPLIT") == [256]
    assert launched(ways["ours split 64"], "attention.decode_split", "SPLIT") == [64]


def test_every_way_of_ours_runs_under_its_tiles(monkeypatch):
    seen = []

    def noting(q, kv, **options):
        seen.append(current(q.device, q.dtype))
        return q, q

    monkeypatch.setattr(attention, "attend_decode", noting)
    chosen = Tiles(decode_block_m=32)
    ways = calls(CASES["decode"], TINY, "cpu", TileChoice(chosen, BESIDE))
    for name in (OURS, "ours [decode 16]", "ours split 64"):
        ways[name]()
    assert seen == [chosen, BESIDE["decode 16"], chosen]
    assert current(torch.device("cpu"), torch.float32) == BASE


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
    assert price(CaseTimes(CASES["decode"], times, {})) == ("sdpa flash", 2.0)
    assert price(CaseTimes(CASES["decode"], {OURS: at(2.0)}, {})) is None
    assert price(CaseTimes(CASES["decode"], {"sdpa": at(2.0)}, {})) is None


def test_times_of_two_runs_have_no_ratio():
    with pytest.raises(ValueError, match="different runs"):
        ratio(at(1.0, "a"), at(1.0, "b"))
    mixed = CaseTimes(CASES["decode"], {OURS: at(2.0, "a"), "sdpa": at(3.0, "b")}, {})
    line = table([mixed], {"run": "b", "gb_per_s": 100.0}).splitlines()[1]
    assert "another run" in line
    assert "x " not in line
    assert of_copy(mixed, {"run": "b", "gb_per_s": 100.0}) == "another run"


def test_a_way_that_cannot_run_is_told_and_ours_is_an_error():
    def broken():
        raise RuntimeError("No available kernel\nmore")

    clock = Clock()
    sets = {OURS: lambda: torch.ones(3), "sdpa": broken, "torch": lambda: torch.ones(3)}
    found = measure(CASES["decode"], lambda: sets, clock, free=1 << 40)
    assert found.cannot == {"sdpa": "No available kernel"}
    assert set(found.times) == {OURS, "torch"}
    assert clock.prepared == [(64, 256)] * 3  # sets of inputs, and calls in a graph
    with pytest.raises(RuntimeError, match="No available"):
        measure(CASES["decode"], lambda: {OURS: broken}, clock, free=1 << 40)
    small = measure(CASES["decode"], lambda: sets, clock, free=100)
    assert small.left_out.endswith("100 are free")


@pytest.mark.parametrize("other", [torch.full((3,), 1.2), torch.ones(4)])
def test_a_way_that_computes_something_else_takes_no_part(other):
    sets = {OURS: lambda: torch.ones(3), "same": lambda: torch.ones(3), "other": lambda: other}
    found = measure(CASES["decode"], lambda: sets, Clock(), free=1 << 40)
    assert set(found.times) == {OURS, "same"}
    assert "differs from ours" in found.cannot["other"]


def test_flashinfer_is_planned_once_and_where_its_failure_is_its_own():
    class Wrapper:
        def run(self, q, caches):
            return q

    made = []

    def plan():
        made.append(Wrapper())
        return made[-1]

    way = attention._planned(plan, torch.ones(3), ())
    assert made == []
    assert [float(way().sum()), float(way().sum())] == [3.0, 3.0]
    assert len(made) == 1

    def refused():
        raise FileNotFoundError("no nvcc")

    sets = {OURS: lambda: torch.ones(3), "a": attention._planned(refused, torch.ones(3), ())}
    assert measure(CASES["decode"], lambda: sets, Clock(), free=1 << 40).cannot == {"a": "no nvcc"}


def test_variants_of_ours_are_no_competitors():
    times = {OURS: at(2.0), "ours split 64": at(1.0), "ours [a]": at(0.5), "sdpa": at(1.6)}
    found = CaseTimes(CASES["decode"], times, {})
    assert price(found) == ("sdpa", 1.25)
    assert split_price(found) == ("ours split 64", 2.0)
    assert price(CaseTimes(CASES["decode"], {**times, "sdpa": at(3.0)}, {})) == ("sdpa", 2 / 3)
    own = {OURS: at(1.0), "ours split 64": at(2.0)}
    assert split_price(CaseTimes(CASES["decode"], own, {})) == (OURS, 1.0)
    assert split_price(CaseTimes(CASES["decode"], {OURS: at(1.0)}, {})) is None
    assert "x 2.00 (64)" in table([found], None)


def test_a_document_is_read_back_and_shown(tmp_path, capsys):
    found = [CaseTimes(CASES["decode"], {OURS: at(2.0), "sdpa": at(4.0)}, {"sdpa cudnn": "no"})]
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


def test_a_picture_refuses_two_runs():
    mixed = CaseTimes(CASES["decode"], {OURS: at(2.0, "a"), "sdpa": at(3.0, "b")}, {})
    with pytest.raises(ValueError, match="different runs"):
        draw("x", [mixed])
    assert draw("x", [replace(mixed, times={OURS: at(1.0)})]).endswith("</svg>\n")
