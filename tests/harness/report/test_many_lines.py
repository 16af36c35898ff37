"""Counting the lines of a file that grows reads only what was added."""

from __future__ import annotations

from pathlib import Path

from kvparity.report import run_files
from kvparity.report.run_dir import Evidence


def test_lines_are_counted_from_where_the_last_count_ended(tmp_path: Path) -> None:
    evidence, other = Evidence(tmp_path), Evidence(tmp_path)
    assert evidence.count("cases.jsonl") == 0
    for number in range(1, 4):
        other.append("cases.jsonl", {"id": f"c{number}"})
        assert evidence.count("cases.jsonl") == number
    file = tmp_path / "cases.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"id": "torn')
    assert evidence.count("cases.jsonl") == 3
    file.write_bytes(whole + b'{"id": "torn"}\n')
    assert evidence.count("cases.jsonl") == 4
    run_files.drop_torn_line(file)
    file.write_bytes(b'{"id": "c1"}\n')  # it was cut
    assert evidence.count("cases.jsonl") == 1
