"""Pairs that give the right numbers and do something else besides: no verdict may rest on them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kvparity.cli.main import main
from kvparity.core.environment import settle, unsettled
from kvparity.core.exit_codes import ExitCode
from kvparity.run import worker

PAIR = Path(__file__).parents[1] / "hostile_pair.py"
BITS = {"name": "bits", "relation": "invariance", "paths": ["decode", "batched"]}


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(worker, "_subjects", {})
    threads = torch.get_num_threads()
    yield
    settle()
    torch.set_num_threads(threads)


def contract(folder: Path, **changes: Any) -> Path:
    """A contract over the pair; ``prefill`` and ``decode`` name its functions."""
    pair = {part: f"{PAIR}:{changes.pop(part, part)}" for part in ("prefill", "decode")}
    pair |= {"inputs": changes.pop("inputs")} if "inputs" in changes else {}
    document = {
        "version": 1,
        "name": "hostile",
        "subject": {"kind": "attention", **pair, "heads": {"query": 2, "kv": 1, "dim": 4}},
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "short", "prompt_tokens": [2, 5], "generate": 3}],
        "checks": [BITS],
        "controls": ["stale-slot"],
    }
    path = folder / "contract.yaml"
    path.write_text(json.dumps(document | changes))
    return path


def verify(path: Path, *more: str) -> int:
    return main(["verify", str(path), "--jobs", "1", *more])


@pytest.mark.parametrize(
    ("part", "name", "words"),
    [
        ("decode", "decode_counts_up", "decode_counts_up wrote to its input kv_lens"),
        ("prefill", "prefill_forgets", "prefill_forgets wrote to its input cu_seqlens_k"),
        ("prefill", "prefill_past_the_end", "wrote to slots of the cache that it was not given"),
        ("decode", "decode_before_the_start", "wrote to slots of the cache that it was not given"),
        ("decode", "decode_three", "decode_three returned 3 values, expected out, or (out, lse)"),
        ("decode", "decode_sparse", "decode_sparse: out has layout torch.sparse_coo"),
        ("decode", "decode_odd", "decode_odd raised OddError: odd"),
        ("decode", "decode_two_threads", "torch computes with 2 threads"),
        ("decode", "decode_tf32", "TF32 is on"),
        ("decode", "decode_deterministic", "torch's use_deterministic_algorithms is True"),
        ("decode", "decode_flushes", "torch's flushing of denormal numbers is True"),
        ("decode", "decode_reduces", "torch's bfloat16 sums of reduced precision is False"),
        ("decode", "decode_without_flash", "torch's flash SDPA is False"),
        ("decode", "decode_equal", "torch.equal is no longer the function that it was"),
        ("decode", "decode_eq", "torch.Tensor.__eq__ is no longer the function that it was"),
        ("decode", "decode_views", "torch.Tensor.view is no longer the function that it was"),
        ("decode", "decode_dumps", "json.dumps is no longer the function that it was"),
        (
            "decode",
            "decode_compares",
            "kvparity.relations.bits_and_limits.differing is no longer the function",
        ),
        ("decode", "decode_writes_nowhere", "os.write is no longer the function that it was"),
        ("decode", "decode_has_other_code", "differing is no longer the function that it was"),
        ("decode", "decode_puts_another_module", "bits_and_limits is no longer"),
        ("decode", "decode_deaf", "SIGTERM has another handler"),
        ("decode", "decode_agrees", "out is a Agreeing, a tensor with functions of its own"),
        ("decode", "decode_narrow", "torch's default dtype is torch.bfloat16"),
    ],
)
def test_it_is_an_error_that_names_the_deed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, name: str, words: str
) -> None:
    # The first of these calls would get its keys as a view of a fused tensor, not of the cache.
    inputs = {"inputs": "contiguous"} if name == "prefill_past_the_end" else {}
    path = contract(tmp_path, **{part: name}, **inputs)
    assert verify(path, "--run-dir", str(tmp_path / "run")) == ExitCode.ERROR
    err = capsys.readouterr().err
    assert words in err
    assert "error: case c000: invariance of decode against prefill over short in float32: " in err
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "run.json").exists()
    assert unsettled() is None  # what a process does next does not suffer for it


def test_a_subject_does_not_end_the_process_with_a_code_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a copy of this process: without its guard it ends, and a test run would end green."""
    said = tmp_path / "said"
    pid = os.fork()
    if not pid:
        code = 0
        try:
            path = contract(tmp_path, decode="decode_leaves")
            code = 100 + verify(path, "--run-dir", str(tmp_path / "run"))
            said.write_text(capsys.readouterr().err)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 100 + ExitCode.ERROR
    assert "the subject ended the process by os._exit(0)" in said.read_text()


def test_the_plain_pair_holds(tmp_path: Path) -> None:
    assert verify(contract(tmp_path), "--run-dir", str(tmp_path / "run")) == ExitCode.HOLDS


def test_evidence_stays_where_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = contract(tmp_path, decode="decode_goes_away")
    assert verify(path, "--run-dir", "run") == ExitCode.HOLDS
    report = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (report["verdict"], report["run_dir"]) == ("holds", "run")


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("decode_takes_the_folder", ExitCode.USAGE, "paths.jsonl could not be written: No such"),
        ("decode_takes_it_twice", ExitCode.ERROR, "c000.traceback.txt could not be written: No su"),
        ("decode_takes_the_lines", ExitCode.USAGE, "has no line of 'c000', which ran: another"),
    ],
)
def test_a_run_folder_that_is_taken_away_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    code: ExitCode,
    words: str,
) -> None:
    monkeypatch.setenv("KVPARITY_TEST_RUN", str(tmp_path / "run"))
    path = contract(tmp_path, decode=name)
    assert verify(path, "--run-dir", str(tmp_path / "run")) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("torch.set_float32_matmul_precision('high')", "TF32 is on"),
        ("torch.set_autocast_enabled('cpu', True)", "torch's autocast on cpu is True"),
    ],
)
def test_flags_that_an_import_sets_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    (tmp_path / "fast.py").write_text(f"{PAIR.read_text()}\n\n{line}\n")
    path = contract(tmp_path)
    path.write_text(path.read_text().replace(str(PAIR), "fast.py"))
    assert verify(path, "--run-dir", str(tmp_path / "run")) == ExitCode.ERROR
    assert f"loading the subject in float32: {words}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["trace", "order"])
def test_other_verbs_do_not_rest_on_it_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    more = ["--keys", "3", "--draws", "1"] if verb == "order" else []
    assert main([verb, str(contract(tmp_path, decode="decode_tf32")), *more]) == ExitCode.ERROR
    assert "TF32 is on" in capsys.readouterr().err
    worker._subjects.clear()
    assert main([verb, str(contract(tmp_path)), *more]) != ExitCode.ERROR  # the control


def test_a_variable_that_turns_tf32_on_is_refused_on_a_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kvparity.core.environment import overridden

    assert overridden("cuda:1") is None
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert overridden("cpu") is None
    assert "NVIDIA_TF32_OVERRIDE" in str(overridden("cuda:1"))
