"""The house: imports point down, nothing goes round in a circle, and what is private stays so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import kvparity

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "kvparity_contracts": ROOT / "contracts",
    "kvparity_kernels": ROOT / "kernels",
    "kvparity": ROOT / "harness",
}
PAGE = (ROOT / "docs/architecture.md").read_text()
FLOORS = re.findall(r"^\| \d+ \| `([\w.]+)` \|", PAGE, re.MULTILINE)[::-1]
"""From the ground up: a room imports from those before it, and from ``kvparity`` itself."""
Arrows = Mapping[str, frozenset[str]]


def arrows(packages: Mapping[str, Path]) -> Arrows:
    """By module, the modules it imports: lazily and for types alone, too."""
    files = {}
    for package, base in packages.items():
        for path in (base / package).rglob("*.py"):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            files[name.removesuffix(".__init__")] = path
    return {
        name: frozenset(
            found if found in files else found.rpartition(".")[0]
            for found in imported(ast.parse(path.read_text()))
            if found in files or found.rpartition(".")[0] in files
        )
        - {name}
        for name, path in files.items()
    }


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names; of a name that is imported from a module, with the module's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import says its whole name"
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)


def room(module: str) -> str:
    """``kvparity.plan.paths`` is in ``kvparity.plan``; the other packages are a room each."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "kvparity" else 1])


def upward(found: Arrows) -> list[str]:
    """Imports that do not point down."""
    floor = {name: number for number, name in enumerate(FLOORS)} | {"kvparity": -1}
    return [
        f"{module} imports {other}"
        for module, others in sorted(found.items())
        for other in sorted(others)
        if room(module) != room(other) and floor[room(module)] <= floor[room(other)]
    ]


def circle(found: Arrows) -> list[str]:
    """A way from a module back to itself, if there is one."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_the_page_names_rooms_and_files_that_are_there() -> None:
    assert len(FLOORS) == len(set(FLOORS)) == 23
    assert re.findall(r"^\| (\d+) \| `kv", PAGE, re.MULTILINE) == [*map(str, range(23, 0, -1))]
    roots = [ROOT, *PACKAGES.values(), *(base / name for name, base in PACKAGES.items())]
    named = re.findall(r"`(\w+(?:/\w+)*/\w+\.py)`", PAGE + (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 60
    named = [name for name in named if "NAME" not in name]
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_imports_point_down() -> None:
    found = arrows(PACKAGES)
    assert {room(module) for module in found} == {*FLOORS, "kvparity"}
    assert upward(found) == []
    assert circle(found) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("from kvparity.run.unit import Unit", "from above"),
        ("def f():\n    from kvparity.run.unit import Unit", "lazily"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import kvparity.run",
            "for types",
        ),
        ("from kvparity import run", "a room by its name"),
    ],
)
def test_an_import_from_above_is_seen(tmp_path: Path, text: str, why: str) -> None:
    files = {
        "__init__": "",
        "plan/__init__": "",
        "plan/a": text,
        "run/__init__": "",
        "run/unit": "",
    }
    for name, source in files.items():
        path = tmp_path / f"kvparity/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    assert len(upward(arrows({"kvparity": tmp_path}))) == 1, why


def test_a_circle_is_seen() -> None:
    assert circle({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset()}) == []
    found = circle({"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("b")})
    assert set(found) == {"b", "c"}


def private(tree: ast.Module) -> list[str]:
    """Names with an underscore that are imported from another file of this project."""
    return [
        each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("kvparity")
        for each in node.names
        if each.name.startswith("_") and not each.name.startswith("__")
    ]


def test_what_is_private_stays_in_its_file() -> None:
    for package, base in PACKAGES.items():
        for path in (base / package).rglob("*.py"):
            assert private(ast.parse(path.read_text())) == [], path
    assert private(ast.parse("from kvparity.core.bits import _pattern")) == ["_pattern"]


def test_a_class_name_has_one_meaning() -> None:
    """Over all sources but the tests: a name that stands twice is looked up in the wrong file."""
    found: dict[str, list[str]] = {}
    folders = [base / name for name, base in PACKAGES.items()]
    for path in sorted(each for base in (*folders, ROOT / "ci") for each in base.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert len(found) > 500
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


EXTRAS = {"transformers", "flashinfer", "pyarrow", "matplotlib"}
STARTED = ("kvparity.run.verify", "kvparity.run.worker", "kvparity.api.pairs")
"""What every contract goes through, and every notebook."""


@cache
def at_once(path: Path) -> set[str]:
    """What a file imports when it is imported itself: not in functions, not for types alone."""
    tree = ast.parse(path.read_text())
    top = [each for each in tree.body if isinstance(each, (ast.Import, ast.ImportFrom))]
    return set(imported(ast.Module(body=list(top), type_ignores=[])))


def reached(files: Mapping[str, Path], start: str) -> set[str]:
    """All that is imported with a module, the project's files and other packages."""
    found, open_ = set(), {start}
    while open_:
        name = open_.pop()
        found.add(name)
        parts = name.split(".")
        names = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
        more = {each for it in names & files.keys() for each in at_once(files[it])}
        open_ |= (more | names) - found
    return found


@pytest.mark.parametrize("start", STARTED)
def test_nothing_that_is_optional_is_needed_to_start(start: str) -> None:
    files = {
        ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__"): path
        for package, base in PACKAGES.items()
        for path in (base / package).rglob("*.py")
    }
    found = reached(files, start)
    assert {"torch", "kvparity.relations.parity.opened"} <= found
    assert {each.partition(".")[0] for each in found} & EXTRAS == set()
    needs = reached(files, "kvparity.subjects.hf.loading")
    assert "transformers" in {each.partition(".")[0] for each in needs}


def test_no_room_hides_a_function_of_the_api() -> None:
    """Importing a room sets an attribute of the package, where the function would be looked for."""
    rooms = {each.name for each in (ROOT / "harness/kvparity").iterdir() if each.is_dir()}
    assert not rooms & set(kvparity.__all__)
