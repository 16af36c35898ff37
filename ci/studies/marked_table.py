"""A table between two marks of a page that a study rewrites."""

from __future__ import annotations

from pathlib import Path

BEGIN, END = "<!-- table -->", "<!-- /table -->"


def put(page: Path, table: str) -> None:
    """Put the table into the page, in place of the one that is there."""
    head, _, rest = page.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    _, _, tail = rest.partition(END)
    page.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}", encoding="utf-8")
