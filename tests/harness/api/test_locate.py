"""Where a run parts, from Python: what cannot be located says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pair_contracts import write

import kvparity
from kvparity.core.errors import RunFolderError, UnsupportedError


def test_what_cannot_be_located_says_why(tmp_path: Path) -> None:
    held = kvparity.verify(write(tmp_path), run_dir=tmp_path / "run", device="cpu", jobs=1)
    with pytest.raises(UnsupportedError, match="only that can be located"):
        kvparity.locate(held)
    with pytest.raises(UnsupportedError, match="the calling process's alone"):
        kvparity.locate(replace(held, again=False))
    with pytest.raises(RunFolderError, match="holds no run"):
        kvparity.locate(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match="has no case 'c999'"):
        kvparity.locate(tmp_path / "run", "c999", device="cpu")
    found = kvparity.locate(str(tmp_path / "run"), "c000", device="cpu")
    assert not found.complete
    assert "no difference" in str(found)
