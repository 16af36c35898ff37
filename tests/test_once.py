"""What is expensive is made once for all tests and processes, and whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def test_a_folder_is_made_once(once: Any) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("here")

    first, again = once("a-test-of-once", make), once("a-test-of-once", make)
    assert first == again
    assert (first / "file").read_text() == "here"
    assert len(made) == 1


def test_what_failed_half_way_is_made_again(once: Any) -> None:
    def half(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        once("a-test-of-halves", half)
    folder = once("a-test-of-halves", lambda folder: (folder / "other").touch())
    assert [each.name for each in folder.iterdir()] == ["other"]
