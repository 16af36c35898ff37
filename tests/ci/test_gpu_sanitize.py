"""The sanitizer step: what it watches runs, and only a summary without errors is clean."""

from __future__ import annotations

import os

import pytest
from gpu_steps import sanitize as gpu_sanitize


def test_what_is_watched_runs(monkeypatch):
    monkeypatch.setattr(gpu_sanitize, "LENGTHS", (1, 17))
    gpu_sanitize.launch("cpu")


@pytest.mark.parametrize(
    ("text", "code", "clean", "errors"),
    [
        ("========= ERROR SUMMARY: 0 errors\n", 0, True, 0),
        ("========= ERROR SUMMARY: 2 errors\n", 9, False, 2),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", 0, True, 0),
        ("========= RACECHECK SUMMARY: 1 hazard displayed (1 error)\n", 0, False, 1),
        ("========= ERROR SUMMARY: 0 errors\n", 1, False, 0),  # the program itself failed
        ("Traceback", 1, False, None),
        ("", 0, False, None),
    ],
)
def test_only_a_summary_without_errors_is_clean(text, code, clean, errors):
    found = gpu_sanitize.judged(text, code)
    assert (found["clean"], found["errors"]) == (clean, errors)


def test_the_tool_is_run_on_this_program(monkeypatch, tmp_path, capsys):
    fake = tmp_path / "compute-sanitizer"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *"racecheck"*) n=1;; *) n=0;; esac\n'
        'case "$*" in *"sanitize.py --launch"*) echo "ERROR SUMMARY: $n errors";; esac\n'
        "exit $n\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    assert gpu_sanitize.main(["memcheck"]) == 0
    assert '"verdict": "clean"' in capsys.readouterr().out
    assert gpu_sanitize.main(["memcheck", "racecheck"]) == 1
    assert '"verdict": "errors"' in capsys.readouterr().out


def test_without_the_tool_nothing_is_claimed(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_sanitize.main([]) == 3
    assert "not on the PATH" in capsys.readouterr().err
