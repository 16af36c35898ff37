"""Rules in force are checked before anything rests on them; what they say is kept as evidence."""

from __future__ import annotations

import json

import pytest
import torch

from kvparity.cli.main import main
from kvparity.core.bits import bits
from kvparity.tiles import check as checking
from kvparity.tiles import contract as relying
from kvparity.tiles import force
from kvparity.tiles.cases import AttentionCase, LinearCase
from kvparity_contracts import Contract
from kvparity_kernels import attention, rules
from kvparity_kernels.tiles import LinearTile, Tiles

CPU = torch.device("cpu")
D16, SKIP = "decode_block_m=16", "skip_hidden"
SMALL = (
    AttentionCase("plain", 2, 1, 16, (9, 130), 2),
    LinearCase("odd", 17, 35, (1, 17), bias=True, wide=True),
)
CONTRACT = """
version: 1
name: little
subject:
  kind: attention
  prefill: kvparity_kernels.attention:prefill
  decode: kvparity_kernels.attention:decode
  heads: {query: 2, kv: 1, dim: 16}
numerics: {execution: float32}
workloads:
  - {name: short, prompt_tokens: [3], generate: 2}
checks:
  - {name: decode reduces like prefill, relation: invariance, paths: [decode]}
controls: [stale-slot]
"""


def rule(choice, equal=True, dtype="float32", arch="interpreter"):
    return rules.Rule(arch, "3.9", dtype, choice, equal, "a stand-in", "docs/results/none.json")


@pytest.fixture
def stand_in(monkeypatch):
    """A table of the interpreter's own, which no file may hold, as if this were a device."""

    def put(*found):
        monkeypatch.setattr(rules, "table", lambda: found)
        rules.in_force.cache_clear()

    monkeypatch.setattr(force, "place", lambda device: force.RulesKey("interpreter", "3.9"))
    monkeypatch.setattr(checking, "TINY", SMALL)
    yield put
    rules.in_force.cache_clear()


@pytest.fixture
def broken(monkeypatch):
    """Decode is wrong by one bit wherever it takes 16 rows."""
    own = attention.attend_decode

    def decode(q, *arguments, **named):
        out, lse = own(q, *arguments, **named)
        if rules.current(q.device, q.dtype).decode_block_m == 16:
            bits(out := out.clone()).view(-1)[0] ^= 1
        return out, lse

    monkeypatch.setattr(attention, "attend_decode", decode)


