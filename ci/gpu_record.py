"""What ci/gpu writes: four files, complete after every step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SUMMARY, EVIDENCE, TABLE, LOG = "summary.json", "evidence.json", "table.md", "log.txt"
LIMIT = 15 << 20  # bytes of all evidence: a file of 16 MiB may be too large to be sent
FAILED = ("failed", "error", "timeout")
FINISHED = ("ok", "failed", "unavailable")
"""States that say something about the device; a step in another one is run again."""


class GpuError(ValueError):
    """There is no device, or the output folder belongs to another."""


class Record:
    """The output folder: outcomes and documents by step, kept in step with the files."""

    def __init__(self, folder: Path, facts: Mapping[str, Any], drop: Sequence[str] = ()) -> None:
        """Take up what is there, but for the steps to ``drop``.

        Raises ``GpuError`` if what is left was measured with other code, versions or another
        device.
        """
        self.folder, self.facts = folder, dict(facts)
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.documents: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)
        summary = folder / SUMMARY
        if not summary.is_file():
            return
        old = json.loads(summary.read_text())
        documents = json.loads((folder / EVIDENCE).read_text())
        self.outcomes = {each["step"]: each for each in old["steps"] if each["step"] not in drop}
        self.documents = {step: documents[step] for step in self.outcomes if step in documents}
        changed = [key for key in self.facts if old["facts"].get(key) != self.facts[key]]
        if changed and self.outcomes:
            raise GpuError(
                f"{folder} holds results with another {', '.join(changed)}; use another --out, or "
                "--again for all steps"
            )

    def finished(self, name: str) -> bool:
        """Whether a step has its answer."""
        return self.outcomes.get(name, {}).get("state") in FINISHED

    def left_out(self, name: str, asks: str, reason: str) -> None:
        """A step that did not run; that it failed before is not forgotten."""
        if self.outcomes.get(name, {}).get("state") not in FAILED:
            self.keep({"step": name, "asks": asks, "state": "not run", "reason": reason}, None)

    def keep(self, outcome: dict[str, Any], document: Any) -> None:
        """Add a step and write all files."""
        name = outcome["step"]
        self.documents.pop(name, None)
        if document is not None:
            size = len(json.dumps(document)) + sum(
                len(json.dumps(d)) for d in self.documents.values()
            )
            if size > LIMIT:
                outcome |= {"state": "error", "reason": f"evidence beyond {LIMIT} bytes: {size}"}
            else:
                self.documents[name] = document
        self.outcomes[name] = outcome

    def write(self, order: Sequence[str], beside: Sequence[tuple[str, str]], told: str) -> int:
        """Write summary, evidence and table; returns the exit code, which the summary has too."""
        steps = [self.outcomes[name] for name in order if name in self.outcomes]
        code = exit_code(steps)
        pairs = [
            {left: self.outcomes[left].get("verdict"), right: self.outcomes[right].get("verdict")}
            for left, right in beside
            if left in self.outcomes and right in self.outcomes
        ]
        summary = {
            "schema_version": 1,
            "exit_code": code,
            "told": told,
            "facts": self.facts,
            "audit_beside_bits": pairs,
            "steps": steps,
        }
        _replace(self.folder / EVIDENCE, json.dumps(self.documents))
        _replace(self.folder / TABLE, table(self.facts, steps, pairs))
        _replace(self.folder / SUMMARY, json.dumps(summary, indent=1))
        return code


def exit_code(steps: Sequence[Mapping[str, Any]]) -> int:
    """0: every step that this machine can do is fine; 1: one is not; 4: fine, but not all ran."""
    states = {step["state"] for step in steps}
    if states & set(FAILED):
        return 1
    return 4 if "not run" in states else 0


def table(
    facts: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]]
) -> str:
    """The result as Markdown."""
    lines = [", ".join(f"{key} {value}" for key, value in facts.items() if key != "sources"), ""]
    lines += ["| step | question | state | answer | s |", "| --- | --- | --- | --- | --- |"]
    for step in steps:
        answer = "; ".join(step[key] for key in ("verdict", "reason") if key in step)
        cells = (step["step"], step["asks"], step["state"], answer, str(step.get("seconds", "")))
        lines.append(f"| {' | '.join(_cell(each) for each in cells)} |")
    if pairs:
        lines += ["", "What the audit expects, beside the bits that came out:", ""]
        lines += [f"- {', '.join(f'{k}: {v}' for k, v in pair.items())}" for pair in pairs]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())[:160]


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text)
    scratch.replace(path)
