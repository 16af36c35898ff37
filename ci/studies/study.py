"""What studies share: where results lie, a table in a page, and ways that are timed in turns."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from platform import python_version

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs/results"
BEGIN, END = "<!-- table -->", "<!-- /table -->"


def versions(*packages: str) -> dict[str, str]:
    """Those of Python and of these packages."""
    return {"python": python_version(), **{name: metadata.version(name) for name in packages}}


def write(file: Path, document: object) -> str:
    """Write a document; returns its text."""
    text = json.dumps(document, indent=1) + "\n"
    file.write_text(text, encoding="utf-8")
    return text


def put(page: Path, table: str) -> None:
    """Put the table into the page, in place of the one that is there."""
    head, _, rest = page.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    _, _, tail = rest.partition(END)
    page.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}", encoding="utf-8")


def in_turns(runs: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, run alternately after one warm-up."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(repeats + 1):
        for run, spent in zip(runs, times, strict=True):
            begin = time.perf_counter()
            run()
            if number:
                spent.append(time.perf_counter() - begin)
    return [statistics.median(each) for each in times]
