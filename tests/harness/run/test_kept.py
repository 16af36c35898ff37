"""A run can be run again as it was, whatever became of its contract and of the pair's source."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pair_contracts import PAIRS, write

import kvparity
from kvparity.cli.main import main
from kvparity.core.errors import RunFolderError
from kvparity.core.isolation.inside import here
from kvparity.run import worker
from kvparity.run.kept import contract_of
from kvparity.subjects.pair.callables import forget, instead, load_callable

TURNED = f"""
import importlib.util
import turned_beside

spec = importlib.util.spec_from_file_location("given_pairs", {str(PAIRS)!r})
pairs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pairs)
prefill = pairs.prefill
assert __file__.endswith("mine.py") and "/kept/" not in __file__


def decode(q, k, v, *, kv_lens, scale):
    if turned_beside.TURNED:
        k, v = k.clone(), v.clone()
        for b, n in enumerate(kv_lens.tolist()):
            k[b, :n], v[b, :n] = k[b, :n].flip(0), v[b, :n].flip(0)
    return pairs.decode(q, k, v, kv_lens=kv_lens, scale=scale)
"""
STRAIGHT = TURNED.replace("if turned_beside.TURNED", "if False")


def run(*arguments: str) -> int:
    """In this process, which forgets the subjects that it has loaded, as a new one would."""
    worker.forget()
    with here(True):
        return main(list(arguments))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that differs, of functions in a file beside its contract."""
    (tmp_path / "mine.py").write_text(TURNED)
    (tmp_path / "turned_beside.py").write_text("TURNED = True\n")
    monkeypatch.delitem(sys.modules, "turned_beside", raising=False)
    contract = write(tmp_path, prefill="mine.py:prefill", decode="mine.py:decode")
    assert run("verify", str(contract), "--run-dir", str(tmp_path / "run")) == 1
    return tmp_path


def edited(folder: Path) -> None:
    (folder / "mine.py").write_text(STRAIGHT)
    (folder / "pair.yaml").write_text("another: contract\n")


def gone(folder: Path) -> None:
    (folder / "mine.py").unlink()
    (folder / "pair.yaml").unlink()


@pytest.mark.parametrize("edit", [edited, gone])
def test_what_was_edited_since_is_run_as_it_was(
    edit: Callable[[Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder)
    kept = "mine.py has changed since the run: what the run kept was run"
    assert run("replay", str(folder / "run"), "c000") == 1
    said = capsys.readouterr().out
    assert kept in said
    assert "the same result as the run recorded" in said
    assert run("locate", str(folder / "run"), "c000") == 0
    assert kept in capsys.readouterr().out
    assert run("replay", str(folder / "run"), "c000", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["changed_files"], found["kept_files"]) == ([], ["mine.py"])


def test_a_module_is_found_where_the_run_found_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As pytest finds modules beside tests, and no command that is typed later does."""
    name = "only_there_package.inner"
    file = (tmp_path / "there" / name.replace(".", "/")).with_suffix(".py")
    file.parent.mkdir(parents=True)
    file.write_text(TURNED.replace("mine.py", file.name))
    (tmp_path / "there" / "turned_beside.py").write_text("TURNED = True\n")
    path = list(sys.path)

    def later() -> None:
        for each in (name, name.partition(".")[0], "turned_beside"):
            sys.modules.pop(each, None)
        sys.path[:] = path

    sys.path.insert(0, str(tmp_path / "there"))
    try:
        with here(True):
            found = kvparity.check_pair(
                f"{name}:prefill", f"{name}:decode", heads=(2, 1, 8), lengths=(9,),
                paths=["decode"], controls=["stale-slot"], max_abs=None, locate=0,
            )  # fmt: skip
        commands = [line.partition(": kvparity ")[2] for line in str(found).splitlines()]
        later()
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        replay, locate = (each.split() for each in commands if each)
        assert run(*replay) == 1
        assert "the same result as the run recorded" in capsys.readouterr().out
        later()
        assert run(*locate) == 0
        assert sys.path == path
    finally:
        later()


def test_shrink_says_what_is_run_as_it_is_now(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited(folder)
    assert run("shrink", str(folder / "run"), "c000") == 5
    said = capsys.readouterr().out
    assert "nothing differs now" in said
    assert "changed since the run: mine.py: their current content was run" in said


def test_current_runs_what_is_there_now(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited(folder)
    assert run("replay", str(folder / "run"), "c000", "--current") == 5
    said = capsys.readouterr().out
    assert "what the run kept" not in said
    assert "since what it had has changed: mine.py" in said


def test_what_is_kept_is_what_was_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract, kept = (folder / "pair.yaml").read_bytes(), folder / "run" / "kept"
    names = sorted((each.name for each in kept.iterdir()), key=lambda name: name.split("-")[-1:])
    assert [name.rpartition("-")[2] for name in names] == ["contract.yaml", "mine.py"]
    assert (kept / "contract.yaml").read_bytes() == contract
    edited(folder)
    (kept / names[1]).write_text(STRAIGHT + "# edited, too\n")
    assert run("replay", str(folder / "run"), "c000") == 2
    assert "was changed since the run kept it; --current runs" in capsys.readouterr().err
    (kept / "contract.yaml").write_bytes(contract + b"\n")
    with pytest.raises(RunFolderError, match="holds no copy of it as it was"):
        contract_of(folder / "run")


def test_a_resumed_run_keeps_what_an_interruption_left_out(folder: Path) -> None:
    kept = folder / "run" / "kept"
    for each in list(kept.iterdir()):
        each.unlink()
    kept.rmdir()
    asked = ["verify", str(folder / "pair.yaml"), "--run-dir", str(folder / "run"), "--resume"]
    assert run(*asked) == 1
    assert len(list(kept.iterdir())) == 2


def test_a_module_is_imported_from_its_copy(tmp_path: Path) -> None:
    for name, text in (("kept_twin", "1"), ("kept_twin_beside", "5")):
        (tmp_path / f"{name}.py").write_text(f"def f(): return {text}\n")
    (tmp_path / "copy.py").write_text("import kept_twin_beside\ndef f(): return 2\n")
    files = {tmp_path / "kept_twin.py": tmp_path / "copy.py"}
    with instead(files):
        assert load_callable("kept_twin:f", tmp_path)() == 2
        assert load_callable("kept_twin.py:f", tmp_path)() == 2
        assert load_callable("kept_twin_beside.py:f", tmp_path)() == 5
    forget()
    assert load_callable("kept_twin.py:f", tmp_path)() == 1
    for name in ("kept_twin", "kept_twin_beside"):
        del sys.modules[name]
    assert load_callable("kept_twin:f", tmp_path)() == 1


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run"):
        contract_of(tmp_path)