@pytest.fixture
def verify(tmp_path, capsys):
    """Run a contract here: (exit code, report, stderr)."""

    def run(*more):
        path = tmp_path / "little.yaml"
        path.write_text(CONTRACT)
        where = ["--device", "cpu", "--jobs", "1", "--run-dir", str(tmp_path / "run"), *more]
        code = main(["verify", str(path), *where, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    return run


def test_on_a_cpu_the_base_is_in_force_and_the_report_says_so(verify):
    code, report, _ = verify()
    assert code == 0
    found = report["tiles"]
    assert (found["verdict"], found["arch"]) == ("base", None)
    assert found["in_force"] == {"float32": "base"}
    assert found["words"] == "base tiles; the interpreter needs none"


def test_rules_that_hold_are_told(stand_in, verify, tmp_path):
    stand_in(rule(D16), rule("linear 16x32x128/4w4s", dtype="bfloat16"))
    code, report, err = verify()
    assert code == 0
    found = report["tiles"]
    assert found["verdict"] == "holds"
    assert found["in_force"] == {"float32": "decode_block_m=16"}
    assert [each["answer"] for each in found["answers"]] == ["equal"]
    assert all(each["good"] for each in found["controls"])
    assert len(found["controls"]) >= 6
    assert "tiles: float32: decode_block_m=16" in err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["tiles"] == found


def test_a_rule_that_does_not_hold_stops_the_run(stand_in, verify, broken, tmp_path):
    stand_in(rule(SKIP), rule("prefill_block_m=128,warps=8"), rule(D16))
    code, report, _ = verify()
    assert code == 3
    words = report["error"]
    assert f"row 3 of {rules.PATH} (decode_block_m=16 in float32 on interpreter" in words
    assert "does not hold on CPU (cpu): " in words
    assert "decode: plain, [0, 0, 0]" in words
    assert "Set its equal to false" in words
    assert "row 1" not in words
    assert not (tmp_path / "run" / "cases.jsonl").exists()


def test_the_defect_goes_unseen_where_nothing_is_in_force(stand_in, verify, broken):
    stand_in(rule(D16, equal=False))
    assert verify()[0] == 0


def test_a_check_whose_controls_see_nothing_stops_the_run(stand_in, verify, monkeypatch):
    stand_in(rule(D16))
    monkeypatch.setattr(
        "kvparity.tiles.probe.differing", lambda a, b: torch.zeros(a.shape, dtype=torch.bool)
    )
    code, report, _ = verify()
    assert code == 3
    assert "could not be checked: another split" in report["error"]


def test_rules_that_changed_end_a_resume(stand_in, verify):
    stand_in()
    assert verify()[0] == 0
    stand_in(rule(D16))
    code, report, _ = verify("--resume")
    assert code == 2
    assert "tiles changed since it began" in report["error"]


def test_a_damaged_table_is_an_error_everywhere(verify, monkeypatch, tmp_path, capsys):
    def damaged():
        raise rules.RulesError("rules.json: row 2: no")

    monkeypatch.setattr(rules, "table", damaged)
    monkeypatch.setattr(force, "place", lambda device: force.RulesKey("sm_90", "3.6"))
    rules.in_force.cache_clear()
    code, report, _ = verify()
    assert (code, report["error"]) == (3, "error: rules.json: row 2: no")
    for command in (["doctor"], ["tiles"], ["tiles", "--check"]):
        assert main([*command, "--device", "cpu"]) == 3
        out, err = capsys.readouterr()
        assert "rules.json: row 2: no" in out + err


def test_rules_blamed_together_where_each_holds_alone(stand_in, monkeypatch):
    both = ("prefill_block_m=128,warps=8", D16)
    stand_in(*map(rule, both))
    own = attention.attend_decode

    def decode(q, *arguments, **named):
        out, lse = own(q, *arguments, **named)
        found = rules.current(q.device, q.dtype)
        if found.decode_block_m == 16 and found.prefill_block_m == 128:
            bits(out := out.clone()).view(-1)[0] ^= 1
        return out, lse

    monkeypatch.setattr(attention, "attend_decode", decode)
    found = checking.check(CPU, ("float32",))
    assert found.verdict == "differs"
    assert [(each.row, each.rule.choice) for each in found.broken] == [*enumerate(both, 1)]


def test_the_verb_checks(stand_in, broken, capsys):
    command = ["tiles", "--check", "--device", "cpu", "--dtype", "float32"]
    stand_in(rule(SKIP))
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("HOLDS: the rows in force on CPU (cpu)")
    stand_in(rule(D16))
    assert main([*command, "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["verdict"], found["broken"][0]["row"]) == ("differs", 1)
    assert "does not hold on CPU" in err
    stand_in()
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("BASE: not measured on this architecture")


def test_doctor_and_the_verb_show_what_is_in_force(stand_in, capsys):
    stand_in(rule(D16))
    assert main(["doctor", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tiles"]
    assert (found["arch"], found["triton"]) == ("interpreter", "3.9")
    assert found["in_force"]["float32"] == "decode_block_m=16"
    assert main(["doctor", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "architecture interpreter, Triton 3.9" in out
    assert "tiles        float32: decode_block_m=16; float16: base, not measured; " in out
    assert main(["tiles", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "yes    a stand-in  docs/results/none.json" in out
    stand_in()
    assert main(["doctor", "--device", "cpu"]) == 0
    words = "not measured on this architecture and Triton version: base tiles"
    assert f"tiles        {words}" in capsys.readouterr().out


def test_tiles_in_words():
    few, many = LinearTile(16, 32, 128, 4, 4), LinearTile(128, 128, 64, 8, 3)
    assert force.words(Tiles()) == "base"
    assert force.words(Tiles(128, 8, 16, 1, True, ((16, few), (0, many)))) == (
        "prefill_block_m=128, prefill_warps=8, decode_block_m=16, decode_warps=1, skip_hidden, "
        "linear 16x32x128/4w4s for up to 16 rows, linear 128x128x64/8w3s beyond"
    )


SUBJECTS = {
    "own pair": ({}, True),
    "another order": ({"order": {"split": 64}}, False),
    "the default order": ({"order": {"split": 256, "tile": 64}}, True),
    "SDPA": (
        {
            "prefill": "kvparity.pairs.sdpa:flash_prefill",
            "decode": "kvparity.pairs.sdpa:flash_decode",
        },
        False,
    ),
    "a file": ({"prefill": "mine.py:prefill", "decode": "mine.py:decode"}, True),
    "decoder": ({"kind": "decoder", "preset": "tiny"}, True),
    "decoder of torch": (
        {"kind": "decoder", "preset": "tiny", "attention": "sdpa", "operations": "torch"},
        False,
    ),
    "decoder with SDPA": ({"kind": "decoder", "preset": "tiny", "attention": "sdpa"}, True),
    "eager": ({"kind": "transformers", "attention": "eager", "config": {"model_type": "x"}}, False),
    "invariant": (
        {
            "kind": "transformers",
            "attention": "eager",
            "invariant": True,
            "config": {"model_type": "x"},
        },
        True,
    ),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_rules_are_relied_on_by_subjects_with_these_kernels(name):
    change, relies = SUBJECTS[name]
    pair = {
        "kind": "attention",
        "prefill": "kvparity_kernels.attention:prefill",
        "decode": "kvparity_kernels.attention:decode",
        "heads": {"query": 2, "kv": 1, "dim": 16},
    }
    contract = Contract.model_validate(
        {
            "version": 1,
            "name": "c",
            "subject": change if "kind" in change else pair | change,
            "numerics": {"execution": ["float32", "bfloat16"]},
            "workloads": [{"name": "w", "prompt_tokens": [3], "generate": 2}],
            "checks": [{"name": "c", "relation": "invariance", "paths": ["decode"]}],
        }
    )
    assert relying.formats(contract) == (("float32", "bfloat16") if relies else ())
