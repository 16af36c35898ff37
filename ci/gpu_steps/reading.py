"""What a step printed or left behind, as its verdict and its document.

A reader takes stdout and the step's own folder, and raises ``ValueError`` where there is no answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from pydantic import JsonValue

from gpu_steps.record import Document

Read = Callable[[str, Path], tuple[str, Document]]


def last_json(text: str) -> Document:
    """The JSON document in the last line of what a command printed."""
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("it printed no JSON document in its last line")
    return found


def read_verdict(text: str, scratch: Path) -> tuple[str, Document]:
    """A document that has a verdict."""
    found = last_json(text)
    if "verdict" not in found:
        raise ValueError("its JSON document has no verdict")
    return str(found["verdict"]), found


def read_doctor(text: str, scratch: Path) -> tuple[str, Document]:
    """What the doctor found."""
    found = last_json(text)
    return ("ready" if found.get("ready") else "not ready"), found


def read_junit(text: str, scratch: Path) -> tuple[str, Document]:
    """Counts and failures of a test run; a skipped test has shown nothing."""
    file = scratch / "tests.xml"
    if not file.is_file():
        raise ValueError("the test run left no report")
    cases = list(ElementTree.parse(file).getroot().iter("testcase"))
    names = [f"{case.get('classname')}::{case.get('name')}" for case in cases]
    wrong: list[JsonValue] = [
        {
            "test": name,
            "kind": part.tag,
            "message": part.get("message", "")[:2000],
            "text": (part.text or "")[-4000:],
        }
        for name, case in zip(names, cases, strict=True)
        for part in case
        if part.tag in ("failure", "error", "skipped")
    ]
    seconds = {str(case.get("name")): float(case.get("time", 0)) for case in cases}
    document: Document = {
        "verdict": "passed" if cases and not wrong else "failed",
        "tests": len(cases),
        "not_passed": wrong,
        "slowest_s": dict(sorted(seconds.items(), key=lambda each: -each[1])[:10]),
        "names": [*names],
    }
    if document["verdict"] == "failed":
        document["error"] = f"{len(wrong)} of {len(cases)} did not pass"
    return str(document["verdict"]), document
