"""A contract, verified from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pair_contracts import write

import kvparity
from kvparity.core.errors import RunFolderError
from kvparity_contracts.problems import ContractError


def test_the_report_is_that_of_the_command_line(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    found = kvparity.verify(
        write(tmp_path), run_dir=tmp_path / "run", device="cpu", jobs=1,
        progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert found.holds
    assert str(found).startswith("pair: HOLDS")
    assert (tmp_path / "run" / "run.json").is_file()
    assert seen[-1][0] == seen[-1][1] == len(found.cases)
    assert [case.id for case in found.cases] == sorted(case.id for case in found.cases)


def test_a_frame_has_a_row_for_each_case(tmp_path: Path) -> None:
    import pandas

    frame = kvparity.verify(write(tmp_path), run_dir=tmp_path / "run", jobs=1).frame()
    assert isinstance(frame, pandas.DataFrame)
    assert set(frame["verdict"]) == {"holds"}


def test_what_is_wrong_is_said_as_the_command_line_says_it(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_text(file.read_text().replace("batched", "batchd"))
    with pytest.raises(ContractError, match=r"pair\.yaml:\d+:\d+: .*batchd"):
        kvparity.verify(file, run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="jobs 0: expected at least 1"):
        kvparity.verify(write(tmp_path), jobs=0)
    with pytest.raises(ValueError, match="resume needs run_dir"):
        kvparity.verify(write(tmp_path), resume=True)
    with pytest.raises(ContractError, match="no such file"):
        kvparity.verify(tmp_path / "absent.yaml")


def test_a_finished_folder_is_not_written_over(tmp_path: Path) -> None:
    kvparity.verify(write(tmp_path), run_dir=tmp_path / "run", jobs=1)
    with pytest.raises(RunFolderError):
        kvparity.verify(write(tmp_path), run_dir=tmp_path / "run", jobs=1)
    assert kvparity.verify(write(tmp_path), run_dir=tmp_path / "run", jobs=1, resume=True).holds


def test_the_callers_switches_are_put_back(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    kvparity.verify(write(tmp_path), run_dir=tmp_path / "run", device="cpu", jobs=1)
    found = torch.get_num_threads()
    torch.set_num_threads(1)
    assert found == 2
