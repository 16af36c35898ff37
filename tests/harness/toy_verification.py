"""A whole verification of the toy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toy
from conforming import findings
from run_documents import rendered
from toy import Toy

from kvparity.run import verify as verification
from kvparity.run import worker
from kvparity.run.pools import Locally, Pools
from kvparity_contracts.loader import LoadedContract, load

BITS = {"name": "bits", "relation": "invariance", "paths": ["decode", "batched"]}
NEAR = {"name": "near", "relation": "accuracy", "limits": {"max_abs_dlogp": 1e-5}}


def verify(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subject: Toy | None = None,
    /,
    *,
    resume: bool = False,
    factory: Any = None,
    pools: Callable[[LoadedContract], Pools] = lambda loaded: Locally(),
    **changes: Any,
) -> dict[str, Any]:
    """The report of a verification in this process, with the toy as the contract's subject."""
    build = factory or (lambda model, **options: subject or Toy())
    monkeypatch.setattr(worker, "factory", lambda kind: build)
    monkeypatch.setattr(worker, "_subjects", {})
    file = tmp_path / "contract.yaml"
    file.write_text(json.dumps(toy.document(**changes)))
    loaded = load(file)
    report = verification.verify(
        loaded,
        device="cpu",
        folder=tmp_path / "run",
        jobs=1,
        resume=resume,
        command="kvparity verify contract.yaml",
        progress=lambda done, total, what: None,
        pools=pools(loaded),
    ).document()
    assert report == json.loads((tmp_path / "run" / "run.json").read_text()) | {
        "elapsed_s": report["elapsed_s"]
    }
    assert list(findings(tmp_path / "run")) == []
    assert report["verdict"].upper() in rendered(report).splitlines()[0]
    return report
