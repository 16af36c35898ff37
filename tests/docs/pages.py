"""The documentation as data: pages, their fenced blocks, headings, links and inline code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """One fenced block: ``words`` are those of its info string after the language."""

    language: str
    words: tuple[str, ...]
    text: str

    @property
    def title(self) -> str | None:
        """The file that the block is to be written to."""
        found = [word.removeprefix("title=") for word in self.words if word.startswith("title=")]
        return found[0] if found else None

    @property
    def is_contract(self) -> bool:
        return self.language == "yaml" and {"version", "subject"} <= set(
            re.findall(r"^(\w+):", self.text, re.MULTILINE)
        )

    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands of a console block, each with the output that is shown."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append((line[2:].partition("  #")[0].strip(), []))
            else:
                assert found, f"a console block begins with a command, '$ ...': {line}"
                found[-1][1].append(line)
        return found


def fences(text: str) -> list[Fence]:
    found = []
    for match in FENCE.finditer(text):
        language, *words = match["info"].split() or [""]
        found.append(Fence(language, tuple(words), match["text"]))
    return found


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The fragments that headings of a page can be linked by."""
    titles = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", t) for t in HEADING.findall(prose(text)))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere."""
    broken = []
    for match in LINK.finditer(prose(text)):
        target = match["target"]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists():
            broken.append(target)
            continue
        there = anchors(file.read_text() if path else text) if fragment else set()
        if fragment and fragment not in there:
            broken.append(target)
    return broken


def table_rows(text: str, after: str) -> list[list[str]]:
    """The cells of the first table behind ``after``, without its head."""
    rows = []
    for line in text[text.index(after) :].splitlines()[1:]:
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            rows.append([cell.strip() for cell in cells])
        elif rows:
            break
    return rows[2:]
