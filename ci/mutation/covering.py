"""Which tests reach which function: measured by coverage's contexts, kept in ``reached.json``."""

from __future__ import annotations

import ast
import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mutation.mutants import owners
from mutation.scope import ROOT, GivenError, files

KEPT = Path(__file__).with_name("reached.json")
EACH = 12
"""So many tests are kept for every line of a function: those that cost least for what they see."""


@dataclass(frozen=True)
class Reached:
    """``seconds`` of each test by its node id; ``tests`` by file and owner, the cheapest first.

    ``imported``: by file, the owners with lines that only run while modules are imported.
    """

    seconds: Mapping[str, float]
    tests: Mapping[str, Mapping[str, tuple[str, ...]]]
    imported: Mapping[str, frozenset[str]]

    def of(self, file: str, owner: str) -> tuple[str, ...]:
        """The tests of a function; of the whole file where the function is not known."""
        known = self.tests.get(file, {})
        if owner in known:
            return known[owner]
        every = {test for tests in known.values() for test in tests}
        return tuple(sorted(every, key=lambda test: self.seconds[test])[: 4 * EACH])

    def may_reach(self, test_file: str, file: str) -> bool:
        """Whether a test file has tests that reach a file, or is not known to this map."""
        prefix = f"{test_file}::"
        if not any(test.startswith(prefix) for test in self.seconds):
            return True
        known = self.tests.get(file, {}).values()
        return any(test.startswith(prefix) for tests in known for test in tests)

    def whole(self, tests: tuple[str, ...]) -> tuple[str, ...]:
        """The functions of these tests, with all their parameters."""
        return tuple(dict.fromkeys(test.partition("[")[0] for test in tests))

    def seconds_of(self, test: str) -> float:
        """Of a test, or of what is known of a function's."""
        if test in self.seconds:
            return self.seconds[test]
        return sum(took for name, took in self.seconds.items() if name.startswith(f"{test}["))

    def within(self, tests: tuple[str, ...], seconds: float) -> tuple[str, ...]:
        """Those that together take no longer, in their order; at least one."""
        found, took = 0, 0.0
        for test in tests:
            took += self.seconds_of(test)
            if took > seconds and found:
                break
            found += 1
        return tests[:found]


def read(path: Path = KEPT) -> Reached:
    """The map that is kept in the checkout."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise GivenError(f"{path} cannot be read ({error}): git restores it") from error
    names = list(data["tests"])
    return Reached(
        data["tests"],
        {
            file: {owner: tuple(names[n] for n in tests) for owner, tests in known.items()}
            for file, known in data["files"].items()
        },
        {file: frozenset(owners) for file, owners in data["imported"].items()},
    )


def write(reached: Reached, path: Path = KEPT) -> None:
    """One line for each test and function: a change of the map can be read.

    Functions name a test by its place, so tests stay where they are and new ones come last.
    """
    place = {test: n for n, test in enumerate(reached.seconds)}
    tests = ",\n".join(f"{json.dumps(test)}: {reached.seconds[test]:.2f}" for test in place)
    lines = ",\n".join(
        f"{json.dumps(file)}: {{\n"
        + ",\n".join(
            f"{json.dumps(owner)}: {json.dumps([place[test] for test in found])}"
            for owner, found in sorted(known.items())
        )
        + "}"
        for file, known in sorted(reached.tests.items())
    )
    imported = ",\n".join(
        f"{json.dumps(file)}: {json.dumps(sorted(owners))}"
        for file, owners in sorted(reached.imported.items())
        if owners
    )
    path.write_text(
        f'{{"tests": {{\n{tests}}},\n"imported": {{\n{imported}}},\n"files": {{\n{lines}}}}}\n'
    )


def measured(data: Path, junit: Path, root: Path = ROOT) -> Reached:
    """From a run of the tests in the checkout ``root``: coverage's file, and pytest's report."""
    from coverage import CoverageData

    seconds = _seconds(junit)
    coverage = CoverageData(str(data))
    coverage.read()
    lines: dict[str, dict[int, set[str]]] = {}
    early: dict[str, set[int]] = {}
    width: dict[str, int] = defaultdict(int)
    for file in files():
        found = coverage.contexts_by_lineno(str(root / file))
        lines[file] = {
            line: {context.rpartition("|")[0] for context in contexts} & seconds.keys()
            for line, contexts in found.items()
        }
        early[file] = {line for line, contexts in found.items() if set(contexts) == {""}}
        for test in set().union(*lines[file].values()):
            width[test] += 1

    def cost(test: str) -> float:  # a test that reaches little says more of what it reaches
        return (seconds[test] + 0.05) * (width[test] + 5)

    tests: dict[str, dict[str, tuple[str, ...]]] = {}
    imported: dict[str, frozenset[str]] = {}
    for file in files():
        source = (root / file).read_text()
        blocks = owners(ast.parse(source), source)
        imported[file] = frozenset(
            each.name
            for each in blocks
            if early[file] & set(range(each.body.start[0], each.body.end[0]))
        )
        for owner in blocks:
            kept: set[str] = set()
            for line in range(owner.body.start[0], owner.body.end[0]):
                kept |= set(sorted(lines[file].get(line, ()), key=cost)[:EACH])
            ranked = tuple(sorted(kept, key=lambda test: (seconds[test], test)))
            tests.setdefault(file, {})[owner.name] = ranked
    used = {test for known in tests.values() for found in known.values() for test in found}
    return Reached({test: seconds[test] for test in sorted(used)}, tests, imported)


def merged(old: Reached, new: Reached, again: Iterable[str]) -> Reached:
    """``old`` with the tests of the files ``again`` as ``new`` has them."""
    gone = set(again)

    def stays(test: str) -> bool:
        return test.partition("::")[0] not in gone

    stay = {test: took for test, took in old.seconds.items() if stays(test) or test in new.seconds}
    seconds = stay | {test: new.seconds[test] for test in sorted(new.seconds)}
    tests: dict[str, dict[str, tuple[str, ...]]] = {}
    for file, known in new.tests.items():
        for owner, added in known.items():
            kept = [test for test in old.tests.get(file, {}).get(owner, ()) if stays(test)]
            every = sorted(dict.fromkeys([*added, *kept]), key=lambda t: seconds[t])
            tests.setdefault(file, {})[owner] = tuple(every if added else kept)
    imported = {
        file: owners | old.imported.get(file, frozenset()) & new.tests.get(file, {}).keys()
        for file, owners in new.imported.items()
    }
    return Reached(seconds, tests, imported)


def remembering(reached: Reached, kills: Iterable[tuple[str, str, str]]) -> Reached:
    """With the tests first that killed: each with the file and the owner of the mutant."""
    seconds, first = dict(reached.seconds), defaultdict[tuple[str, str], dict[str, None]](dict)
    for file, owner, test in kills:
        seconds.setdefault(test, 0.1)  # it is in no map, and quick: a kill is looked for so long
        first[file, owner][test] = None
    tests = {
        file: {
            owner: tuple(dict.fromkeys([*first[file, owner], *found]))
            for owner, found in known.items()
        }
        for file, known in reached.tests.items()
    }
    return Reached(seconds, tests, reached.imported)


def _seconds(junit: Path) -> dict[str, float]:
    """By node id. The report has the folder and module with dots, the classes too."""
    found: dict[str, float] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        if case.find("skipped") is None:
            path = case.get("classname", "").replace(".", "/") + ".py"
            found[f"{path}::{case.get('name')}"] = float(case.get("time", 0))
    return found
