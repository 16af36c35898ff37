"""Functions of a pair, found by the names that a contract gives them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvparity.subjects.callables import load_callable


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
            "kvparity_test_module:decode", Path(__file__).parent
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
