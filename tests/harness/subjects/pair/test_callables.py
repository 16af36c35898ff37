"""Functions of a pair, found by the names that a contract gives them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvparity.subjects.pair.callables import forget, load_callable


def test_functions_are_found_by_module_or_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "kernels.py").write_text("def decode():\n    return 'file'\n")
    (tmp_path / "kvparity_test_module.py").write_text("def decode():\n    return 'module'\n")
    before = list(sys.path)
    assert load_callable("inner/kernels.py:decode", tmp_path)() == "file"
    assert load_callable("kvparity_test_module:decode", tmp_path)() == "module"
    assert load_callable("os.path:join", tmp_path)("a", "b") == "a/b"
    assert sys.path == before
    monkeypatch.delitem(sys.modules, "kvparity_test_module")
    with pytest.raises(ValueError, match="does not import"):
        load_callable(
            "kvparity_test_module:decode", Path(__file__).parents[2]
        )  # the control: it was found beside the contract


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "nowhere_at_all:f",
            "",
            r"nowhere_at_all does not import \(ModuleNotFoundError: .*relative",
        ),
        ("gone.py:f", "", r"gone.py does not import \(FileNotFoundError: no file"),
        ("k.py:f", "x = (", r"k.py does not import \(SyntaxError"),
        ("k.py:f", "import nowhere_at_all", r"k.py does not import \(ModuleNotFoundError"),
        ("k.py:f", "raise SystemExit(0)", r"k.py does not import \(SystemExit: 0\)"),
        ("k.py:f", "a = 1\ndef g(): pass\n_h = 2", r"has no function 'f'; it offers a, g$"),
        ("k.py:f", "f = 3", r"has no function 'f'; it offers f$"),
    ],
)
def test_a_function_that_is_not_there_is_explained(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / "k.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_callable(name, tmp_path)


OPERATOR = """
import torch
torch.library.define("{name}::add_one", "(Tensor x) -> Tensor")

@torch.library.impl("{name}::add_one", "cpu")
def _add_one(x):
    return x + 1

def prefill(x):
    return torch.ops.{name}.add_one(x)

decode = prefill
def again(): return "first"
"""


def test_a_file_is_imported_once_however_many_functions_are_named(tmp_path: Path) -> None:
    for folder, name in (("one", "kvparity_test_one"), ("two", "kvparity_test_two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ops.py").write_text(OPERATOR.format(name=name))
    prefill = load_callable("one/ops.py:prefill", tmp_path)
    decode = load_callable("../one/ops.py:decode", tmp_path / "two")  # another spelling
    assert prefill is decode
    # A file of the same name elsewhere is another module, and so is the file once it changed.
    other = load_callable("two/ops.py:prefill", tmp_path)
    assert other.__module__ != prefill.__module__
    assert sys.modules[other.__module__].prefill is other
    assert sys.modules[prefill.__module__].prefill is prefill
    (tmp_path / "one" / "ops.py").write_text("def again(): return 'second, and longer'\n")
    assert load_callable("one/ops.py:again", tmp_path)() == "second, and longer"


def test_a_file_that_fails_leaves_nothing_half_imported(tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text("def f(): return 1\nraise OSError('no driver')\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="no driver"):
            load_callable("breaks.py:f", tmp_path)
    assert not any(name.startswith("kvparity_subject_breaks_") for name in sys.modules)


def test_a_file_is_imported_anew_once_all_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "k.py").write_text("made = object()\ndef f(): return made\n")
    first = load_callable("k.py:f", tmp_path)
    assert load_callable("k.py:f", tmp_path) is first
    forget()
    assert load_callable("k.py:f", tmp_path) is not first


def test_neighbours_come_before_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("own", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "kvparity_beside.py").write_text(f"here = {folder!r}\n")
    (tmp_path / "own" / "k.py").write_text(
        "from kvparity_beside import here\nfile = __file__\ndef f(): return here, file\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "other")
    assert load_callable("own/k.py:f", tmp_path)() == ("own", str(tmp_path / "own" / "k.py"))
    monkeypatch.delitem(sys.modules, "kvparity_beside")


def test_an_interrupt_while_importing_is_no_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "k.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_callable("k.py:f", tmp_path)
