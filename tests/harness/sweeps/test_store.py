"""The store of a sweep: runs that are added to it, and those that earlier versions wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import run_documents
from pyarrow import parquet
from sweep_rows import row

from kvparity.cli.main import main
from kvparity.core.errors import RunFolderError
from kvparity.sweeps import store as store_module
from kvparity.sweeps.reading import rows_in
from kvparity.sweeps.store import SweepStore


def test_runs_of_verify_are_added_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, verdict in (("a", "holds"), ("b", "differs")):
        own = {"differing_tokens": 1, "first_divergence": run_documents.DIVERGENCE}
        case = run_documents.case(verdict=verdict, **own if verdict == "differs" else {})
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(run_documents.report(verdict, case)))
    line = ["history", str(tmp_path / "store"), "--add", str(tmp_path / "a"), str(tmp_path / "b")]
    for _ in range(2):
        assert main([*line, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert sorted(run["verdict"] for run in found["runs"]) == ["differs", "holds"]
    assert {each.attempts for each in rows_in(tmp_path / "store")} == {1}
    (flaky,) = found["flaky"]
    assert flaky["words"].startswith("verdicts ")


def test_a_store_of_an_earlier_version_is_read(store: SweepStore) -> None:
    """A column that came later is unknown there; one that was always there is not."""
    store.write("some", [row()])
    file = store.file("some")
    table = parquet.read_table(file)
    parquet.write_table(table.drop_columns(["attempts", "sources", "measured"]), file)
    (old,) = rows_in(store.folder)
    assert (old.attempts, old.sources, old.measured) == (None, None, None)
    parquet.write_table(table.drop_columns(["claim_verdict"]), file)
    with pytest.raises(RunFolderError, match="no store of this version"):
        rows_in(store.folder)


def test_what_was_not_measured_never_stands_beside_what_was(
    store: SweepStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.note("some", row(verdict="void", measured=False))
    whole = store_module._write

    def killed(*args: Any) -> None:
        whole(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write("some", [row()])
    assert [each.verdict for each in rows_in(store.folder)] == ["holds"]


def test_the_store_of_the_results_is_read() -> None:
    rows = rows_in(Path(__file__).parents[3] / "docs/results/sweep")
    assert {row.contract for row in rows if row.verdict == "differs"} == {"paged-eager"}
