"""Bad input through the command line: one clear message, the right exit code, no traceback."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from pair_contracts import PAIRS, verify, write

from kvparity.cli.main import main
from kvparity.core.exit_codes import ExitCode


def test_the_good_pair_holds(tmp_path, capsys):
    assert verify(write(tmp_path), tmp_path / "run", "--json") == ExitCode.HOLDS
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["verdict"] == "holds"
    assert [c["name"] for c in report["controls"] if not c["caught"]] == []
    assert "HOLDS" in err


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("decode_wrong_shape", ExitCode.ERROR, ["shape [1, 8], expected [1, 2, 4]"]),
        ("decode_wrong_dtype", ExitCode.ERROR, ["torch.float64, expected torch.float32"]),
        ("decode_raises", ExitCode.ERROR, ["raised RuntimeError: no kernel image is available"]),
        ("decode_writes", ExitCode.ERROR, ["wrote to its input k"]),
        ("decode_out_of_memory", ExitCode.ERROR, ["out of device memory", "512 GiB"]),
        ("missing", ExitCode.USAGE, ["has no function 'missing'", "it offers", "decode"]),
    ],
)
def test_a_pair_that_breaks_its_promise(tmp_path, capsys, name, code, words):
    run = tmp_path / "run"
    assert verify(write(tmp_path, decode=f"{PAIRS}:{name}"), run) == code
    err = capsys.readouterr().err
    assert f"{PAIRS}:{name}" in err
    for word in words:
        assert word in err
    assert "Traceback" not in err


def test_a_pair_that_returns_nan_differs(tmp_path, capsys):
    code = verify(write(tmp_path, decode=f"{PAIRS}:decode_nan"), tmp_path / "run")
    assert code == ExitCode.DIFFERS
    assert "NaN or Inf in an active token" in capsys.readouterr().out


def test_a_pair_of_another_order_differs_and_shows_both_patterns(tmp_path, capsys):
    run = tmp_path / "run"
    contract = write(tmp_path, decode=f"{PAIRS}:decode_reversed")
    assert verify(contract, run, "--json") == ExitCode.DIFFERS
    cases = json.loads(capsys.readouterr().out)["checks"][0]["cases"]
    bad = [case for case in cases if case["verdict"] == "differs"]
    # The first of a workload was computed once more in the run, the others only in their replay.
    assert {"invariance" in case for case in bad} == {True, False}
    for case in bad:
        first = case["first_divergence"]
        assert first["reference_bits"] != first["candidate_bits"]
        assert (run / case["evidence"]).is_file()
        assert main(["replay", str(run), case["id"]]) == ExitCode.DIFFERS
        assert "the same result as the run recorded" in capsys.readouterr().out


def test_a_module_that_does_not_import(tmp_path, capsys):
    name = "no_such_module:prefill"
    assert verify(write(tmp_path, prefill=name), tmp_path / "run") == ExitCode.USAGE
    err = capsys.readouterr().err
    assert f"{name}: " in err
    assert "does not import" in err


def test_a_file_that_is_not_there_is_told_with_its_line(tmp_path, capsys):
    contract = write(tmp_path, prefill="missing.py:prefill")
    assert verify(contract, tmp_path / "run") == ExitCode.USAGE
    err = capsys.readouterr().err
    assert err.startswith(f"{contract}:")
    assert f"subject.prefill: found 'missing.py:prefill', but there is no file {tmp_path}" in err


def test_a_module_that_fails_while_importing(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\ndef prefill(): ...\n")
    assert verify(write(tmp_path, prefill="broken.py:prefill"), tmp_path / "run") == ExitCode.USAGE
    assert "No module named 'nothing_of_that_name'" in capsys.readouterr().err


def test_a_run_folder_that_exists(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "precious.txt").write_text("mine")
    assert verify(write(tmp_path), run) == ExitCode.USAGE
    assert "exists and is not empty; add --resume" in capsys.readouterr().err
    assert (run / "precious.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_keeps_finished_cases_and_the_run_can_be_finished(tmp_path, jobs, warm, monkeypatch):
    # A worker process interrupts its parent, as Ctrl-C on the terminal would.
    contract = write(tmp_path, decode=f"{PAIRS}:decode_interrupted")
    run = tmp_path / "run"
    monkeypatch.setenv("KVPARITY_TEST_MARKER", str(tmp_path / "interrupted"))
    command = ["verify", str(contract), "--run-dir", str(run), "--jobs", str(jobs)]
    first = warm.run(*command, jobs=jobs)
    assert first.returncode == ExitCode.INTERRUPTED, first.stderr
    assert "--resume" in first.stderr
    assert "Traceback" not in first.stderr
    kept = (run / "cases.jsonl").read_text() if (run / "cases.jsonl").exists() else ""
    if jobs == 1:  # the first unit had ended; with two processes both may have been under way
        assert kept
    second = warm.run(*command, "--resume", "--json", jobs=jobs)
    assert second.returncode == ExitCode.HOLDS, second.stderr
    assert (run / "cases.jsonl").read_text().startswith(kept)
    assert json.loads(second.stdout)["verdict"] == "holds"


def test_a_kernel_file_finds_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_kernels.py").write_text(PAIRS.read_text())
    (tmp_path / "mine.py").write_text("from neighbour_of_kernels import decode, prefill\n")
    contract = write(tmp_path, prefill="mine.py:prefill", decode="mine.py:decode")
    assert verify(contract, tmp_path / "run") == ExitCode.HOLDS
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("decode", "code"), [("decode_raises", ExitCode.ERROR), ("missing", ExitCode.USAGE)]
)
def test_json_is_one_document_also_where_there_is_no_report(tmp_path, capsys, decode, code):
    contract = write(tmp_path, decode=f"{PAIRS}:{decode}")
    assert verify(contract, tmp_path / "run", "--json") == code
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["verdict"], document["exit_code"]) == ("error", code)
    assert document["error"] in err


def test_processes_and_replay_compute_with_the_same_threads(tmp_path, capsys):
    (tmp_path / "pairs.py").write_text(
        PAIRS.read_text()
        + "\nimport pathlib\n"
        + "with pathlib.Path(__file__).with_name('threads').open('a') as file:\n"
        + "    file.write(f'{torch.get_num_threads()} ')\n"
    )
    contract = write(tmp_path, prefill="pairs.py:prefill", decode="pairs.py:decode")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for jobs in ("1", "2"):
            assert verify(contract, tmp_path / f"run{jobs}", "--jobs", jobs) == ExitCode.HOLDS
        torch.set_num_threads(2)
        assert main(["replay", str(tmp_path / "run1"), "c000"]) == ExitCode.HOLDS
    finally:
        torch.set_num_threads(before)
    assert set((tmp_path / "threads").read_text().split()) == {"1"}


def test_a_picture_that_cannot_be_drawn(tmp_path, capsys):
    pair = f"{PAIRS}:prefill,{PAIRS}:decode"
    options = ["--keys", "3", "--heads", "1,1", "--dim", "4", "--draws", "1"]
    assert main(["order", pair, *options, "--svg", str(tmp_path)]) == ExitCode.USAGE
    assert f"--svg {tmp_path} cannot be written: Is a directory" in capsys.readouterr().err


def test_what_holds_only_when_it_is_replayed_is_no_green_light(tmp_path, capsys):
    run = tmp_path / "run"
    assert verify(write(tmp_path), run) == ExitCode.HOLDS
    assert main(["replay", str(run), "c000"]) == ExitCode.HOLDS  # the control
    cases = run / "cases.jsonl"
    cases.write_text(cases.read_text().replace('"verdict": "holds"', '"verdict": "differs"'))
    assert main(["replay", str(run), "c000"]) == ExitCode.VOID
    assert "NOT the result that the run recorded" in capsys.readouterr().out
    for text in ("garbage", "{}", "[]"):
        (run / "identity.json").write_text(text)
        assert main(["replay", str(run), "c000"]) == ExitCode.USAGE
        assert "identity.json is damaged" in capsys.readouterr().err
