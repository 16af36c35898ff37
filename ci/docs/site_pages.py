"""Gather what the site is built of: the pages as a reader of a site needs them.

    python ci/docs/site_pages.py FOLDER

Pages of ``docs/`` keep their names; README.md is the first page, CONTRIBUTING.md stands beside it.
A link to any other file of the checkout leads to a copy of it. The pages of the API are named here
and filled from docstrings.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?P<before>\]\()(?P<path>[^)#:\s]+)(?P<after>(#[^)\s]*)?\))")
MOVED = {"README.md": "index.md"}
API = {
    "python": ("In Python", ["kvparity.verify", "kvparity.check_pair", "kvparity.check_model",
                             "kvparity.assert_parity", "kvparity.drift", "kvparity.locate",
                             "kvparity.shrink", "kvparity.Report", "kvparity.RolloutDrift"]),
    "recordings": ("Recorded rollouts in Python", ["kvparity.rollouts.native.RolloutWriter",
                                                   "kvparity.rollouts.open.read_rollouts"]),
    "kernels": ("Kernels in Python", ["kvparity_kernels.attention.api.prefill",
                                      "kvparity_kernels.attention.api.decode"]),
}  # fmt: skip
"""Pages below ``api/``: title, and what each documents."""


def pages(root: Path = ROOT) -> dict[str, Path]:
    """Every page by its name on the site, and the file that it is made of."""
    found = {path.relative_to(root / "docs").as_posix(): path for path in _markdown(root)}
    beside = ("README.md", "CONTRIBUTING.md")
    return found | {MOVED.get(name, name): root / name for name in beside}


def gather(folder: Path, root: Path = ROOT) -> None:
    """Write all that the site is built of below ``folder``."""
    made = pages(root)
    places = {path.resolve(): name for name, path in made.items()}
    for path in (root / "docs").rglob("*"):
        if path.is_file() and path.suffix != ".md":
            _copy(path, folder / path.relative_to(root / "docs"))
    for name, path in made.items():
        text = path.read_text(encoding="utf-8")
        links = _Links(folder, name, path, root, places)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(LINK.sub(links.changed, text), encoding="utf-8")
    for name, (title, targets) in API.items():
        text = f"# {title}\n\n" + "\n\n".join(f"::: {each}" for each in targets) + "\n"
        (folder / "api").mkdir(exist_ok=True)
        (folder / f"api/{name}.md").write_text(text, encoding="utf-8")


class _Links:
    """The links of one page, as they are on the site."""

    def __init__(
        self, folder: Path, name: str, page: Path, root: Path, places: dict[Path, str]
    ) -> None:
        self.folder, self.name, self.page, self.root, self.places = folder, name, page, root, places

    def changed(self, found: re.Match[str]) -> str:
        """One link; what leads nowhere stays, for mkdocs to complain of."""
        target = (self.page.parent / found["path"]).resolve()
        if target in self.places:
            place = self.places[target]
        elif target.is_relative_to(self.root / "docs"):
            place = target.relative_to(self.root / "docs").as_posix()
        elif target.is_file() and target.is_relative_to(self.root):
            place = f"files/{target.relative_to(self.root).as_posix()}.txt"
            _copy(target, self.folder / place)
        else:
            return found[0]
        start = Path(self.name).parent.as_posix()
        return found["before"] + os.path.relpath(place, start) + found["after"]


def _markdown(root: Path) -> list[Path]:
    return sorted((root / "docs").rglob("*.md"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
