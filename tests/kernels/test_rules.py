"""The table of what devices decided: read strictly, put together carefully, empty today."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from kvparity_kernels import rules, tiles
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.tiles import BASE, LinearTile, Tiles

ROOT = Path(__file__).parents[2]
ROW = {
    "arch": "sm_90",
    "triton": "3.6",
    "dtype": "bfloat16",
    "choice": "decode_block_m=16",
    "equal": True,
    "device": "NVIDIA H200",
    "evidence": "docs/results/device/h200.json",
}
SKIP, D16 = "skip_hidden", "decode_block_m=16"
P128 = "prefill_block_m=128,warps=8"


def put(folder, *rows, **top):
    path = folder / "rules.json"
    path.write_text(json.dumps({"version": 1, "rules": list(rows)} | top))
    return path


@pytest.fixture
def stand_in(monkeypatch):
    """Put rows in the place of the packaged table."""

    def put(*rows):
        monkeypatch.setattr(rules, "table", lambda: tuple(rules.Rule(**row) for row in rows))
        rules.in_force.cache_clear()

    yield put
    rules.in_force.cache_clear()


def test_the_packaged_table_is_read_and_every_row_has_its_evidence():
    found = rules.read()
    assert Path(str(files("kvparity_kernels") / "rules.json")) == rules.PATH
    assert [row.evidence for row in found if not (ROOT / row.evidence).is_file()] == []


def test_where_nothing_was_measured_the_base_is_in_force():
    measured = {(row.arch, row.triton, row.dtype) for row in rules.read()}
    for dtype in rules.DTYPES:
        if ("sm_90", "3.6", dtype) not in measured:
            assert rules.in_force("sm_90", "3.6", dtype) == BASE


def test_reading_needs_no_torch():
    program = (
        "import sys; from kvparity_kernels import rules; rules.read(); rules.choices(); "
        "sys.exit('torch' in sys.modules or 'triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_row_is_read_as_written(tmp_path):
    (rule,) = rules.read(put(tmp_path, ROW))
    assert asdict(rule) == ROW
    with pytest.raises(AttributeError):
        rule.equal = False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"equal": 1}, "equal is 1, expected true or false"),
        ({"arch": 90}, "arch is 90, expected a text"),
        ({"device": ""}, "device is '', expected a text"),
        ({"arch": "hopper"}, "arch is 'hopper', expected something like 'sm_90'"),
        ({"arch": "interpreter"}, "is no device"),
        ({"triton": "3.6.0"}, "triton is '3.6.0'"),
        ({"dtype": "fp8"}, "dtype is 'fp8', expected one of float32"),
        ({"choice": "decode_block_m=8"}, "'decode_block_m=8', which is not among"),
        ({"evidence": "/tmp/x.json"}, "evidence is '/tmp/x.json', expected the path"),
        ({"mood": "good"}, "expected an object with the keys arch"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_wrong_is_told_with_file_and_row(tmp_path, change, words):
    good = ROW | {"dtype": "float16"}
    path = put(tmp_path, good, ROW | change)
    with pytest.raises(rules.RulesError) as caught:
        rules.read(path)
    assert str(caught.value).startswith(f"{path}: row 2: ")
    assert words in str(caught.value)


def test_a_row_lacks_a_key(tmp_path):
    with pytest.raises(rules.RulesError, match="row 1: expected an object with the keys"):
        rules.read(put(tmp_path, {k: v for k, v in ROW.items() if k != "device"}))


@pytest.mark.parametrize(
    ("other", "words"),
    [({"equal": False}, "keep the row that says false"), ({"device": "H100"}, "is a duplicate")],
)
def test_rows_that_speak_of_the_same_are_refused(tmp_path, other, words):
    path = put(tmp_path, ROW, ROW | {"dtype": "float32"}, ROW | other)
    with pytest.raises(rules.RulesError, match=r"row 3 .*: row 1 ") as caught:
        rules.read(path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "the keys version and rules"),
        ('["version", "rules"]', "the keys version and rules"),
        ("1", "the keys version and rules"),
        ('{"version": 2, "rules": []}', "version is 2, expected 1"),
        ('{"version": true, "rules": []}', "version is True"),
        ('{"version": 1, "rules": {}}', "rules is not a list"),
        ('{"version": 1, "rules": [], "more": 1}', "no others"),
        ('{"version": 1, "rules": [], "rules": []}', "'rules' occurs twice"),
        ('{"version": 1, "rules": ["x"]}', "row 1: expected an object"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, text, words):
    path = tmp_path / "rules.json"
    path.write_text(text)
    with pytest.raises(rules.RulesError) as caught:
        rules.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(rules.RulesError, match="cannot be read"):
        rules.read(tmp_path / "none.json")


def test_only_equal_rows_of_this_place_leave_the_base(stand_in):
    not_equal = ROW | {"choice": P128, "equal": False}
    stand_in(ROW, not_equal, ROW | {"choice": P128, "arch": "sm_80"})
    assert rules.in_force("sm_90", "3.6", "bfloat16") == Tiles(decode_block_m=16)
    assert rules.in_force("sm_80", "3.6", "bfloat16") == rules.choices()[P128]
    for place in (("sm_90", "3.7", "bfloat16"), ("sm_90", "3.6", "float32")):
        assert rules.in_force(*place) == BASE


def test_a_later_choice_of_the_same_kernel_wins():
    assert rules.compose([D16, "decode_block_m=32"]) == Tiles(decode_block_m=16)
    both = rules.compose(["decode_block_m=16,warps=1", D16])
    assert both == Tiles(decode_block_m=16, decode_warps=1)


def test_one_kernels_rows_and_warps_come_from_one_choice():
    # 32 rows with 2 warps, and 16 with the order's: 16 with 2 was measured by nobody.
    assert rules.compose(["decode_block_m=32,warps=2", D16]) == Tiles(decode_block_m=16)


def test_kernels_of_their_own_go_together():
    assert rules.compose([D16, P128]) == replace(rules.choices()[P128], decode_block_m=16)


def test_what_was_not_measured_together_is_not_assumed():
    assert rules.compose([D16, SKIP]) == Tiles(decode_block_m=16)
    together = f"{D16},skip_hidden"
    assert rules.compose([D16, SKIP, together]) == Tiles(decode_block_m=16, skip_hidden=True)
    # Each of the two kernels runs as one of these choices ran it.
    assert rules.compose([together, f"{P128},skip_hidden"]) == Tiles(128, 8, 16, None, True)


def runs(found: Tiles) -> set:
    """How each kernel runs: what a measurement of tiles is a measurement of."""
    return {
        ("prefill", found.prefill_block_m, found.prefill_warps, found.skip_hidden),
        ("decode", found.decode_block_m, found.decode_warps, found.skip_hidden),
    }


def test_no_kernel_ever_runs_as_no_equal_choice_ran_it():
    attention = [name for name, each in rules.choices().items() if not each.linear]
    some = torch.Generator().manual_seed(0)
    for _ in range(400):
        drawn = [name for name in attention if torch.rand((), generator=some) < 0.4]
        known = runs(BASE).union(*(runs(rules.choices()[name]) for name in drawn))
        assert runs(rules.compose(drawn)) <= known, drawn


def test_linear_tiles_are_put_together_by_rows():
    small, large = LinearTile(16, 32, 128, 4, 4), LinearTile(128, 128, 64, 8, 3)
    assert rules.compose([f"linear {small}"]).linear == ((16, small),)
    base = BASE.linear_tile(1, ReductionOrder())
    assert rules.compose([f"linear {large}"]).linear == ((64, base), (0, large))
    names = [name for name in rules.choices() if name.startswith("linear")]
    assert [rows for rows, _ in rules.compose(names).linear] == [16, 64, 0]
    # Whatever is in force for attention, where no choice of linear tiles hides anything.
    together = rules.compose([*names, f"{D16},skip_hidden"])
    assert together == replace(rules.compose(names), decode_block_m=16, skip_hidden=True)


def test_launches_ask_the_rules_on_cuda_alone_and_under_the_default_order(stand_in, monkeypatch):
    stand_in(ROW)
    monkeypatch.setattr(rules, "here", lambda device: ("sm_90", "3.6"))
    cuda, half = torch.device("cuda:0"), torch.bfloat16
    assert rules.current(cuda, half) == Tiles(decode_block_m=16)
    assert rules.current(cuda, half, ReductionOrder()) == Tiles(decode_block_m=16)
    assert rules.current(cuda, half, ReductionOrder(block_m=32)) == BASE
    assert rules.current(cuda, torch.float32) == BASE
    assert rules.current(torch.device("cpu"), half) == BASE
    with tiles.using(BASE):
        assert rules.current(cuda, half) == BASE


def test_the_version_of_triton_is_cut_to_two_numbers():
    import triton

    assert rules.triton_version() == ".".join(triton.__version__.split(".")[:2])


def test_a_place_is_what_torch_and_triton_call_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (10, 0))
    rules.here.cache_clear()
    assert rules.here(torch.device("cuda:0")) == ("sm_100", rules.triton_version())
    rules.here.cache_clear()
