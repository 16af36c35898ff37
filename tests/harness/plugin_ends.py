"""What the plugin's tests say of a contract, beside what the command's run says of it.

Read from what both leave for others: ``run.json`` and the JUnit file. Nothing here asks the plugin.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

End = Literal["passed", "failed", "skipped"]
What = tuple[str, ...]
"""``(case id,)``, ``(control, relation)``, or ``()``: the verdict."""


@dataclass(frozen=True)
class Ends:
    """How each case, each control and the whole ended, the exit code, and an error's words."""

    code: int
    by: Mapping[What, End]
    words: str = ""


def of_command(code: int, folder: Path, stderr: str) -> Ends:
    """What a run of ``kvparity verify`` says that tests should."""
    file = folder / "run.json"
    if not file.exists():
        return Ends(code, {}, stderr.replace(str(folder), "RUN").strip())
    run = json.loads(file.read_text(encoding="utf-8"))
    by: dict[What, End] = {(): _passed(run["verdict"] == "holds")}
    for check in run["checks"]:
        by |= {(case["id"],): _passed(case["verdict"] == "holds") for case in check["cases"]}
    for line in run["controls"]:
        by[line["name"], line["relation"]] = _passed(line["caught"])
    for line in run["unplanted"]:
        by[line["control"], line["relation"]] = "failed" if line["asked"] else "skipped"
    return Ends(code, by)


def of_tests(code: int, junit: Path, runs: Path) -> Ends:
    """What a run of pytest over one contract says. ``runs``: its ``--kvparity-run-dir``."""
    by: dict[What, End] = {}
    words = ""
    for test in ET.parse(junit).iter("testcase"):
        told = {each.get("name"): each.get("value", "") for each in test.iter("property")}
        what = tuple(told[key] for key in ("case", "control", "relation") if key in told)
        tags = {child.tag: child for child in test}
        if what in by:
            raise ValueError(f"two tests are of {what or 'the verdict'}")
        by[what] = "skipped" if "skipped" in tags else _passed(not {"failure", "error"} & {*tags})
        found = tags.get("error", tags.get("failure"))
        if found is not None and not words:
            words = "".join(found.itertext()).strip()
    return Ends(code, by, re.sub(re.escape(str(runs)) + r"/[\w.-]+", "RUN", words))


def unlike(command: Ends, tests: Ends) -> list[str]:
    """Where the tests do not say what the command does, in sentences; empty if nowhere."""
    found = []
    if (command.code == 0) is not (tests.code == 0):
        found.append(f"the command ended with {command.code} and pytest with {tests.code}")
    if not command.by:
        passed = [what for what, end in tests.by.items() if end != "failed"]
        found += [f"there is no run, and the test of {_name(what)} did not fail" for what in passed]
        if (reason := _reason(command.words)) != _reason(tests.words):
            found.append(f"the command says {reason!r}, and the first test {tests.words!r}")
        return found
    for what in dict.fromkeys([*command.by, *tests.by]):
        # A control that has no place in a contract has no test; one that found none has.
        one = command.by.get(what, "no test")
        other = tests.by.get(what, "skipped" if one == "skipped" else "no test")
        if one != other:
            found.append(f"{_name(what)}: {other}, by the command {one}")
    return found


def _reason(words: str) -> str:
    """Which of several units fails first is chance, where they run side by side."""
    return re.sub(r"\bc\d{3}\b", "CASE", words.rpartition(": ")[2])


def _name(what: What) -> str:
    return "-".join(what) or "the verdict"


def _passed(good: bool) -> End:
    return "passed" if good else "failed"
