"""What ci/gpu writes: four files, complete after every step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

SUMMARY, EVIDENCE, TABLE, LOG = "summary.json", "evidence.json", "table.md", "log.txt"
LIMIT = 15 << 20  # bytes of all evidence: a file of 16 MiB may be too large to be sent
FAILED = ("failed", "error", "timeout")
FINISHED = ("ok", "failed", "unavailable")
"""States that say something about the device; a step in another one is run again."""

State = Literal["ok", "failed", "error", "timeout", "unavailable", "absent", "not run"]
Document = dict[str, JsonValue]
Facts = Mapping[str, str | None]


class GpuError(ValueError):
    """There is no device, or the output folder belongs to another."""


class StepOutcome(BaseModel):
    """What became of one step. ``rc``: the exit code, None if it was stopped; ``verdict``: its own.

    Only what was set is written: a step that did not run has no command.
    """

    model_config = ConfigDict(frozen=True)

    step: str
    asks: str
    state: State
    command: str | None = None
    rc: int | None = None
    seconds: float | None = None
    verdict: str | None = None
    reason: str | None = None


class Summary(BaseModel):
    """The file ``summary.json``. ``told``: the command; ``facts``: device, versions, sources."""

    schema_version: Literal[1]
    exit_code: int
    told: str
    facts: dict[str, str | None]
    audit_beside_bits: list[dict[str, str | None]]
    steps: list[StepOutcome]


class ResultsFolder:
    """The output folder: outcomes and documents by step, kept in step with the files."""

    def __init__(self, folder: Path, facts: Facts, drop: Sequence[str] = ()) -> None:
        """Take up what is there, but for the steps to ``drop``.

        Raises ``GpuError`` if what is left was measured with other code, versions or another
        device.
        """
        self.folder, self.facts = folder, dict(facts)
        self.outcomes: dict[str, StepOutcome] = {}
        self.documents: dict[str, Document] = {}
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / SUMMARY
        if not file.is_file():
            return
        old = Summary.model_validate_json(file.read_bytes())
        documents = json.loads((folder / EVIDENCE).read_text())
        self.outcomes = {each.step: each for each in old.steps if each.step not in drop}
        self.documents = {step: documents[step] for step in self.outcomes if step in documents}
        changed = [key for key in self.facts if old.facts.get(key) != self.facts[key]]
        if changed and self.outcomes:
            raise GpuError(
                f"{folder} holds results with another {', '.join(changed)}; use another --out, or "
                "--again for all steps"
            )

    def _state(self, name: str) -> State | None:
        return self.outcomes[name].state if name in self.outcomes else None

    def finished(self, name: str) -> bool:
        """Whether a step has its answer."""
        return self._state(name) in FINISHED

    def left_out(self, name: str, asks: str, reason: str) -> None:
        """A step that did not run; that it failed before is not forgotten."""
        if self._state(name) not in FAILED:
            self.keep(StepOutcome(step=name, asks=asks, state="not run", reason=reason), None)

    def keep(self, outcome: StepOutcome, document: Document | None) -> None:
        """Add a step; ``write`` writes it."""
        name = outcome.step
        self.documents.pop(name, None)
        if document is not None:
            size = sum(len(json.dumps(each)) for each in (document, *self.documents.values()))
            if size > LIMIT:
                words = f"evidence beyond {LIMIT} bytes: {size}"
                outcome = outcome.model_copy(update={"state": "error", "reason": words})
            else:
                self.documents[name] = document
        self.outcomes[name] = outcome

    def write(self, order: Sequence[str], beside: Sequence[tuple[str, str]], told: str) -> int:
        """Write summary, evidence and table; returns the exit code, which the summary has too."""
        steps = [self.outcomes[name] for name in order if name in self.outcomes]
        pairs = [
            {name: self.outcomes[name].verdict for name in pair}
            for pair in beside
            if all(name in self.outcomes for name in pair)
        ]
        summary = Summary(
            schema_version=1,
            exit_code=exit_code([step.state for step in steps]),
            told=told,
            facts=self.facts,
            audit_beside_bits=pairs,
            steps=steps,
        )
        _replace(self.folder / EVIDENCE, json.dumps(self.documents))
        _replace(self.folder / TABLE, table(self.facts, steps, pairs))
        text = summary.model_dump_json(exclude_unset=True, indent=1)
        _replace(self.folder / SUMMARY, text)
        return summary.exit_code


def exit_code(states: Sequence[State]) -> int:
    """0: every step that this machine can do is fine; 1: one is not; 4: fine, but not all ran."""
    if set(states) & set(FAILED):
        return 1
    return 4 if "not run" in states else 0


def table(
    facts: Facts, steps: Sequence[StepOutcome], pairs: Sequence[Mapping[str, str | None]]
) -> str:
    """The result as Markdown."""
    lines = [", ".join(f"{key} {value}" for key, value in facts.items() if key != "sources"), ""]
    lines += ["| step | question | state | answer | s |", "| --- | --- | --- | --- | --- |"]
    for step in steps:
        answer = "; ".join(each for each in (step.verdict, step.reason) if each is not None)
        seconds = "" if step.seconds is None else str(step.seconds)
        cells = (step.step, step.asks, step.state, answer, seconds)
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
